"""Focal losses: cross-entropies that turn away from the examples already classified well."""

from __future__ import annotations

import math

import keras
import numpy as np
import tensorflow as tf

from losses.catalog.bases import align, widen
from losses.checks import number
from losses.errors import TermwiseError
from losses.objective import register_loss, with_mask


@register_loss
class BinaryFocal(keras.losses.Loss):
    """Focal loss of independent yes/no labels.

        p_t = y p + (1 - y)(1 - p),   p = sigmoid(y_pred)
        alpha_t = y alpha + (1 - y)(1 - alpha), or 1
        value = mean over the last axis of -alpha_t (1 - p_t)^gamma log p_t

    For a soft label y, -log p_t stands for the cross-entropy -y log p - (1 - y) log(1 - p).

    Args:
      gamma: float >= 0; how strongly easy examples are turned down; 0: cross-entropy.
      alpha: float in [0, 1], the weight of positive labels (1 - alpha that of negative ones),
        or None.
      from_logits: bool; False: `y_pred` are probabilities, kept off 0 and 1 by Keras's epsilon.
      label_smoothing: float in [0, 1]; y becomes y (1 - smoothing) + smoothing / 2.
      name, reduction, dtype: as in `keras.losses.Loss`.
    Call args:
      y_true: floating [examples, ..., labels], in [0, 1].
      y_pred: floating, the same shape.
    Returns:
      float32 [examples, ...].
    Raises:
      ValueError: an argument outside its range.
    Source: Lin et al. 2017, eq. 5.

    Example:
      >>> loss = BinaryFocal(gamma=2.0)
      >>> round(float(loss([[1.0]], [[0.0]])), 4)                 # (1/2)^2 log 2
      0.1733
    """

    def __init__(
        self,
        gamma=2.0,
        alpha=None,
        from_logits=True,
        label_smoothing=0.0,
        name=None,
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.gamma = number("gamma", gamma, least=0, owner=self, accepted="a number >= 0")
        if alpha is not None:
            weight = "None or a number from 0 to 1, the weight of positive labels"
            alpha = number("alpha", alpha, least=0, most=1, owner=self, accepted=weight)
        self.alpha = alpha
        self.from_logits = bool(from_logits)
        self.label_smoothing = number(
            "label_smoothing",
            label_smoothing,
            least=0,
            most=1,
            owner=self,
            accepted="a number from 0 to 1",
        )

    def call(self, y_true, y_pred):
        y_true, y_pred = align(y_true, y_pred, self.name)
        if self.label_smoothing:
            y_true = y_true * (1.0 - self.label_smoothing) + 0.5 * self.label_smoothing
        logits = y_pred
        if not self.from_logits:
            epsilon = keras.config.epsilon()
            p = tf.clip_by_value(y_pred, epsilon, 1.0 - epsilon)
            logits = tf.math.log(p) - tf.math.log1p(-p)
        value = tf.nn.sigmoid_cross_entropy_with_logits(labels=y_true, logits=logits)
        if self.gamma:
            # beyond 80 the factor is 0 in every dtype, but the slope of its power is not finite
            bounded = tf.clip_by_value(logits, -80.0, 80.0)
            missed = y_true * tf.sigmoid(-bounded) + (1.0 - y_true) * tf.sigmoid(bounded)
            value *= tf.pow(missed, self.gamma)
        if self.alpha is not None:
            value *= y_true * self.alpha + (1.0 - y_true) * (1.0 - self.alpha)
        return tf.reduce_mean(value, axis=-1)

    def get_config(self):
        return {
            **super().get_config(),
            "dtype": self.dtype,
            "gamma": self.gamma,
            "alpha": self.alpha,
            "from_logits": self.from_logits,
            "label_smoothing": self.label_smoothing,
        }


class _SoftmaxFocal(keras.losses.Loss):
    """What the two focal losses of exclusive classes share: arguments, and log(1 - p)."""

    def __init__(
        self,
        gamma=2.0,
        alpha=None,
        from_logits=True,
        ignore_class=None,
        name=None,
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.gamma = number("gamma", gamma, least=0, owner=self, accepted="a number >= 0")
        weights = np.asarray(1.0 if alpha is None else alpha, "float64")
        if weights.ndim > 1 or not np.all(np.isfinite(weights)) or np.any(weights < 0):
            raise TermwiseError(
                f"{type(self).__name__}(alpha={alpha!r}): give None, a number >= 0, or a list "
                "with one number >= 0 per class."
            )
        self.alpha = None if alpha is None else weights.tolist()
        self.from_logits = bool(from_logits)
        self.ignore_class = None if ignore_class is None else int(ignore_class)

    def _logits(self, y_pred):
        """Logits in a wide dtype, [..., classes]."""
        y_pred = widen(y_pred)
        if isinstance(self.alpha, list) and y_pred.shape[-1] not in (None, len(self.alpha)):
            raise TermwiseError(
                f"{self.name} has alpha for {len(self.alpha)} classes, but predictions of shape "
                f"{tuple(y_pred.shape)}. Give one alpha per class, {y_pred.shape[-1]}, or a number."
            )
        if self.from_logits:
            return y_pred
        return tf.math.log(tf.clip_by_value(y_pred, keras.config.epsilon(), 1.0))

    def get_config(self):
        return {
            **super().get_config(),
            "dtype": self.dtype,
            "gamma": self.gamma,
            "alpha": self.alpha,
            "from_logits": self.from_logits,
            "ignore_class": self.ignore_class,
        }


@register_loss
class CategoricalFocal(_SoftmaxFocal):
    """Focal loss of exclusive classes, labels one-hot or soft.

        value = -sum over classes c of alpha_c y_c (1 - p_c)^gamma log p_c,   p = softmax(y_pred)

    Args:
      gamma: float >= 0; how strongly easy examples are turned down; 0: cross-entropy.
      alpha: a weight for all classes, a list with one per class, or None (1).
      from_logits: bool; False: `y_pred` are probabilities (normalized to a sum of 1).
      ignore_class: int, or None; elements whose label is more than half this class are left
        out, of the mean's denominator too.
      name, reduction, dtype: as in `keras.losses.Loss`.
    Call args:
      y_true: floating [examples, ..., classes].
      y_pred: floating [examples, ..., classes].
    Returns:
      float32 [examples, ...].
    Raises:
      ValueError: an argument outside its range.
    Source: Lin et al. 2017, eq. 5, with the softmax for the sigmoid.

    Example:
      >>> loss = CategoricalFocal(gamma=2.0)
      >>> round(float(loss([[1.0, 0.0]], [[0.0, 0.0]])), 4)       # (1/2)^2 log 2
      0.1733
    """

    def call(self, y_true, y_pred):
        logits, y_true = self._logits(y_pred), widen(y_true)
        if not logits.shape.is_compatible_with(y_true.shape):
            raise TermwiseError(
                f"{self.name} takes one label per class: labels of shape {tuple(y_true.shape)} "
                f"beside predictions of shape {tuple(logits.shape)}. Class indices are for "
                "losses.SparseFocal."
            )
        y_true = tf.cast(y_true, logits.dtype)
        valid = None
        if self.ignore_class is not None:
            if not 0 <= self.ignore_class < (logits.shape[-1] or math.inf):
                raise TermwiseError(
                    f"CategoricalFocal(ignore_class={self.ignore_class}) beside "
                    f"{logits.shape[-1]} classes: give an index from 0."
                )
            valid = y_true[..., self.ignore_class] <= 0.5
            logits = tf.where(valid[..., tf.newaxis], logits, 0.0)
        # a padded class, of logit -inf and label 0, counts nothing
        value = tf.math.multiply_no_nan(-tf.nn.log_softmax(logits), y_true)
        if self.gamma:
            # 1 - p of the likeliest class is the sum of the others; of the rest, p <= 1/2
            likeliest = tf.one_hot(
                tf.argmax(logits, -1), tf.shape(logits)[-1], on_value=True, off_value=False
            )
            p = tf.where(likeliest, tf.zeros_like(logits), tf.nn.softmax(logits))
            others = _log_others(logits, likeliest)[..., tf.newaxis]
            log_missed = tf.where(likeliest, others, tf.math.log1p(-p))
            value *= tf.exp(self.gamma * log_missed)
        if self.alpha is not None:
            value *= tf.constant(self.alpha, value.dtype)
        return _leave_out(tf.reduce_sum(value, axis=-1), valid)


@register_loss
class SparseFocal(_SoftmaxFocal):
    """Focal loss of exclusive classes, labels given as class indices.

        value = -alpha_t (1 - p_t)^gamma log p_t,   p = softmax(y_pred), t the label

    Args:
      gamma: float >= 0; how strongly easy examples are turned down; 0: cross-entropy.
      alpha: a weight for all classes, a list with one per class, or None (1).
      from_logits: bool; False: `y_pred` are probabilities (normalized to a sum of 1).
      ignore_class: int, or None; elements with this label are left out, of the mean's
        denominator too.
      name, reduction, dtype: as in `keras.losses.Loss`.
    Call args:
      y_true: [examples, ...] or [examples, ..., 1], class indices from 0.
      y_pred: floating [examples, ..., classes].
    Returns:
      float32 [examples, ...].
    Raises:
      ValueError: an argument outside its range.
    Source: Lin et al. 2017, eq. 5, with the softmax for the sigmoid.

    Example:
      >>> loss = SparseFocal(gamma=2.0)
      >>> round(float(loss([0], [[0.0, 0.0]])), 4)                # (1/2)^2 log 2
      0.1733
    """

    def call(self, y_true, y_pred):
        logits = self._logits(y_pred)
        labels = self._labels(y_true, logits)
        valid = None
        if self.ignore_class is not None:
            valid = tf.not_equal(labels, self.ignore_class)
            labels = tf.where(valid, labels, 0)
            logits = tf.where(valid[..., tf.newaxis], logits, 0.0)
        value = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        if self.gamma:
            chosen = tf.one_hot(labels, tf.shape(logits)[-1], on_value=True, off_value=False)
            value *= tf.exp(self.gamma * _log_others(logits, chosen))
        if self.alpha is not None:
            alpha = tf.constant(self.alpha, value.dtype)
            value *= tf.gather(alpha, labels) if alpha.shape.rank else alpha
        return _leave_out(value, valid)

    def _labels(self, y_true, logits):
        y_true = tf.convert_to_tensor(y_true)
        rank = logits.shape.rank
        if rank is not None and y_true.shape.rank == rank and y_true.shape[-1] == 1:
            y_true = tf.squeeze(y_true, -1)
        if not y_true.shape.is_compatible_with(logits.shape[:-1]):
            raise TermwiseError(
                f"{self.name} takes one class index per element: labels of shape "
                f"{tuple(y_true.shape)} beside predictions of shape {tuple(logits.shape)}. "
                "One label per class is for losses.CategoricalFocal."
            )
        # Keras casts labels to the loss's dtype; half precision counts no further than this
        exact = {"float16": 2048, "bfloat16": 256}.get(y_true.dtype.name, math.inf)
        if (logits.shape[-1] or 0) > exact:
            raise TermwiseError(
                f"{self.name} of dtype {y_true.dtype.name} can tell {exact} classes apart, "
                f"received {logits.shape[-1]}. Give it dtype='float32'."
            )
        return tf.cast(y_true, tf.int32)


def _log_others(logits, chosen):
    """log of the softmax's sum over the classes not chosen: log(1 - p), exact as p goes to 1.

    Args:
      logits: floating [..., classes].
      chosen: bool [..., classes], one True in each.
    Returns:
      floating [...], finite.
    """
    # e^-1000 is 0 in every dtype; a finite floor keeps the gradient of padded classes finite
    shifted = logits - tf.stop_gradient(tf.reduce_max(logits, axis=-1, keepdims=True))
    shifted = tf.maximum(shifted, -1000.0)
    others = tf.where(chosen, tf.constant(-2000.0, shifted.dtype), shifted)
    return tf.reduce_logsumexp(others, axis=-1) - tf.reduce_logsumexp(shifted, axis=-1)


def _leave_out(values, valid):
    """`values`, with the Keras mask that takes invalid ones out of the mean."""
    if valid is None:
        return values
    return with_mask(tf.where(valid, values, 0.0), valid)
