"""Losses of regression: quantiles, the smoothed absolute error, two of the classic objectives."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from losses.catalog.bases import align, widen
from losses.checks import number
from losses.errors import TermwiseError
from losses.objective import register_loss


@register_loss
class Quantile(keras.losses.Loss):
    """Pinball loss: its minimizer is a quantile of the labels, not their mean.

        value = mean over the last axis of max(tau e, (tau - 1) e),   e = y_true - y_pred

    With a list of K quantiles the last axis of `y_pred` holds one prediction for each. Each is
    fitted by itself, so they may cross; `losses.noncrossing` in the model makes that impossible.

    Args:
      tau: float between 0 and 1, or a list of them.
      name, reduction, dtype: as in `keras.losses.Loss`.
    Call args:
      y_true: floating [examples, ..., outputs]; with a list of K, [examples, ...],
        [examples, ..., 1] or [examples, ..., K].
      y_pred: floating [examples, ..., outputs]; with a list of K, [examples, ..., K].
    Returns:
      float32 [examples, ...].
    Raises:
      ValueError: `tau` is not between 0 and 1, or the predictions are not one for each.
    Source: Koenker and Bassett 1978.

    Example:
      >>> loss = Quantile(tau=[0.1, 0.9])
      >>> round(float(loss([[1.0]], [[0.0, 0.0]])), 4)            # (0.1 + 0.9) / 2
      0.5
    """

    def __init__(self, tau, name=None, reduction="sum_over_batch_size", dtype=None):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        values = np.asarray(tau, "float64")
        if values.ndim > 1 or values.size == 0 or not np.all((values > 0) & (values < 1)):
            raise TermwiseError(
                f"Quantile(tau={tau!r}): give a number between 0 and 1, or a list of them."
            )
        self.tau = values.tolist()

    def call(self, y_true, y_pred):
        if isinstance(self.tau, list):
            y_true, y_pred = self._beside_each(y_true, y_pred)
        else:
            y_true, y_pred = align(y_true, y_pred, self.name)
        tau = tf.constant(self.tau, y_pred.dtype)
        residual = y_true - y_pred
        pinball = tf.maximum(tau * residual, (tau - 1.0) * residual)
        return tf.reduce_mean(pinball, axis=-1)

    def _beside_each(self, y_true, y_pred):
        """Labels and predictions with one last axis of quantiles; that of the labels may be 1."""
        y_true, y_pred = widen(y_true), widen(y_pred)
        received = tuple(y_true.shape), tuple(y_pred.shape)
        if y_true.shape.rank == y_pred.shape.rank - 1:
            y_true = y_true[..., tf.newaxis]
        fits = y_pred.shape[-1] in (None, len(self.tau)) and y_pred.shape.rank >= 2
        fits = fits and y_true.shape[-1] in (None, 1, len(self.tau))
        if not fits or not y_true.shape[:-1].is_compatible_with(y_pred.shape[:-1]):
            raise TermwiseError(
                f"{self.name} has {len(self.tau)} quantiles, labels of shape {received[0]} and "
                f"predictions of shape {received[1]}. Predict one value for each quantile on the "
                "last axis; give one label for each example, or one for each quantile."
            )
        return tf.cast(y_true, y_pred.dtype), y_pred

    def get_config(self):
        return {**super().get_config(), "dtype": self.dtype, "tau": self.tau}


def noncrossing(outputs):
    """Predictions of several quantiles that cannot cross: the first, and what each adds.

        q_1 = o_1,   q_k = q_(k-1) + softplus(o_k)

    For the model, before its last output: what is predicted and exported is then in order, for a
    `Quantile` loss of as many `tau`, which are to rise. (A penalty in the loss makes crossings
    rarer, on the training data; sorting the predictions afterwards leaves two quantiles one value.)

    Args:
      outputs: floating [examples, ..., quantiles], a tensor or one of a functional model.
    Returns:
      The same shape, rising along the last axis.
    Source: Gasthaus et al. 2019, section 3 and Park et al. 2022, section 3 (quantiles as sums of
      positive increments); the problem: Chernozhukov, Fernandez-Val and Galichon 2010.

    Example:
      >>> inputs = keras.Input((8,))
      >>> quantiles = noncrossing(keras.layers.Dense(3)(inputs))
      >>> model = keras.Model(inputs, quantiles)
      >>> predicted = model(np.random.default_rng(0).normal(size=(5, 8)))
      >>> bool(np.all(np.diff(predicted) > 0))
      True
    """
    first, rest = outputs[..., :1], keras.ops.softplus(outputs[..., 1:])
    return keras.ops.concatenate([first, first + keras.ops.cumsum(rest, axis=-1)], axis=-1)


@register_loss
class Charbonnier(keras.losses.Loss):
    """Absolute error, smooth at zero.

        value = mean over the last axis of sqrt(e^2 + epsilon^2),   e = y_true - y_pred

    Args:
      epsilon: float > 0, the width of the smooth part and the value at zero residual.
      name, reduction, dtype: as in `keras.losses.Loss`.
    Call args:
      y_true: floating [examples, ..., outputs].
      y_pred: floating, the same shape.
    Returns:
      float32 [examples, ...].
    Raises:
      ValueError: `epsilon` is not positive.
    Source: Charbonnier et al. 1994; Lai et al. 2017 for images.

    Example:
      >>> loss = Charbonnier(epsilon=3.0)
      >>> float(loss([[0.0]], [[4.0]]))
      5.0
    """

    def __init__(self, epsilon=1e-3, name=None, reduction="sum_over_batch_size", dtype=None):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.epsilon = number("epsilon", epsilon, above=0, owner=self, accepted="a number > 0")

    def call(self, y_true, y_pred):
        y_true, y_pred = align(y_true, y_pred, self.name)
        residual = y_true - y_pred
        # in units of the larger of the two, whose squares may leave float32
        unit = tf.stop_gradient(tf.maximum(tf.abs(residual), self.epsilon))
        squares = tf.square(residual / unit) + tf.square(self.epsilon / unit)
        return tf.reduce_mean(unit * tf.sqrt(squares), axis=-1)

    def get_config(self):
        return {**super().get_config(), "dtype": self.dtype, "epsilon": self.epsilon}


@register_loss
def cosine_proximity(y_true, y_pred) -> tf.Tensor:
    """Minus the mean of the product of the normalized vectors, as in Keras 1.

        value = -mean over the last axis of (y_true / |y_true|) (y_pred / |y_pred|)

    Keras's `cosine_similarity` is the sum where this is the mean: larger by the vectors' length.
    A vector of zeros has the value 0.

    Args:
      y_true, y_pred: floating [examples, ..., outputs].
    Returns:
      float32 [examples, ...], from -1 / outputs to 1 / outputs.
    Source: `cosine_proximity` of Keras 1.

    Example:
      >>> cosine_proximity([[3.0, 4.0]], [[6.0, 8.0]]).numpy().tolist()
      [-0.5]
    """
    y_true, y_pred = align(y_true, y_pred)
    return -tf.reduce_mean(_normalized(y_true) * _normalized(y_pred), axis=-1)


@register_loss
def mean_difference(y_true, y_pred) -> tf.Tensor:
    """The signed error: how far the predictions lie above the labels.

        value = mean over the last axis of y_pred - y_true

    Args:
      y_true, y_pred: floating [examples, ..., outputs].
    Returns:
      float32 [examples, ...].
    Source: the mean signed deviation of statistics.

    Example:
      >>> mean_difference([[1.0, 1.0]], [[2.0, 4.0]]).numpy().tolist()
      [2.0]
    """
    y_true, y_pred = align(y_true, y_pred)
    return tf.reduce_mean(y_pred - y_true, axis=-1)


def _normalized(vectors):
    """Of length 1 along the last axis; a zero vector stays zero, with gradient 0."""
    squares = tf.reduce_sum(tf.square(vectors), axis=-1, keepdims=True)
    positive = squares > 0
    return tf.where(positive, vectors * tf.math.rsqrt(tf.where(positive, squares, 1.0)), 0.0)
