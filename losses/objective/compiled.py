"""The compiled losses: what `Model.compile(loss=)` takes, as named terms of two sums each."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

from losses.errors import TermwiseError, TermwiseTypeError
from losses.naming import own_name, snake_case
from losses.objective.outputs import (
    MissingLabel,
    by_output,
    match_labels,
    match_weights,
    name_outputs,
)
from losses.objective.ratio import Ratio
from losses.objective.reduction import reduce_values
from losses.objective.registry import get


class FunctionLoss(keras.losses.Loss):
    """A function `(y_true, y_pred)` as a `keras.losses.Loss`, as `Model.compile` wraps it.

    Args:
      function: returns one value per example or element, or a scalar.
      name: str; the function's own name by default, "loss" for a lambda.
    """

    def __init__(self, function, name=None, **arguments):
        if name is None:
            name = getattr(function, "__name__", "loss")
            name = "loss" if name == "<lambda>" else snake_case(name)
        super().__init__(name=name, **arguments)
        self.function = function

    def call(self, y_true, y_pred):
        # Keras aligns (examples,) with (examples, 1) before it calls a function
        if tf.is_tensor(y_true) and tf.is_tensor(y_pred):
            rank, other = y_true.shape.rank, y_pred.shape.rank
            if rank is not None and other is not None:
                if rank == other - 1 and y_pred.shape[-1] == 1:
                    if rank == 1:
                        y_true = y_true[:, tf.newaxis]
                    else:
                        y_pred = tf.squeeze(y_pred, -1)
                elif other == rank - 1 and y_true.shape[-1] == 1:
                    if other == 1:
                        y_pred = y_pred[:, tf.newaxis]
                    else:
                        y_true = tf.squeeze(y_true, -1)
        return self.function(y_true, y_pred)


def resolve_loss(given) -> keras.losses.Loss:
    """A `keras.losses.Loss` from a name, a function, a class or a `Loss`.

    Raises:
      ValueError: a name that neither `losses.get` nor Keras knows.
      TypeError: anything else.
    """
    if inspect.isclass(given) and issubclass(given, keras.losses.Loss):
        given = given()
    if isinstance(given, keras.losses.Loss):
        return given
    if isinstance(given, (str, dict)):
        given = get(given)
        if isinstance(given, keras.losses.Loss):
            return given
    if callable(given):
        return FunctionLoss(given)
    raise TermwiseTypeError(
        f"loss= holds {given!r}. Accepted: a name, a function (y_true, y_pred), a "
        "keras.losses.Loss, a list or dict of these by output, or None for an output without."
    )


@dataclass(frozen=True)
class CompiledLoss:
    """One compiled loss: the term's name, the output it reads, the loss itself."""

    name: str
    output: str
    loss: keras.losses.Loss


def name_losses(loss, y_pred, output_names=None) -> list[CompiledLoss]:
    """The compiled losses of a model's outputs, with the terms' names.

    A dict, or several outputs: the output's name. One output otherwise: the loss's own name.
    Several losses of one output in a dict: `<output>/<loss>`.

    Args:
      loss: what `Model.compile(loss=)` takes.
      y_pred: the model's outputs, a tensor or a nest.
      output_names: the names of a functional model's outputs.
    Raises:
      ValueError: an unknown output name; two losses of one name.
    """
    outputs = name_outputs(y_pred, output_names)
    named = isinstance(loss, dict) or len(outputs) > 1
    found = []
    for output, given in by_output(loss, outputs, "loss").items():
        several = isinstance(given, (list, tuple))
        for one in given if several else [given]:
            if one is None:
                continue
            resolved = resolve_loss(one)
            own = own_name(resolved)
            name = own if not named else f"{output}/{own}" if several else output
            found.append(CompiledLoss(name, output, resolved))
    for index, one in enumerate(found):
        if one.name in {other.name for other in found[:index]}:
            raise TermwiseError(
                f"Term {one.name!r} is defined twice in loss=. Give one of the losses another "
                'name: name="...".'
            )
    return found


