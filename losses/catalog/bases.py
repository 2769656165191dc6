"""What the losses stand on: base classes of those that are no mean of values, weights, shapes."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from losses.objective import Ratio


class RatioLoss(keras.losses.Loss):
    """A `keras.losses.Loss` defined by two sums over the batch.

    Subclasses implement `ratio`. Termwise divides its sums after the global reduction;
    `Model.compile` calls the loss, which divides them over the one batch it is given.
    """

    def ratio(self, y_true, y_pred, sample_weight=None) -> Ratio | dict[str, Ratio]:
        """The batch's two sums; the Keras mask of the predictions is `y_pred._keras_mask`.

        A dict, name of a part -> Ratio, makes each part a term of its own; the loss is their sum.
        """
        raise NotImplementedError(f"{type(self).__name__} has no ratio(y_true, y_pred).")

    def call(self, y_true, y_pred):
        return _total(self.ratio(y_true, y_pred))

    def __call__(self, y_true, y_pred, sample_weight=None):
        mask = getattr(y_pred, "_keras_mask", None)
        y_true, y_pred = self._cast(y_true), self._cast(y_pred)
        if mask is not None:
            y_pred = tf.identity(y_pred)
            y_pred._keras_mask = mask
        value = _total(self.ratio(y_true, y_pred, sample_weight=sample_weight))
        if self.reduction not in ("sum", "none", None):
            # Model.fit sums the replicas' gradients, and expects this of a loss that is a mean
            value /= tf.distribute.get_strategy().num_replicas_in_sync
        return tf.cast(value, self.dtype)

    def _cast(self, given):
        """Tensors of the loss's dtype; nested lists of numbers are one tensor, None stays."""
        if given is None:
            return None
        nested = isinstance(given, (list, tuple))
        if nested and all(np.ndim(leaf) == 0 for leaf in tf.nest.flatten(given)):
            given = tf.convert_to_tensor(given)
        return tf.nest.map_structure(lambda t: tf.cast(tf.convert_to_tensor(t), self.dtype), given)


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


def _total(ratio):
    """The value of one Ratio, or of several parts together."""
    parts = ratio.values() if isinstance(ratio, dict) else [ratio]
    return tf.add_n([part.value() for part in parts])


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
    given = tuple(y_true.shape), tuple(y_pred.shape)
    rank = max(y_true.shape.rank, y_pred.shape.rank, 2)
    y_true, y_pred = (
        tensor[..., tf.newaxis] if tensor.shape.rank == rank - 1 else tensor
        for tensor in (y_true, y_pred)
    )
    if not y_true.shape.is_compatible_with(y_pred.shape):
        raise TermwiseError(
            f"{loss} compares labels of shape {given[0]} with predictions of shape "
            f"{given[1]}. Give both one shape; a last axis of 1 may be left out."
        )
    return y_true, y_pred
