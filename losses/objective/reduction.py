"""Keras's reductions as two sums instead of one mean: of a loss's values, by weights and masks."""

from __future__ import annotations

import math

import keras
import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from losses.objective.ratio import Ratio


def reduce_values(
    values, *, reduction="sum_over_batch_size", sample_weight=None, mask=None, term="the loss"
) -> Ratio:
    """Numerator and denominator of a Keras reduction.

        sum_over_batch_size, mean, None:  sum(v w m) / (number of v with m = 1)
        mean_with_sample_weight:          sum(v w m) / sum(w m)
        sum:                              sum(v w m)

    Args:
      values: floating, one value per example or element, [examples, ...].
      reduction: a `keras.losses.Loss` reduction; None means the mean over the elements.
      sample_weight: None, or [examples], or one weight per time step or element.
      mask: None, or a Keras mask of the leading dimensions of `values`.
      term: name for the error.
    Returns:
      Ratio of the values' dtype.
    Raises:
      ValueError: a weight or mask whose shape does not fit the values.
    """
    dtype = values.dtype
    weight = None
    if mask is not None:
        weight = _align(tf.cast(mask, dtype), values, "mask", term)
        # masked elements may hold anything, NaN included
        values = tf.where(tf.broadcast_to(weight, tf.shape(values)) > 0, values, 0)
    valid = weight
    if sample_weight is not None:
        sample_weight = _align(tf.cast(sample_weight, dtype), values, "sample weights", term)
        weight = sample_weight if weight is None else weight * sample_weight
    present = None
    if weight is not None:
        values = values * weight
        present = count_nonzero(weight)
    of_values = {"values": values, "weights": weight}
    if reduction == "sum":
        return Ratio(None, present=present, **of_values)
    counted = weight if reduction == "mean_with_sample_weight" else valid
    if counted is None:
        size = tf.cast(tf.size(values), dtype)
        present = True if present is None else present
        return Ratio(None, size, present=present, counts=1.0, **of_values)
    counts = tf.broadcast_to(counted, tf.shape(values))
    return Ratio(None, tf.reduce_sum(counts), present=present, counts=counts, **of_values)


def count_nonzero(weights) -> tf.Tensor:
    """float32 [], how many weights are not 0: whether anything counts."""
    return tf.math.count_nonzero(weights, dtype=tf.float32)


def labels_that_count(labels, *, sample_weight=None, mask=None, classes=None, ignored=None):
    """Labels in which those that do not count, and that no loss can read, are harmless ones.

    A missing label is marked by a sample weight of 0, or by a mask; what stands in its place is
    NaN in a regression, or an id such as -1. 0 times NaN is NaN, in the gradient too.

    Args:
      labels: floating [examples, ...].
      sample_weight, mask: as in `reduce_values`.
      classes: the number of classes where the labels are class ids, else None.
      ignored: an id besides these that the loss leaves out by itself, or None.
    Returns:
      the labels; NaN and infinity are 1, and what is no class id 0, where the label does not count.
    """
    uncounted = [] if sample_weight is None else [tf.equal(sample_weight, 0)]
    uncounted += [] if mask is None else [tf.logical_not(tf.cast(mask, tf.bool))]
    if labels.shape.rank is None or not labels.dtype.is_floating:
        return labels
    if classes is None:
        unreadable, harmless = ~tf.math.is_finite(labels), tf.ones_like(labels)
    else:
        readable = (labels >= 0) & (labels < classes) & tf.equal(labels, tf.floor(labels))
        unreadable, harmless = ~readable, tf.zeros_like(labels)
        if ignored is not None:
            unreadable &= labels != ignored
    for where in uncounted:
        aligned = None if where.shape.rank is None else with_trailing_axes(where, labels)
        if aligned is not None:
            labels = tf.where(aligned & unreadable, harmless, labels)
    return labels


def _align(weight, values, what, term):
    """`weight` with trailing axes of 1, so that it multiplies the values' leading axes."""
    if weight.shape.rank is None or values.shape.rank is None:
        return weight
    aligned = with_trailing_axes(weight, values)
    if aligned is None:
        accepted = [tuple(values.shape[:k]) for k in range(1, values.shape.rank + 1)]
        raise TermwiseError(
            f"Term {term!r} has values of shape {tuple(values.shape)}, but its {what} have shape "
            f"{tuple(weight.shape)}. Accepted: {' or '.join(map(str, accepted)) or '()'}; "
            "one for each example, or one for each value."
        )
    return aligned