def compiled_ratios(
    losses: Sequence[CompiledLoss], *, y, y_pred, sample_weight, examples, output_names=None
) -> dict[str, Ratio]:
    """Every compiled loss as a Ratio.

    Args:
      losses: of `name_losses`.
      y, sample_weight: labels and weights in any structure `match_labels` reads.
      y_pred: the outputs.
      examples: float [], this replica's number of examples.
    Returns:
      dict: term name -> Ratio; a loss whose `ratio()` returns a dict gives `<name>/<part>`.
    """
    outputs = name_outputs(y_pred, output_names)
    if list(outputs) == [""] and losses:
        outputs = {losses[0].output: outputs[""]}
    used = list(dict.fromkeys(loss.output for loss in losses))
    labels = match_labels(y, outputs, used)
    weights = match_weights(sample_weight, outputs, used)
    ratios: dict[str, Ratio] = {}
    for one in losses:
        try:
            value = _loss_ratio(
                one, labels[one.output], outputs[one.output], weights[one.output], examples
            )
        except TermwiseError:
            raise
        except Exception as error:
            misfit = _misfit(one, labels[one.output], outputs[one.output])
            if misfit and isinstance(error, (ValueError, tf.errors.InvalidArgumentError)):
                raise TermwiseError(misfit) from error
            if hasattr(error, "add_note"):
                error.add_note(f"(while computing the compiled loss {one.name!r})")
            raise
        if isinstance(value, Ratio):
            ratios[one.name] = value
        else:
            ratios.update({f"{one.name}/{part}": ratio for part, ratio in value.items()})
    return ratios


def _loss_ratio(one: CompiledLoss, y_true, y_pred, sample_weight, examples):
    loss = one.loss
    for what, given in (("labels", y_true), ("sample weights", sample_weight)):
        if getattr(given, "dtype", None) == tf.string:
            raise TermwiseTypeError(
                f"The {what} of term {one.name!r} are strings. Accepted: numbers; number class "
                "names, for instance with keras.layers.StringLookup."
            )
    in_mask = getattr(y_pred, "_keras_mask", None)
    y_pred = tf.nest.map_structure(lambda t: _to_dtype(t, loss.dtype), y_pred)
    if in_mask is not None:
        y_pred._keras_mask = in_mask  # a cast loses it, and `ratio` reads it
    if not isinstance(y_true, MissingLabel):
        y_true = tf.nest.map_structure(lambda t: _to_dtype(t, loss.dtype), y_true)
    if hasattr(loss, "ratio"):
        return loss.ratio(y_true, y_pred, sample_weight=sample_weight)
    values = loss.call(y_true, y_pred)
    if values is None:
        raise TermwiseTypeError(
            f"Term {one.name!r} returned nothing. Return one floating value per example, "
            "or a scalar."
        )
    out_mask = getattr(values, "_keras_mask", None)
    values = tf.convert_to_tensor(values)
    if not values.dtype.is_floating:
        raise TermwiseTypeError(
            f"Term {one.name!r} returned {values.dtype.name}, which has no gradient. Return "
            "floating values; tf.cast(..., tf.float32) what you count."
        )
    if values.shape.rank == 0:
        return _scalar_ratio(values, sample_weight, examples)
    mask = in_mask if out_mask is None else out_mask
    if in_mask is not None and out_mask is not None:
        mask = tf.cast(in_mask, tf.bool) & tf.cast(out_mask, tf.bool)
    return reduce_values(
        values,
        reduction=loss.reduction,
        sample_weight=sample_weight,
        mask=mask,
        term=one.name,
    )


def _scalar_ratio(value, sample_weight, examples) -> Ratio:
    """A loss that is one value for the batch, as in Keras: times the mean sample weight.

    Each of the two is a mean over the global batch.
    """
    if sample_weight is None:
        return Ratio.by_share(value, examples)
    weight = tf.cast(sample_weight, value.dtype)
    examples = tf.cast(examples, value.dtype)
    return Ratio(
        tf.stack([value * examples, tf.reduce_sum(weight)]),
        tf.stack([examples, tf.cast(tf.size(weight), value.dtype)]),
        after=tf.reduce_prod,
    )


def _misfit(one: CompiledLoss, y_true, y_pred) -> str | None:
    """How the shapes of a label and its output differ, after a loss has refused them."""
    label, output = getattr(y_true, "shape", None), getattr(y_pred, "shape", None)
    if isinstance(y_true, MissingLabel) or label is None or output is None:
        return None
    if label.rank is None or output.rank is None or label.is_compatible_with(output):
        fits = label is not None and label.rank == output.rank
        sparse = type(one.loss).__name__.startswith("Sparse") or one.name.startswith("sparse")
        if not (fits and sparse):
            return None
        advice = "The labels look one-hot: use a loss without 'sparse', or tf.argmax(y, -1)."
    elif label.rank == output.rank - 1:
        advice = "If the labels are class ids, use the sparse form of the loss, or tf.one_hot."
    else:
        advice = "Give both the shape that the loss compares."
    return (
        f"Term {one.name!r} cannot compare labels of shape {tuple(label)} with outputs of shape "
        f"{tuple(output)}. {advice}"
    )


def _to_dtype(tensor, dtype):
    if tensor is None:
        return None
    tensor = tf.convert_to_tensor(tensor)
    return tensor if tensor.dtype == dtype else tf.cast(tensor, dtype)
