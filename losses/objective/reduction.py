"""Keras's reductions of per-element values, as two sums instead of one mean."""

from __future__ import annotations

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
    if weight is not None:
        values = values * weight
    numerator = tf.reduce_sum(values)
    if reduction == "sum":
        return Ratio(numerator, values=values)
    counted = weight if reduction == "mean_with_sample_weight" else valid
    if counted is None:
        return Ratio(numerator, tf.cast(tf.size(values), dtype), values=values)
    count = tf.reduce_sum(tf.broadcast_to(counted, tf.shape(values)))
    return Ratio(numerator, count, values=values)


def _align(weight, values, what, term):
    """`weight` with trailing axes of 1, so that it multiplies the values' leading axes."""
    received = weight.shape
    if weight.shape.rank is None or values.shape.rank is None:
        return weight
    while weight.shape.rank > values.shape.rank and weight.shape[-1] == 1:
        weight = tf.squeeze(weight, -1)
    fits = weight.shape.rank <= values.shape.rank
    while fits and weight.shape.rank < values.shape.rank:
        weight = weight[..., tf.newaxis]
    fits = fits and all(
        w in (1, v) or w is None or v is None
        for w, v in zip(weight.shape, values.shape, strict=True)
    )
    if not fits:
        accepted = [tuple(values.shape[:k]) for k in range(1, values.shape.rank + 1)]
        raise TermwiseError(
            f"Term {term!r} has values of shape {tuple(values.shape)}, but its {what} have shape "
            f"{tuple(received)}. Accepted: {' or '.join(map(str, accepted)) or '()'}; "
            "one for each example, or one for each value."
        )
    return weight
