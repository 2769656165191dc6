"""The compiled losses: what `Model.compile(loss=)` takes, as named terms of two sums each."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

from losses.errors import TermwiseError, TermwiseTypeError, add_note, raised_by_user
from losses.naming import own_name
from losses.objective.outputs import (
    MissingLabel,
    by_output,
    match_labels,
    match_weights,
    name_outputs,
)
from losses.objective.ratio import Ratio
from losses.objective.reduction import (
    RatioLoss,
    count_nonzero,
    labels_that_count,
    mask_of,
    of_whole_ids,
    reduce_values,
    takes_class_ids,
    with_mask,
)
from losses.objective.registry import FunctionLoss, get

_SHAPES = re.compile(r"shape|dimension|rank|compatible|broadcast|size", re.IGNORECASE)


def resolve_loss(loss) -> keras.losses.Loss:
    """A `keras.losses.Loss` from a name, a serialized loss, a function, a class or a `Loss`.

    Raises:
      ValueError: a name that neither `losses.get` nor Keras knows.
      TypeError: anything else.
    """
    resolved = loss
    if inspect.isclass(loss) and issubclass(loss, keras.losses.Loss):
        resolved = loss()
    elif isinstance(loss, (str, dict)):
        resolved = get(loss)
    if isinstance(resolved, keras.losses.Loss):
        return resolved
    if callable(resolved):
        return FunctionLoss(resolved)
    raise TermwiseTypeError(
        f"loss= holds {loss!r}. Accepted: a name, a function (y_true, y_pred), a "
        "keras.losses.Loss, a list or dict of these by output, or None for an output without."
    )


@dataclass(frozen=True)
class CompiledLoss:
    """One compiled loss: the term's name, the output it reads, the loss itself, its source."""

    name: str
    output: str
    loss: keras.losses.Loss
    source: str | None = None


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
    by_outputs_name = isinstance(loss, dict) or len(outputs) > 1
    compiled: dict[str, CompiledLoss] = {}
    for output, losses in by_output(loss, outputs, "loss").items():
        several = isinstance(losses, (list, tuple))
        for resolved in map(resolve_loss, _without_none(losses if several else [losses])):
            name = own_name(resolved)
            if by_outputs_name:
                name = f"{output}/{name}" if several else output
            if name in compiled:
                raise TermwiseError(
                    f"Term {name!r} is defined twice in loss=. Give one of the losses another "
                    'name: name="...".'
                )
            compiled[name] = CompiledLoss(name, output, resolved)
    return list(compiled.values())


def _without_none(losses) -> list:
    return [loss for loss in losses if loss is not None]


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
    outputs = outputs_of_losses(losses, y_pred, output_names)
    used = list(dict.fromkeys(loss.output for loss in losses))
    labels = match_labels(y, outputs, used)
    weights = match_weights(sample_weight, outputs, used)
    ratios: dict[str, Ratio] = {}
    for loss in losses:
        label, output = labels[loss.output], outputs[loss.output]
        try:
            value = _loss_ratio(loss, label, output, weights[loss.output], examples)
        except Exception as error:
            _explain(error, loss, label, output)
            raise
        if isinstance(value, dict):
            ratios.update({f"{loss.name}/{part}": ratio for part, ratio in value.items()})
        else:
            ratios[loss.name] = value
    return ratios


def outputs_of_losses(losses: Sequence[CompiledLoss], y_pred, output_names=None) -> dict:
    """The model's outputs by name; one without a name has that which its losses give it."""
    outputs = name_outputs(y_pred, output_names)
    return {losses[0].output: outputs[""]} if list(outputs) == [""] and losses else outputs


