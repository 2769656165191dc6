"""Labels that are class ids: which losses read them so, and how many classes an output has."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from losses.objective.compiled import name_losses, outputs_of_losses
from losses.objective.outputs import MissingLabel, match_labels, name_outputs
from losses.objective.reduction import takes_class_ids
from losses.objective.registry import FunctionLoss


class ClassIds(NamedTuple):
    """The labels of one compiled loss that takes class ids.

    Attributes:
      term: the loss's name.
      labels: [examples, ...], as the data gives them.
      classes: int, the size of the output's last axis; the ids go from 0 to classes - 1.
      ignored: an id besides these that the loss leaves out, or None.
    """

    term: str
    labels: object
    classes: int
    ignored: int | None


class Classes(NamedTuple):
    """What a model and its loss say of the classes of a label.

    Attributes:
      output: the static shape of the output with a loss, [examples, ..., classes]; None where
        there is not one.
      loss: the name of its loss.
      binary: whether the loss compares each element of the output with one of the labels.
      ignored: ids beside the classes that the loss leaves out.
    """

    output: tf.TensorShape | None = None
    loss: str = "the loss"
    binary: bool = False
    ignored: tuple[int, ...] = ()


def classes_of(loss, y_pred, output_names=None) -> Classes:
    """The `Classes` of a model's outputs, of which one has a loss.

    Args:
      loss, y_pred, output_names: as in `class_ids`.
    """
    outputs = name_outputs(y_pred, output_names)
    compiled = [] if loss is None else name_losses(loss, y_pred, output_names)
    used = {each.output for each in compiled} or set(outputs)
    shapes = [t.shape for name, t in outputs.items() if name in used or len(outputs) == 1]
    if len(shapes) != 1:
        return Classes()
    ignored = [getattr(each.loss, "ignore_class", None) for each in compiled]
    return Classes(
        tf.TensorShape(shapes[0]),
        compiled[0].name if compiled else "the loss",
        any("binary" in _kind(each.loss) for each in compiled),
        tuple(index for index in ignored if index is not None),
    )


def _kind(loss) -> str:
    """The name of a loss's function or class, in lower case."""
    if isinstance(loss, FunctionLoss):
        return getattr(loss.function, "__name__", "").lower()
    return type(loss).__name__.lower()


def class_ids(loss, *, y, y_pred, output_names=None) -> list[ClassIds]:
    """The labels of every compiled loss that takes class ids.

    Args:
      loss: what `Model.compile(loss=)` takes.
      y: the labels, in any structure that `match_labels` reads.
      y_pred: the outputs, with known last axes.
      output_names: the model's output names, where it has them.

    Example:
      >>> import numpy as np
      >>> labels, scores = np.array([0, 3]), np.zeros((2, 3))
      >>> (ids,) = class_ids("sparse_categorical_crossentropy", y=labels, y_pred=scores)
      >>> ids.term, ids.classes
      ('sparse_categorical_crossentropy', 3)
    """
    if loss is None or y is None:
        return []
    compiled = name_losses(loss, y_pred, output_names)
    sparse = [each for each in compiled if takes_class_ids(each.loss)]
    outputs = outputs_of_losses(sparse, y_pred, output_names)
    labels = match_labels(y, outputs, [each.output for each in sparse])
    class_labels = []
    for each in sparse:
        label, classes = labels[each.output], outputs[each.output].shape[-1]
        if classes and not isinstance(label, MissingLabel):
            ignored = getattr(each.loss, "ignore_class", None)
            class_labels.append(ClassIds(each.name, label, int(classes), ignored))
    return class_labels
