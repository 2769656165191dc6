"""`class_weight=` of a fit, checked before anything is traced; and applied to the labels."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping

import tensorflow as tf

from losses.errors import TermwiseError, TermwiseTypeError
from trainer.data.batch import is_whole


def checked_class_weight(class_weight) -> dict[int, float]:
    """`class_weight` as a dict of finite numbers by class id.

    Raises:
      TypeError: it is no dict.
      ValueError: a class that is no whole number from 0 on, or a weight that is not finite.
    """
    if class_weight is None:
        return {}
    if not isinstance(class_weight, Mapping):
        raise TermwiseTypeError(
            f"class_weight={class_weight!r}. Give a dict of class id -> weight, such as "
            "{0: 1.0, 1: 5.0}."
        )
    for index, weight in class_weight.items():
        number = isinstance(weight, numbers.Real) and math.isfinite(weight)
        if not is_whole(index) or index < 0 or not number:
            raise TermwiseError(
                f"class_weight= holds {index!r}: {weight!r}. Give class ids from 0 on and finite "
                "numbers, such as {0: 1.0, 1: 5.0}."
            )
    return {int(index): float(weight) for index, weight in class_weight.items()}


def class_weights(y, sample_weight, class_weight):
    """`sample_weight` times each example's class weight, as `Model.fit(class_weight=)`.

    Args:
      y: [examples] or [examples, 1] class ids, or [examples, classes] one-hot or probabilities.
      sample_weight: None or [examples].
      class_weight: dict class id -> weight; a class that is not named weighs 1.
    """
    if y is None or isinstance(y, (dict, list, tuple)):
        raise TermwiseError(
            "class_weight= needs one label per example, received "
            f"{'no labels' if y is None else type(y).__name__}. Give sample weights instead."
        )
    y = tf.convert_to_tensor(y)
    if y.dtype == tf.string:
        raise TermwiseTypeError(
            "class_weight= needs class ids, but the labels are strings. Number them."
        )
    if (y.shape.rank or 1) > 1:
        y = tf.squeeze(y, -1) if y.shape[-1] == 1 else tf.argmax(y, axis=-1)
    y = tf.cast(tf.round(tf.cast(y, tf.float32)), tf.int32)
    weights = tf.ones_like(y, tf.float32)
    for index, weight in class_weight.items():
        weights = tf.where(y == int(index), float(weight), weights)
    if sample_weight is None:
        return weights
    return weights * tf.reshape(tf.cast(sample_weight, tf.float32), tf.shape(weights))