def with_trailing_axes(weight, values) -> tf.Tensor | None:
    """`weight` with as many axes as `values`, those of 1 added or taken at its end.

    Args:
      weight: [examples], or of any shape that is a beginning of that of `values`.
      values: [examples, ...], of known rank.
    Returns:
      The weight, which multiplies the values; None where its shape does not fit theirs.
    """
    rank = values.shape.rank
    while weight.shape.rank > rank and weight.shape[-1] == 1:
        weight = tf.squeeze(weight, -1)
    while weight.shape.rank < rank:
        weight = weight[..., tf.newaxis]
    if weight.shape.rank > rank:
        return None
    sizes = zip(weight.shape, values.shape, strict=True)
    return weight if all(w in (1, v) or None in (w, v) for w, v in sizes) else None


def takes_class_ids(loss) -> bool:
    """Whether a `keras.losses.Loss` reads class ids: those that Keras and we call sparse."""
    function = getattr(loss, "function", None)  # of a function given as a loss
    if function is not None:
        return getattr(function, "__name__", "").startswith("sparse_categorical")
    return type(loss).__name__.startswith("Sparse")


def of_whole_ids(loss, values, labels, given):
    """A loss's values, NaN where a label such as 1.5 is no class id: it would be rounded down.

    Args:
      given: the labels before they were cast; whole numbers need no look.
    """
    if not takes_class_ids(loss) or not tf.is_tensor(labels) or not labels.dtype.is_floating:
        return values
    if tf.as_dtype(getattr(given, "dtype", tf.float32)).is_integer:
        return values
    if not tf.is_tensor(values):
        return values
    whole = tf.equal(labels, tf.floor(labels))
    aligned = with_trailing_axes(whole, values) if values.shape.rank and labels.shape.rank else None
    if aligned is None:
        return values
    return with_mask(tf.where(aligned, values, math.nan), mask_of(values))


class RatioLoss(keras.losses.Loss):
    """A `keras.losses.Loss` defined by two sums over the batch.

    Subclasses implement `ratio`. Termwise divides its sums after the global reduction;
    `Model.compile` calls the loss, which divides them over the one batch it is given.
    """

    def ratio(self, y_true, y_pred, sample_weight=None) -> Ratio | dict[str, Ratio]:
        """The batch's two sums; `mask_of(y_pred)` is the Keras mask of the predictions.

        A dict, name of a part -> Ratio, makes each part a term of its own; the loss is their sum.
        """
        raise NotImplementedError(f"{type(self).__name__} has no ratio(y_true, y_pred).")

    def call(self, y_true, y_pred):
        return _total(self.ratio(y_true, y_pred))

    def __call__(self, y_true, y_pred, sample_weight=None):
        mask = mask_of(y_pred)
        y_true, y_pred = self._cast(y_true), self._cast(y_pred)
        if mask is not None:
            y_pred = with_mask(tf.identity(y_pred), mask)
        value = _total(self.ratio(y_true, y_pred, sample_weight=sample_weight))
        if self.reduction not in ("sum", "none", None):
            # Model.fit sums the replicas' gradients, and expects this of a loss that is a mean
            value /= tf.distribute.get_strategy().num_replicas_in_sync
        return tf.cast(value, self.dtype)

    def _cast(self, values):
        """Tensors of the loss's dtype; nested lists of numbers are one tensor, None stays."""
        if values is None:
            return None
        nested = isinstance(values, (list, tuple))
        if nested and all(np.ndim(leaf) == 0 for leaf in tf.nest.flatten(values)):
            values = tf.convert_to_tensor(values)
        return tf.nest.map_structure(lambda t: tf.cast(tf.convert_to_tensor(t), self.dtype), values)


def _total(ratio: Ratio | dict[str, Ratio]) -> tf.Tensor:
    """The value of one Ratio, or of several parts together."""
    parts = ratio.values() if isinstance(ratio, dict) else [ratio]
    return tf.add_n([part.value() for part in parts])


# Keras leaves the mask of a layer's output on the tensor, under this private name alone.


def mask_of(tensor):
    """The Keras mask that a tensor carries, [examples, ...], or None."""
    return getattr(tensor, "_keras_mask", None)


def with_mask(tensor, mask):
    """The tensor itself, carrying a Keras mask; None changes nothing."""
    if mask is not None:
        tensor._keras_mask = mask
    return tensor
