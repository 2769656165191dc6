"""Squared errors with a weight for each output dimension, rooted per example or per batch."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from losses.catalog.bases import align, widen
from losses.errors import TermwiseError
from losses.objective import Ratio, RatioLoss, mask_of, reduce_values, register_loss


class _Weighted(RatioLoss):
    """What the two losses share: the weights, and where the mean over examples is taken."""

    rooted = False

    def __init__(
        self,
        weights=None,
        reduction_point="sample",
        name=None,
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        kind = type(self).__name__
        if reduction_point not in ("sample", "batch"):
            raise TermwiseError(
                f"{kind}(reduction_point={reduction_point!r}): accepted are 'sample' and 'batch'."
            )
        if reduction_point == "batch" and reduction not in (
            "sum_over_batch_size",
            "mean_with_sample_weight",
        ):
            raise TermwiseError(
                f"{kind}(reduction_point='batch', reduction={reduction!r}): the mean over the "
                "batch is part of the formula, divided by the sample weights' sum. Leave "
                "reduction= out."
            )
        if weights is not None:
            weights = np.asarray(weights, "float64")
            if weights.ndim != 1 or not np.all(np.isfinite(weights)) or np.any(weights < 0):
                raise TermwiseError(
                    f"{kind}(weights={weights.tolist()!r}): give a list with one number >= 0 for "
                    "each output dimension, or None to take them from the label."
                )
            if not np.any(weights > 0):
                raise TermwiseError(f"{kind}(weights={weights.tolist()!r}): one must be positive.")
        self.weights = None if weights is None else weights.tolist()
        self.reduction_point = reduction_point

    def after(self, mean):
        """What follows the sums: nothing, or a root."""
        raise NotImplementedError

    def call(self, y_true, y_pred):
        if self.reduction_point == "batch":
            return self.ratio(y_true, y_pred).value()
        squares, total = self._sums(y_true, y_pred)
        return tf.math.divide_no_nan(self.after(squares), total)

    def ratio(self, y_true, y_pred, sample_weight=None):
        of_batch = {"sample_weight": sample_weight, "mask": mask_of(y_pred), "term": self.name}
        if self.reduction_point == "sample":
            return reduce_values(self.call(y_true, y_pred), reduction=self.reduction, **of_batch)
        squares, total = (
            reduce_values(sums, reduction="sum", **of_batch) for sums in self._sums(y_true, y_pred)
        )
        return Ratio(
            squares.numerator,
            total.numerator,
            after=self.after if self.rooted else None,
            values=squares.values,
            counts=total.values,
            weights=squares.weights,
        )

    def __call__(self, y_true, y_pred, sample_weight=None):
        if self.reduction_point == "sample":
            return keras.losses.Loss.__call__(self, y_true, y_pred, sample_weight)
        return super().__call__(y_true, y_pred, sample_weight)

    def _sums(self, y_true, y_pred):
        """sum_j w_j e_j^2 and sum_j w_j, both [examples, ...]."""
        in_label = isinstance(y_true, dict)
        keys = sorted(y_true) if in_label else "one tensor"
        if in_label != (self.weights is None) or (in_label and keys != ["target", "weights"]):
            raise TermwiseError(
                f"{self.name} has weights={self.weights!r} and its label is {keys}. Give it a list "
                "of weights and one tensor of labels, or weights=None and labels of the form "
                '{"target": ..., "weights": ...}.'
            )
        labels, weights = y_true, self.weights
        if in_label:
            labels, weights = y_true["target"], y_true["weights"]
        y_true, y_pred = align(labels, y_pred, self.name)
        beside = self._of_elements if in_label else self._of_dimensions
        weights = tf.broadcast_to(beside(weights, y_pred), tf.shape(y_pred))
        squares = tf.reduce_sum(weights * tf.square(y_true - y_pred), axis=-1)
        return squares, tf.reduce_sum(weights, axis=-1)

    def _of_elements(self, weights, y_pred):
        """The weights of a label, one for each element; a last axis of 1 may be left out."""
        weights = tf.cast(widen(weights), y_pred.dtype)
        if weights.shape.rank == y_pred.shape.rank - 1 and y_pred.shape[-1] == 1:
            weights = weights[..., tf.newaxis]
        return weights

    def _of_dimensions(self, weights, y_pred):
        """The weights of the constructor, [outputs]."""
        weights = tf.constant(weights, y_pred.dtype)
        if not weights.shape.is_compatible_with(y_pred.shape[-1:]):
            raise TermwiseError(
                f"{self.name} has {weights.shape[0]} weights, but predictions of shape "
                f"{tuple(y_pred.shape)}. Give one weight for each output dimension, "
                f"{y_pred.shape[-1]}."
            )
        return weights

    def get_config(self):
        return {
            **super().get_config(),
            "dtype": self.dtype,
            "weights": self.weights,
            "reduction_point": self.reduction_point,
        }


@register_loss
class WeightedMSE(_Weighted):
    """Mean squared error with a weight for each output dimension.

        sample: per example, sum_j w_j e_j^2 / sum_j w_j
        batch:  sum_i s_i sum_j w_j e_ij^2 / sum_i s_i sum_j w_j,   s the sample weights

    Args:
      weights: list of floats >= 0, one for each output dimension; None: they come with the label,
        `{"target": ..., "weights": ...}`, one for each element (`Model.fit` refuses such labels).
      reduction_point: "sample" or "batch".
      name, reduction, dtype: as in `keras.losses.Loss`; "batch" has its own reduction.
    Call args:
      y_true: floating [examples, ..., outputs], or a dict of two of these.
      y_pred: floating [examples, ..., outputs].
    Returns:
      float32 [examples, ...], or [] with "batch".
    Raises:
      ValueError: a weight below 0, or labels that do not go with `weights`.
    Source: defined here; with weights 1 it is `keras.losses.MeanSquaredError`.

    Example:
      >>> loss = WeightedMSE(weights=[3.0, 1.0])
      >>> float(loss([[0.0, 0.0]], [[1.0, 3.0]]))                 # (3 * 1 + 1 * 9) / 4
      3.0
    """

    def after(self, mean):
        return mean


@register_loss
class WeightedRMSE(_Weighted):
    """Root of a weighted squared error, taken per example or over the whole batch.

        sample: per example, sqrt(sum_j w_j e_j^2) / sum_j w_j
        batch:  sqrt(sum_i s_i sum_j w_j e_ij^2 / sum_i s_i sum_j w_j),   s the sample weights

    The root of "batch" is taken after the reduction over all replicas. Its gradient at zero
    residual is 0.

    Args:
      weights: list of floats >= 0, one for each output dimension; None: they come with the label,
        `{"target": ..., "weights": ...}`, one for each element (`Model.fit` refuses such labels).
      reduction_point: "sample" or "batch".
      name, reduction, dtype: as in `keras.losses.Loss`; "batch" has its own reduction.
    Call args:
      y_true: floating [examples, ..., outputs], or a dict of two of these.
      y_pred: floating [examples, ..., outputs].
    Returns:
      float32 [examples, ...], or [] with "batch".
    Raises:
      ValueError: a weight below 0, or labels that do not go with `weights`.
    Source: defined here; "batch" with weights 1 is `keras.metrics.RootMeanSquaredError`.

    Example:
      >>> loss = WeightedRMSE(weights=[3.0, 1.0], reduction_point="batch")
      >>> float(loss([[0.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [2.0, 4.0]]))   # sqrt((4 + 28) / 8)
      2.0
    """

    rooted = True

    def after(self, mean):
        positive = mean > 0
        return tf.where(positive, tf.sqrt(tf.where(positive, mean, 1.0)), 0.0)
