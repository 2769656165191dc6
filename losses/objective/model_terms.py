"""The model's own losses as named terms: weight regularizers, activity regularizers, add_loss."""

from __future__ import annotations

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
    # regularizers are made anew by each reading of `losses`, added losses are not
    once, again = model.losses, model.losses
    kept = {id(value) for value in once}
    added = {id(value): value for value in again if id(value) in kept}
    owners: dict[int, str] = {}
    if added:
        for layer in layers_of(model):
            for value in layer.losses:
                if id(value) in added:  # deeper layers come later and claim their own
                    owners[id(value)] = getattr(layer, "path", None) or layer.name
    terms: dict[str, Ratio] = {}
    counts: dict[str, int] = {}
    for key, value in added.items():
        if value.shape.num_elements() == 0:
            continue  # an empty value adds nothing
        path = owners.get(key, model.name)
        count = counts[path] = counts.get(path, -1) + 1
        name = f"add_loss/{path}" + (f"/{count}" if count else "")
        value = tf.cast(value, tf.float32)
        summed = value.shape.rank != 0  # Keras sums what is no scalar
        if summed or any(fnmatch.fnmatchcase(path, pattern) for pattern in sums):
            terms[name] = Ratio(tf.reduce_sum(value))
        else:
            terms[name] = Ratio.by_share(value, examples)
    for pattern in sums:
        if not any(fnmatch.fnmatchcase(path, pattern) for path in counts):
            raise TermwiseError(
                f"add_loss_sums= names layer {pattern!r}, which adds no loss. Layers that do: "
                f"{', '.join(map(repr, counts)) or 'none'}."
            )
    return terms
