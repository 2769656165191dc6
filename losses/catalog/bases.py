"""Losses whose value for one example depends on the batch, and the weights of their examples."""

from __future__ import annotations

import keras
import tensorflow as tf

from losses.catalog.ratio_loss import RatioLoss
from losses.errors import TermwiseError


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


def mask_of(y_pred):
    """The Keras mask that the predictions carry, or None."""
    return getattr(y_pred, "_keras_mask", None)


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
    for what, given in (("sample weights", sample_weight), ("mask", mask_of(y_pred))):
        if given is None:
            continue
        given = tf.convert_to_tensor(given)
        shape = given.shape
        if shape.rank == 2 and shape[-1] == 1:
            given = tf.squeeze(given, -1)
        if not given.shape.is_compatible_with(y_pred.shape[:1]):
            raise TermwiseError(
                f"{loss} takes one weight per example: its {what} have shape {tuple(shape)} beside "
                f"predictions of shape {tuple(y_pred.shape)}. Give them the shape (examples,)."
            )
        given = tf.cast(given, tf.float64 if y_pred.dtype == tf.float64 else tf.float32)
        weight = given if weight is None else weight * given
    return weight
