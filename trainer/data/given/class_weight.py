"""`class_weight=` of a fit, checked before anything is traced; and applied to the labels."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping

import tensorflow as tf

from losses.errors import TermwiseError, TermwiseTypeError
from losses.objective.class_ids import Classes
from losses.objective.reduction import with_trailing_axes
from trainer.data.batch import is_whole

ANY = Classes()


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
        if isinstance(weight, Mapping):
            raise TermwiseError(
                f"class_weight= holds a dict for {index!r}. It is of the labels of the main source "
                "alone; give the data of another source, or the labels of one output among "
                "several, sample weights."
            )
        number = isinstance(weight, numbers.Real) and math.isfinite(weight)
        if not is_whole(index) or index < 0 or not number:
            raise TermwiseError(
                f"class_weight= holds {index!r}: {weight!r}. Give class ids from 0 on and finite "
                "numbers, such as {0: 1.0, 1: 5.0}."
            )
    return {int(index): float(weight) for index, weight in class_weight.items()}


def class_weights(y, sample_weight, class_weight, classes: Classes = ANY):
    """The sample weights times the weight of each label's class.

    As `Model.fit(class_weight=)`, which knows one label per example; here there may be one per
    time step or pixel.

    Args:
      y: class ids, [examples, ...] or [examples, ..., 1], or one-hot labels or probabilities,
        [examples, ..., classes]. Which of these it is, the shape of the output tells.
      sample_weight: None, or one for each example or label.
      class_weight: dict class id -> weight; a class that is not named weighs 1.
      classes: what is known of them.
    Returns:
      float32 [examples, ...], one for each label; of the shape of `sample_weight` where that has
      more axes.
    Raises:
      ValueError: labels that have no one class; a class id that the output does not have.
      TypeError: labels that are no numbers.
    """
    y = _labels(y)
    ids, count = _class_ids(y, classes)
    unknown = [i for i in class_weight if count and i >= count and i not in classes.ignored]
    if unknown:
        raise TermwiseError(
            f"class_weight= names class {unknown[0]}, but there are {count} classes, 0 to "
            f"{count - 1}. Leave it out, or give the model more outputs."
        )
    ids = tf.cast(tf.round(tf.cast(ids, tf.float32)), tf.int32)
    weights = tf.ones_like(ids, tf.float32)
    for index, weight in class_weight.items():
        weights = tf.where(ids == int(index), float(weight), weights)
    return weights if sample_weight is None else _times(weights, sample_weight)


def _labels(y) -> tf.Tensor:
    """The labels as one tensor of numbers."""
    leaves = [] if y is None else tf.nest.flatten(y)
    if len(leaves) != 1:
        raise TermwiseError(
            "class_weight= needs the labels of one output, received "
            f"{f'those of {len(leaves)}' if leaves else 'no labels'}. Give sample weights instead."
        )
    y = leaves[0]
    if isinstance(y, (tf.RaggedTensor, tf.SparseTensor)):
        raise TermwiseTypeError(
            f"class_weight= needs dense labels, received a {type(y).__name__}. Give sample "
            "weights instead."
        )
    y = tf.convert_to_tensor(y)
    if y.dtype == tf.string:
        raise TermwiseTypeError(
            "class_weight= needs class ids, but the labels are strings. Number them."
        )
    return y


def _class_ids(y, classes: Classes):
    """The class id of each label, and how many classes there are, or None."""
    output, rank, last = classes.output, y.shape.rank, y.shape[-1:].num_elements()
    count = output[-1] if output is not None and output.rank else None
    if count == 1:  # one score: of the second of two classes, or a number
        count = 2 if classes.binary else None
    if rank is None or rank < 2:
        return y, count
    if output is None or output.rank is None:
        return (tf.squeeze(y, -1), None) if last == 1 else (tf.argmax(y, -1), last)
    if output.rank == rank + 1 and y.shape.is_compatible_with(output[:-1]):
        return y, count
    if last == 1 and output.rank == rank:
        return tf.squeeze(y, -1), count
    if not y.shape.is_compatible_with(output):
        raise TermwiseError(
            f"class_weight= cannot tell the classes of labels of shape {tuple(y.shape)} for an "
            f"output of shape {tuple(output)}. Accepted: class ids, {tuple(output[:-1])}, or "
            f"one-hot labels, {tuple(output)}. Give sample weights instead."
        )
    if classes.binary:
        raise TermwiseError(
            f"class_weight= needs one class for each example, but {classes.loss} compares each "
            f"element of labels of shape {tuple(y.shape)} by itself. Give sample weights instead; "
            "labels of two classes per time step have a last axis of 1."
        )
    return tf.argmax(y, -1), output[-1]


def _times(weights, sample_weight):
    """Class weights times sample weights, each for the examples or for more axes."""
    leaves = tf.nest.flatten(sample_weight)
    if len(leaves) != 1:
        raise TermwiseError(
            f"class_weight= was given beside the sample weights of {len(leaves)} outputs. "
            "Multiply them into the sample weights."
        )
    known = tf.cast(leaves[0], tf.float32)
    if known.shape.rank is None or weights.shape.rank is None:
        return weights * tf.reshape(known, tf.shape(weights))
    aligned = with_trailing_axes(known, weights)
    if aligned is not None:
        return weights * aligned
    aligned = with_trailing_axes(weights, known)
    if aligned is None:
        raise TermwiseError(
            f"The sample weights have shape {tuple(known.shape)}, the labels that class_weight= "
            f"weighs {tuple(weights.shape)}. Give one for each example, or one for each label."
        )
    return aligned * known
