"""Labels and predictions brought to one shape and a wide dtype, before a loss compares them."""

from __future__ import annotations

import tensorflow as tf

from losses.errors import TermwiseError


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
