"""What the losses of the catalog share: a base class, weights of examples, shapes of labels."""

from __future__ import annotations

import keras
import tensorflow as tf

from losses.errors import TermwiseError
from losses.objective import RatioLoss, mask_of, reduce_values


class BatchLoss(RatioLoss):
    """A `RatioLoss` whose `call()` gives values that `Model.compile` can return unreduced.

    Subclasses implement `ratio()` and `call()`. With `reduction=None` a call of the loss gives
    what `call()` does, times the sample weights, as every Keras loss does.
    """

    def __call__(self, y_true, y_pred, sample_weight=None):
        if self.reduction in (None, "none"):
            return keras.losses.Loss.__call__(self, y_true, y_pred, sample_weight)
        return super().__call__(y_true, y_pred, sample_weight)

    def get_config(self):
        return {**super().get_config(), "dtype": self.dtype}


class AmongAll(BatchLoss):
    """Gives each example a value that depends on all examples but those of weight 0."""

    def call(self, y_true, y_pred):
        return self._values(y_true, y_pred, None)

    def ratio(self, y_true, y_pred, sample_weight=None):
        weight = weight_of_examples(y_pred, sample_weight, self.name)
        return reduce_values(
            self._values(y_true, y_pred, weight),
            reduction=self.reduction,
            sample_weight=sample_weight,
            mask=mask_of(y_pred),
            term=self.name,
        )

    def _values(self, y_true, y_pred, weight):
        raise NotImplementedError


def weight_of_examples(y_pred, sample_weight=None, loss="the loss"):
    """Sample weights times the mask, one per example.

    Args:
      y_pred: [examples, ...], with or without a Keras mask [examples].
      sample_weight: None, or [examples] or [examples, 1].
      loss: its name, for the error.
    Returns:
      float32 [examples] (float64 beside float64), or None where all examples count alike.
    Raises:
      ValueError: weights or a mask of another shape.
    """
    weight = None
    for what, factor in (("sample weights", sample_weight), ("mask", mask_of(y_pred))):
        if factor is None:
            continue
        factor = tf.convert_to_tensor(factor)
        shape = factor.shape
        if shape.rank == 2 and shape[-1] == 1:
            factor = tf.squeeze(factor, -1)
        if not factor.shape.is_compatible_with(y_pred.shape[:1]):
            raise TermwiseError(
                f"{loss} takes one weight per example: its {what} have shape {tuple(shape)} beside "
                f"predictions of shape {tuple(y_pred.shape)}. Give them the shape (examples,)."
            )
        factor = tf.cast(factor, tf.float64 if y_pred.dtype == tf.float64 else tf.float32)
        weight = factor if weight is None else weight * factor
    return weight


def widen(tensor) -> tf.Tensor:
    """`tensor` as float64 if it is that, else as float32: what a loss computes in."""
    tensor = tf.convert_to_tensor(tensor)
    return tensor if tensor.dtype == tf.float64 else tf.cast(tensor, tf.float32)


def align(y_true, y_pred, loss="the loss") -> tuple[tf.Tensor, tf.Tensor]:
    """Labels and predictions, element beside element, in a wide dtype.

    `[examples]` stands for `[examples, 1]`, on either side, so that the mean over the last axis
    leaves one value per example.

    Args:
      y_true, y_pred: floating [examples, ...], of one shape but for a last axis of 1.
      loss: its name, for the error.
    Returns:
      Two float32 (or float64) tensors of one rank, at least 2.
    Raises:
      ValueError: shapes that would have to be broadcast against each other.
    """
    y_true, y_pred = widen(y_true), widen(y_pred)
    if y_true.dtype != y_pred.dtype:
        y_true, y_pred = tf.cast(y_true, tf.float64), tf.cast(y_pred, tf.float64)
    if y_true.shape.rank is None or y_pred.shape.rank is None:
        return y_true, y_pred
    received = tuple(y_true.shape), tuple(y_pred.shape)
    rank = max(y_true.shape.rank, y_pred.shape.rank, 2)
    y_true, y_pred = (
        tensor[..., tf.newaxis] if tensor.shape.rank == rank - 1 else tensor
        for tensor in (y_true, y_pred)
    )
    if not y_true.shape.is_compatible_with(y_pred.shape):
        raise TermwiseError(
            f"{loss} compares labels of shape {received[0]} with predictions of shape "
            f"{received[1]}. Give both one shape; a last axis of 1 may be left out."
        )
    return y_true, y_pred
