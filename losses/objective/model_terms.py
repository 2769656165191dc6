"""The model's own losses as named terms: weight regularizers, activity regularizers, add_loss."""

from __future__ import annotations

import collections
import fnmatch

import tensorflow as tf

from losses.errors import TermwiseError
from losses.layers import layers_of
from losses.objective.ratio import Ratio


def regularization_terms(model) -> dict[str, Ratio]:
    """`regularization/<variable path>` of each trainable variable with a regularizer."""
    return {
        f"regularization/{variable.path}": Ratio.once(
            tf.cast(tf.reduce_sum(variable.regularizer(variable)), tf.float32)
        )
        for variable in model.trainable_variables
        if getattr(variable, "regularizer", None) is not None
    }


def add_loss_terms(model, examples, sums=()) -> dict[str, Ratio]:
    """`add_loss/<layer path>` of each value that layers added in the last forward pass.

    A layer's second value of one pass is `add_loss/<layer path>/1`, and so on.

    Args:
      model: the model, after its clean forward pass and before any other.
      examples: float [], this replica's number of examples.
      sums: patterns of layer paths whose `add_loss` is a sum over examples, not a mean.
    Raises:
      ValueError: a pattern that names no layer which added a loss.
    """
    values = _added_values(model)
    paths = _paths_of_values(model, values)
    terms: dict[str, Ratio] = {}
    for path, name, value in zip(paths, _names(paths), values, strict=True):
        value = tf.cast(value, tf.float32)
        summed = value.shape.rank != 0  # Keras sums what is no scalar
        if summed or any(fnmatch.fnmatchcase(path, pattern) for pattern in sums):
            terms[name] = Ratio(tf.reduce_sum(value))
        else:
            terms[name] = Ratio.by_share(value, examples)
    for pattern in sums:
        if not any(fnmatch.fnmatchcase(path, pattern) for path in paths):
            known = ", ".join(map(repr, dict.fromkeys(paths))) or "none"
            raise TermwiseError(
                f"add_loss_sums= names layer {pattern!r}, which adds no loss. Layers that do: "
                f"{known}."
            )
    return terms


def _added_values(model) -> list:
    """The values that layers added; `model.losses` without those of its regularizers."""
    # a regularizer's loss is made anew by each reading, an added one is not
    first, second = model.losses, model.losses
    added = {id(value) for value in first}
    values = {id(value): value for value in second if id(value) in added}
    # an empty value adds nothing
    return [value for value in values.values() if value.shape.num_elements() != 0]


def _paths_of_values(model, values) -> list[str]:
    """For each added value the path of the innermost layer that lists it."""
    if not values:
        return []
    owners = {id(value): model.name for value in values}
    for layer in layers_of(model):  # deeper layers come later
        for value in layer.losses:
            if id(value) in owners:
                owners[id(value)] = getattr(layer, "path", None) or layer.name
    return [owners[id(value)] for value in values]


def _names(paths: list[str]) -> list[str]:
    """`add_loss/<path>` for a layer's first value, `add_loss/<path>/1` for its second, ..."""
    counts: collections.Counter = collections.Counter()
    names = []
    for path in paths:
        names.append(f"add_loss/{path}" + (f"/{counts[path]}" if counts[path] else ""))
        counts[path] += 1
    return names
