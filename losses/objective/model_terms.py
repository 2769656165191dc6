"""The model's own losses as named terms: regularizers, add_loss, an overridden compute_loss()."""

from __future__ import annotations

import collections
import fnmatch
import inspect

import keras
import tensorflow as tf

from losses.errors import TermwiseError, TermwiseTypeError, add_note
from losses.layers import layers_of, stable_names, stable_path
from losses.objective.ratio import Ratio

COMPUTE_LOSS = "compute_loss"  # Keras's method, and the term


def regularization_terms(model) -> dict[str, Ratio]:
    """`regularization/<variable path>` of each trainable variable with a regularizer.

    Of two variables with one path the second is `<path>_1`. Paths are those of `stable_names`.
    """
    regularized = [v for v in model.trainable_variables if getattr(v, "regularizer", None)]
    names = stable_names(model) if regularized else {}
    terms: dict[str, Ratio] = {}
    for variable in regularized:
        value = tf.reduce_sum(variable.regularizer(variable))
        name = path = f"regularization/{stable_path(variable.path, names)}"
        count = 0
        while name in terms:
            count += 1
            name = f"{path}_{count}"
        terms[name] = Ratio.once(_as_float32(value, name))
    return terms


def overrides(model, method: str) -> bool:
    """Whether a model has another method of this name than `keras.Model`."""
    function = getattr(getattr(model, method), "__func__", None)
    return function is not getattr(keras.Model, method)


def computed_loss(step) -> dict[str, Ratio]:
    """The one term of a model that overrides `compute_loss()`: what it returns, for these examples.

    It stands for all losses of the model, as in Keras: the override decides which of them count.

    Raises:
      TypeError: it returned nothing, or no floating scalar.
    """
    method = step.model.compute_loss
    parameters = inspect.signature(method).parameters.values()
    keyword = any(p.name == "training" or p.kind is p.VAR_KEYWORD for p in parameters)
    arguments = {"training": step.training} if keyword else {}
    try:
        value = method(step.x, step.y, step.y_pred, step.sample_weight, **arguments)
    except Exception as error:
        add_note(error, f"(while computing the model's {COMPUTE_LOSS}())")
        raise
    value = None if value is None else tf.convert_to_tensor(value)
    if value is None or value.shape.rank != 0 or not value.dtype.is_floating:
        what = "nothing" if value is None else f"{value.dtype.name} of shape {value.shape}"
        raise TermwiseTypeError(
            f"{COMPUTE_LOSS}() of the model {step.model.name!r} returned {what}. Return one "
            "floating number, the mean over the examples."
        )
    return {COMPUTE_LOSS: Ratio.by_share(tf.cast(value, tf.float32), step.examples)}


def _as_float32(value, name: str) -> tf.Tensor:
    """A loss of the model in float32. TypeError: it is complex, and would be cut."""
    if value.dtype.is_complex:
        raise TermwiseTypeError(
            f"Term {name!r} is {value.dtype.name}, which cannot be minimised. Add its absolute "
            "value, or its real part."
        )
    return tf.cast(value, tf.float32)


def add_loss_terms(model, examples, sums=()) -> dict[str, Ratio]:
    """`add_loss/<layer path>` of each value that layers added in the last forward pass.

    A layer's second value of one pass is `add_loss/<layer path>/1`, and so on. A tensor that was
    added twice counts twice, as in Keras. Paths are those of `stable_names`.

    Args:
      model: the model, after its clean forward pass and before any other.
      examples: float [], this replica's number of examples.
      sums: patterns of layer paths whose `add_loss` is a sum over examples, not a mean.
    Raises:
      ValueError: a pattern that names no layer which added a loss.
    """
    values = _added_values(model)
    keras_paths = _paths_of_values(model, values)
    names = stable_names(model) if values else {}
    paths = [stable_path(path, names) for path in keras_paths]
    terms: dict[str, Ratio] = {}
    for keras_path, path, name, value in zip(
        keras_paths, paths, _names(paths), values, strict=True
    ):
        value = _as_float32(value, name)
        summed = value.shape.rank != 0  # Keras sums what is no scalar
        if summed or any(_matches(pattern, keras_path, path) for pattern in sums):
            terms[name] = Ratio(tf.reduce_sum(value), values=value if summed else None)
        else:
            terms[name] = Ratio.by_share(value, examples)
    for pattern in sums:
        if not any(map(_matches, [pattern] * len(paths), keras_paths, paths)):
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
    values = [value for value in second if id(value) in added]
    # an empty value adds nothing
    return [value for value in values if value.shape.num_elements() != 0]


def _matches(pattern: str, *paths: str) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for path in paths)


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
