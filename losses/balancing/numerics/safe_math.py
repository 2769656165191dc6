"""What balancers from values and norms compute with: float64 in, finite numbers out."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError

LARGEST = 1e30  # of a ratio; finite in float32
LARGEST_SQUARE = 1e200  # of a squared norm: an overflow of float32 counts as this


def double(values) -> tf.Tensor:
    """`values` in float64 and without gradient: a weight is a constant of the objective."""
    return tf.stop_gradient(tf.cast(tf.convert_to_tensor(values), tf.float64))


def finite(weights, like) -> tf.Tensor:
    """`weights` in the dtype of `like`, the largest finite number of it instead of an overflow."""
    dtype = tf.convert_to_tensor(like).dtype
    dtype = dtype if dtype.is_floating else tf.float32
    return tf.cast(tf.clip_by_value(weights, dtype.min, dtype.max), dtype)


def ratio(numerator, denominator) -> tf.Tensor:
    """numerator / denominator, elementwise; 1 for 0 / 0 (no change), between ±1e30 for x / 0."""
    zero, ones = tf.equal(denominator, 0.0), tf.ones_like(denominator)
    by_zero = tf.where(tf.equal(numerator, 0.0), ones, tf.sign(numerator) * LARGEST)
    divided = tf.where(zero, by_zero, numerator / tf.where(zero, ones, denominator))
    return tf.clip_by_value(divided, -LARGEST, LARGEST)


def check_points(owner, argument: str, values):
    """None, a float or a tuple of floats; ValueError for anything else or not finite."""
    if values is None:
        return None
    numbers = np.asarray(values, np.float64)
    if numbers.ndim > 1 or not numbers.size or not np.isfinite(numbers).all():
        raise TermwiseError(
            f"{type(owner).__name__}({argument}={values!r}): give a finite number, or one for "
            "each term."
        )
    return tuple(numbers.tolist()) if numbers.ndim else float(numbers)


def points(owner, argument: str, checked, terms: int) -> tf.Tensor:
    """What `check_points` gave as float64 [] or [terms]; None is 0."""
    if isinstance(checked, tuple):
        return owner.per_term(argument, checked, terms)
    return tf.constant(0.0 if checked is None else checked, tf.float64)