def _loss_ratio(compiled: CompiledLoss, y_true, y_pred, sample_weight, examples):
    """The sums of one loss, or a dict of its parts, in its own dtype."""
    loss = compiled.loss
    _refuse_strings(compiled.name, {"labels": y_true, "sample weights": sample_weight})
    _refuse_complex(compiled, y_true, y_pred)
    if _overrides_call(loss):
        return _called(compiled, y_true, y_pred, sample_weight, examples)
    mask = mask_of(y_pred)
    y_pred = tf.nest.map_structure(lambda t: _to_dtype(t, loss.dtype), y_pred)
    y_pred = with_mask(y_pred, mask)  # a cast loses it, and a loss may read it
    label = y_true
    if not isinstance(label, MissingLabel):
        label = tf.nest.map_structure(lambda t: _to_dtype(t, loss.dtype), label)
        label = _readable_labels(loss, label, y_pred, sample_weight, mask)
    if isinstance(loss, RatioLoss):
        value = loss.ratio(label, y_pred, sample_weight=sample_weight)
        return _counting(value, sample_weight, mask)
    values = of_whole_ids(loss, loss.call(label, y_pred), label, y_true)
    mask = _joined(mask, mask_of(values))
    values = _floating(compiled.name, values)
    if values.shape.rank == 0:
        return _scalar_ratio(values, sample_weight, examples)
    return reduce_values(
        values,
        reduction=loss.reduction,
        sample_weight=sample_weight,
        mask=mask,
        term=compiled.name,
    )


def _readable_labels(loss, y_true, y_pred, sample_weight, mask):
    """The labels without what no loss can read, where they do not count."""
    if sample_weight is None and mask is None:
        return y_true
    sparse = takes_class_ids(loss) and tf.is_tensor(y_pred) and y_pred.shape.rank
    of_loss = {
        "sample_weight": None if sample_weight is None else tf.convert_to_tensor(sample_weight),
        "mask": mask,
        "classes": y_pred.shape[-1] if sparse else None,
        "ignored": getattr(loss, "ignore_class", None),
    }
    return tf.nest.map_structure(
        lambda t: t if t is None else labels_that_count(t, **of_loss), y_true
    )


def _counting(value, *weights):
    """A Ratio, or a dict of them, absent also where all of some weights are 0."""
    if isinstance(value, dict):
        return {part: _counting(ratio, *weights) for part, ratio in value.items()}
    for weight in weights:
        if weight is not None:
            value = value.counting(count_nonzero(weight))
    return value


def _floating(term: str, values) -> tf.Tensor:
    """What a loss returned as a tensor. TypeError: nothing, or no floating values."""
    if values is None:
        raise TermwiseTypeError(
            f"Term {term!r} returned nothing. Return one floating value per example, or a scalar."
        )
    values = tf.convert_to_tensor(values)
    if values.dtype.is_complex:
        raise TermwiseTypeError(
            f"Term {term!r} returned {values.dtype.name}, which cannot be minimised. Return real "
            "values, such as tf.abs(y_pred - y_true) ** 2."
        )
    if not values.dtype.is_floating:
        raise TermwiseTypeError(
            f"Term {term!r} returned {values.dtype.name}, which has no gradient. Return "
            "floating values; tf.cast(..., tf.float32) what you count."
        )
    return values


def _overrides_call(loss: keras.losses.Loss) -> bool:
    """Whether a class of a user's own says what a call of its losses gives."""
    return not of_library(type(loss).__call__)


def of_library(function) -> bool:
    """Whether a function is one of Keras or of this library."""
    return getattr(function, "__module__", "").split(".")[0] in ("keras", "losses")


def _called(compiled: CompiledLoss, y_true, y_pred, sample_weight, examples) -> Ratio:
    """The sums of a loss whose class overrides `__call__`: it is called, as Keras does.

    Raises:
      ValueError: on several replicas, over which its one value cannot be added up.
    """
    loss, replicas = compiled.loss, tf.distribute.get_strategy().num_replicas_in_sync
    if replicas > 1:
        raise TermwiseError(
            f"The loss of term {compiled.name!r}, a {type(loss).__name__}, overrides __call__(), "
            f"whose one value cannot be added up over {replicas} replicas. Put what it does into "
            "call(y_true, y_pred), one value per example, or train on one replica."
        )
    weighted = {} if sample_weight is None else {"sample_weight": sample_weight}
    values = _floating(compiled.name, loss(y_true, y_pred, **weighted))
    if values.shape.rank == 0:
        return Ratio.by_share(values, examples)
    return reduce_values(values, term=compiled.name)  # it has weighted them itself


