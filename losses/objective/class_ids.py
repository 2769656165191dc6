"""Labels that are class ids: which losses read them so, and how many classes an output has."""

from __future__ import annotations

from typing import NamedTuple

from losses.objective.compiled import FunctionLoss, name_losses
from losses.objective.outputs import MissingLabel, match_labels, name_outputs


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
      >>> found = class_ids(
      ...     "sparse_categorical_crossentropy", y=np.array([0, 3]), y_pred=np.zeros((2, 3))
      ... )
      >>> [(one.term, one.classes) for one in found]
      [('sparse_categorical_crossentropy', 3)]
    """
    if loss is None or y is None:
        return []
    losses = [one for one in name_losses(loss, y_pred, output_names) if takes_class_ids(one.loss)]
    outputs = name_outputs(y_pred, output_names)
    if list(outputs) == [""] and losses:
        outputs = {losses[0].output: outputs[""]}
    labels = match_labels(y, outputs, [one.output for one in losses])
    found = []
    for one in losses:
        classes = outputs[one.output].shape[-1]
        if classes and not isinstance(labels[one.output], MissingLabel):
            ignored = getattr(one.loss, "ignore_class", None)
            found.append(ClassIds(one.name, labels[one.output], int(classes), ignored))
    return found


def takes_class_ids(loss) -> bool:
    """Whether a `keras.losses.Loss` reads class ids: those that Keras and we call sparse."""
    if isinstance(loss, FunctionLoss):
        return getattr(loss.function, "__name__", "").startswith("sparse_categorical")
    return type(loss).__name__.startswith("Sparse")
