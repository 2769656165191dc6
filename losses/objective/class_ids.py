"""Labels that are class ids: which losses read them so, and how many classes an output has."""

from __future__ import annotations

from typing import NamedTuple

from losses.objective.compiled import name_losses, outputs_of_losses
from losses.objective.outputs import MissingLabel, match_labels
from losses.objective.registry import takes_class_ids


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
