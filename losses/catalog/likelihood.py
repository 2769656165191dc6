"""Negative log-likelihoods: regression whose noise is predicted or learned, smoothed classes."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from losses.catalog.bases import align, widen
from losses.catalog.focal import SparseFocal
from losses.checks import number
from losses.errors import TermwiseError
from losses.naming import own_name
from losses.objective import Parameter, mask_of, register_loss, with_mask


@register_loss
class GaussianNLL(keras.losses.Loss):
    """Normal noise whose log-variance the model predicts beside the mean.

        value = mean over the outputs of (log v + e^2 / v) / 2  (+ log(2 pi) / 2 if full)

    with mean and log v the two entries of the last axis of `y_pred`, and e = y_true - mean.

    Args:
      full: bool; adds the constant of the density.
      name, reduction, dtype: as in `keras.losses.Loss`.
    Call args:
      y_true: floating [examples], [examples, ..., outputs] or [examples, ..., outputs, 1].
      y_pred: floating [examples, 2] or [examples, ..., outputs, 2].
    Returns:
      float32 [examples, ...].
    Raises:
      ValueError: predictions whose last axis is not 2.
    Source: Nix and Weigend 1994. In e^2 / v the log-variance is held above -80, e^80 being near
      the end of float32.

    Example:
      >>> loss = GaussianNLL()
      >>> float(loss([3.0], [[1.0, 0.0]]))                        # (0 + 2^2) / 2
      2.0
    """

    def __init__(self, full=False, name=None, reduction="sum_over_batch_size", dtype=None):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.full = bool(full)

    def call(self, y_true, y_pred):
        y_true, y_pred = widen(y_true), widen(y_pred)
        if y_pred.shape.rank == 1 or y_pred.shape[-1] not in (None, 2):
            raise TermwiseError(
                f"{self.name} takes the mean and the log-variance stacked on a last axis of 2, "
                f"received predictions of shape {tuple(y_pred.shape)}. Make them with "
                "tf.stack([mean, log_variance], axis=-1)."
            )
        mean, log_variance = tf.unstack(y_pred, 2, axis=-1)
        if y_true.shape.rank == y_pred.shape.rank and y_true.shape[-1] == 1:
            y_true = tf.squeeze(y_true, -1)
        y_true, mean = align(y_true, mean, self.name)
        log_variance = tf.reshape(log_variance, tf.shape(mean))
        precision = tf.exp(-tf.maximum(log_variance, -80.0))
        value = 0.5 * (log_variance + tf.square(y_true - mean) * precision)
        if self.full:
            value += 0.5 * math.log(2.0 * math.pi)
        return tf.reduce_mean(value, axis=-1)

    def get_config(self):
        return {**super().get_config(), "dtype": self.dtype, "full": self.full}


@register_loss
class StudentTNLL(keras.losses.Loss):
    """Student's t noise: tails as heavy as `df` says, both parameters learned if asked.

        value = mean over the last axis of -log p(e),   e = y_true - y_pred
        -log p(e) = log scale + log(pi df) / 2 + log Gamma(df / 2) - log Gamma((df + 1) / 2)
                    + (df + 1) / 2 log(1 + (e / scale)^2 / df)

    Trained are `log_df` and `log_scale`; they start so that `df` and `scale` are exactly as given.

    Args:
      df: float > 0, degrees of freedom; 1 is Cauchy, towards infinity normal.
      scale: float > 0.
      trainable: bool; makes loss parameters of both.
      name, reduction, dtype: as in `keras.losses.Loss`.
    Call args:
      y_true: floating [examples, ..., outputs].
      y_pred: floating, the same shape.
    Returns:
      float32 [examples, ...].
    Raises:
      ValueError: `df` or `scale` is not a positive number.
    Source: Lange, Little, Taylor 1989.

    Example:
      >>> loss = StudentTNLL(df=1.0)                              # -log of 1 / (pi (1 + e^2))
      >>> round(float(loss([[0.0]], [[0.0]])), 4)                 # log pi
      1.1447
    """

    def __init__(
        self,
        df=3.0,
        scale=1.0,
        trainable=False,
        name=None,
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        df = number("df", df, above=0, owner=self, accepted="a number > 0")
        scale = number("scale", scale, above=0, owner=self, accepted="a number > 0")
        self.trainable = bool(trainable)
        self._start = {"df": df, "scale": scale}
        if self.trainable:
            dtype = "float64" if self.dtype == "float64" else "float32"
            with keras.name_scope(own_name(self)):
                self.log_df = Parameter("log_df", math.log(df), dtype=dtype)
                self.log_scale = Parameter("log_scale", math.log(scale), dtype=dtype)

    @property
    def df(self) -> tf.Tensor:
        """Floating [], the degrees of freedom as they are now."""
        return self._now("df")

    @property
    def scale(self) -> tf.Tensor:
        """Floating [], the scale as it is now."""
        return self._now("scale")

    def _now(self, which):
        start = self._start[which]
        if not self.trainable:
            return tf.constant(start, "float64" if self.dtype == "float64" else "float32")
        log = tf.convert_to_tensor(self.log_df if which == "df" else self.log_scale)
        # exp(log(x)) is not x to the last digit, x exp(0) is
        return start * tf.exp(log - tf.constant(math.log(start), log.dtype))

    def call(self, y_true, y_pred):
        y_true, y_pred = align(y_true, y_pred, self.name)
        df, scale = tf.cast(self.df, y_pred.dtype), tf.cast(self.scale, y_pred.dtype)
        tail = 0.5 * (df + 1.0) * tf.math.log1p(tf.square((y_true - y_pred) / scale) / df)
        constant = tf.math.log(scale) + 0.5 * tf.math.log(math.pi * df) - log_gamma_step(0.5 * df)
        return constant + tf.reduce_mean(tail, axis=-1)

    def get_config(self):
        return {
            **super().get_config(),
            "dtype": self.dtype,
            **self._start,
            "trainable": self.trainable,
        }


@register_loss
class SparseCrossentropy(SparseFocal):
    """Cross-entropy of class ids, with label smoothing, which Keras has for one-hot labels alone.

        value = -(1 - s) log p_t - s / classes * sum over classes c of log p_c

    p is the softmax of y_pred, t the label, s the smoothing: the target is 1 - s for the label, and
    s shared out among all classes.

    Args:
      label_smoothing: float from 0 to 1.
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
    Source: Szegedy et al. 2016, section 7.

    Example:
      >>> loss = SparseCrossentropy(label_smoothing=0.2)
      >>> round(float(loss([0], [[1.0, 0.0]])), 4)                # log(1 + e) - 0.9
      0.4133
    """

    def __init__(
        self,
        label_smoothing=0.0,
        from_logits=True,
        ignore_class=None,
        name=None,
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(0.0, None, from_logits, ignore_class, name, reduction, dtype)
        accepted = "a number from 0 to 1"
        self.label_smoothing = number(
            "label_smoothing", label_smoothing, least=0, most=1, owner=self, accepted=accepted
        )

    def call(self, y_true, y_pred):
        value = super().call(y_true, y_pred)
        if not self.label_smoothing:
            return value
        valid, shares = mask_of(value), -tf.nn.log_softmax(self._logits(y_pred))
        if valid is not None:
            shares = tf.where(valid[..., tf.newaxis], shares, 0.0)
        spread = tf.reduce_mean(shares, axis=-1)
        smoothed = (1.0 - self.label_smoothing) * value + self.label_smoothing * spread
        return with_mask(smoothed, valid)

    def get_config(self):
        config = super().get_config()
        del config["gamma"], config["alpha"]
        return {**config, "label_smoothing": self.label_smoothing}


def log_gamma_step(x) -> tf.Tensor:
    """log Gamma(x + 1/2) - log Gamma(x), without the cancellation of the two.

        at z = x + 6:  log(z) / 2 - 1/(8 z) + 1/(192 z^3) - 1/(640 z^5) + 17/(14336 z^7)
        and back:      - sum over k = 0..5 of log(1 + 1 / (2 (x + k)))

    Args:
      x: floating, > 0.
    Returns:
      The same dtype and shape; error below 1e-10.
    Source: Stirling's series; Tricomi and Erdelyi 1951 for the ratio.

    Example:
      >>> round(float(log_gamma_step(tf.constant(0.5))), 5)       # log(1 / sqrt(pi))
      -0.57236
    """
    z = x + 6.0
    inverse = 1.0 / tf.square(z)
    series = -1 / 8 + inverse * (1 / 192 + inverse * (-1 / 640 + inverse * 17 / 14336))
    back = tf.add_n([tf.math.log1p(0.5 / (x + k)) for k in range(6)])
    return 0.5 * tf.math.log(z) + series / z - back