def _refuse_complex(compiled: CompiledLoss, y_true, y_pred) -> None:
    """Raises TypeError where a loss would see only the real part of complex numbers."""
    loss = compiled.loss
    function = loss.function if isinstance(loss, FunctionLoss) else type(loss).call
    label, output = _complex_dtype(y_true), _complex_dtype(y_pred)
    if not (label or output) or not of_library(function):
        return
    if output and getattr(function, "__module__", "").startswith("keras."):
        return  # it computes with them; what is then no real number is refused
    raise TermwiseTypeError(
        f"Term {compiled.name!r} takes real numbers, but its {'output' if output else 'label'} is "
        f"{output or label}. Give a function of (y_true, y_pred) that returns real values, such as "
        "tf.abs(y_pred - y_true) ** 2."
    )


def _complex_dtype(nest) -> str | None:
    """complex64 or complex128 where a tensor among them is that."""
    dtypes = (getattr(leaf, "dtype", None) for leaf in tf.nest.flatten(nest))
    return next((d.name for d in dtypes if isinstance(d, tf.DType) and d.is_complex), None)


def _refuse_strings(term: str, tensors: dict) -> None:
    for what, tensor in tensors.items():
        if getattr(tensor, "dtype", None) == tf.string:
            raise TermwiseTypeError(
                f"The {what} of term {term!r} are strings. Accepted: numbers; number class "
                "names, for instance with keras.layers.StringLookup."
            )


def _joined(mask, other):
    """Where both masks let an element count; a mask that is None lets all."""
    if mask is None or other is None:
        return other if mask is None else mask
    return tf.cast(mask, tf.bool) & tf.cast(other, tf.bool)


def _scalar_ratio(value, sample_weight, examples) -> Ratio:
    """A loss's scalar times the mean sample weight, as in Keras, each over the global batch."""
    if sample_weight is None:
        return Ratio.by_share(value, examples)
    weight = tf.cast(sample_weight, value.dtype)
    examples = tf.cast(examples, value.dtype)
    return Ratio(
        tf.stack([value * examples, tf.reduce_sum(weight)]),
        tf.stack([examples, tf.cast(tf.size(weight), value.dtype)]),
        after=tf.reduce_prod,
        present=count_nonzero(weight),
    )


def _explain(error: Exception, compiled: CompiledLoss, y_true, y_pred) -> None:
    """Says which loss failed; raises another error where labels and outputs do not fit."""
    misfit = _misfit(compiled, y_true, y_pred)
    told = isinstance(error, TermwiseError) or raised_by_user(error)  # in its author's words
    of_shapes = isinstance(error, (ValueError, tf.errors.InvalidArgumentError)) and _SHAPES.search(
        str(error)
    )
    if misfit and of_shapes and not told:
        raise TermwiseError(misfit) from error
    add_note(error, f"(while computing the compiled loss {compiled.name!r})")
    if misfit and not isinstance(error, TermwiseError):
        add_note(error, f"({misfit})")


def _misfit(compiled: CompiledLoss, y_true, y_pred) -> str | None:
    """How the shapes of a label and its output differ, after a loss has refused them."""
    label, output = getattr(y_true, "shape", None), getattr(y_pred, "shape", None)
    if isinstance(y_true, MissingLabel) or label is None or output is None:
        return None
    if tf.TensorShape(label).rank is None:
        return (
            f"Term {compiled.name!r} cannot read labels whose shape is not known. Give it in the "
            "pipeline: output_signature= of from_generator, or tf.ensure_shape."
        )
    advice = _advice(compiled, label, output)
    return advice and (
        f"Term {compiled.name!r} cannot compare labels of shape {tuple(label)} with outputs of "
        f"shape {tuple(output)}. {advice}"
    )


def _advice(compiled: CompiledLoss, label, output) -> str | None:
    """What to do about labels and outputs of these shapes; None where they fit."""
    if label.rank is None or output.rank is None or label.is_compatible_with(output):
        name = type(compiled.loss).__name__
        sparse = name.startswith("Sparse") or compiled.name.startswith("sparse")
        one_hot = "The labels look one-hot: use a loss without 'sparse', or tf.argmax(y, -1)."
        return one_hot if sparse and label.rank == output.rank else None
    if label.rank == output.rank - 1:
        return "If the labels are class ids, use the sparse form of the loss, or tf.one_hot."
    return "Give both the shape that the loss compares."


def _to_dtype(tensor, dtype):
    if tensor is None:
        return None
    tensor = tf.convert_to_tensor(tensor)
    # complex numbers stay: a cast would keep their real part alone
    return tensor if tensor.dtype == dtype or tensor.dtype.is_complex else tf.cast(tensor, dtype)
