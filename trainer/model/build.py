"""The model before the first step: made in the strategy's scope, built, its outputs named."""

from __future__ import annotations

import keras
import tensorflow as tf

from losses.errors import (
    TermwiseError,
    TermwiseTypeError,
    add_note,
    as_raised,
    raised_by_user,
)
from losses.objective.model_terms import overrides
from losses.objective.step import model_inputs
from trainer.data.batch import unpack
from trainer.data.lengths import about_lists
from trainer.errors import explain


def make_model(argument, build, strategy) -> keras.Model:
    """The model of a run.

    Args:
      argument: a Keras model, a function that builds one, or None.
      build: called when `argument` is None.
      strategy: the run's strategy; the caller is inside its scope.
    Raises:
      TypeError: no Keras model came of it.
      ValueError: a model whose variables are not on every replica.
    """
    model = argument
    if model is None:
        model = build()
    elif not isinstance(model, keras.Model) and callable(model):
        model = model()
    if not isinstance(model, keras.Model):
        source = "build_model() returned" if argument is None else "model= gave"
        raise TermwiseTypeError(
            f"{source} {type(model).__name__}. Accepted: a keras.Model, or a function that "
            "returns one."
        )
    _check_placed(model, strategy)
    return model


def _check_placed(model: keras.Model, strategy) -> None:
    """Raises ValueError where a model's variables are those of another strategy."""
    if tf.distribute.has_strategy():  # the default one has no scope
        inside = strategy.extended.variable_created_in_scope
        if any(not inside(variable.value) for variable in model.variables):
            raise TermwiseError(
                "The model was built outside the strategy's scope, so its variables are not on "
                "every replica. Pass a function that builds it: Trainer(lambda: make_model())."
            )
    elif any(isinstance(v.value, tf.distribute.DistributedValues) for v in model.variables):
        raise TermwiseError(
            f"The model {model.name!r} was built under a strategy of several replicas, but "
            "strategy= has one. Pass that strategy, or a function that builds the model."
        )


def compiled_arguments(model: keras.Model) -> dict:
    """What a compiled model was compiled with, as arguments of `Trainer`: the objects themselves.

    Raises:
      ValueError: the model is not compiled.
    """
    if not getattr(model, "compiled", False):
        raise TermwiseError("from_compiled() needs a compiled model. Call model.compile() first.")
    compiled = model._compile_config.config
    arguments = {name: compiled[name] for name in ("metrics", "weighted_metrics")}
    if not overrides(model, "compute_loss"):  # which reads the compiled losses itself, or none
        arguments.update(loss=model.loss, loss_weights=compiled["loss_weights"])
    return {"optimizer": model.optimizer, **arguments}


def build_model(model: keras.Model, scope, spec) -> None:
    """Gives an unbuilt model its variables; checks that a built one is given batches.

    Args:
      scope: () -> the context in which variables are made.
      spec: of one batch of data.
    """
    x = unpack(spec)[0]
    if model.built:
        check_batched(model, x)
        return
    _check_call(model)
    tensors = tf.nest.map_structure(
        lambda s: keras.KerasTensor((None, *s.shape[1:]), dtype=s.dtype.name), x
    )
    try:
        with scope():
            model(tensors)
    except Exception as error:
        if raised_by_user(error):
            raised = as_raised(error)
            add_note(raised, f"(while building the model from the data's x, {describe(x)})")
            raise raised from None
        raise TermwiseError(
            f"The model {model.name!r} could not be built from the data's x, {describe(x)}: "
            f"{type(error).__name__}: {explain(error)}. Give it data it can read, or build it "
            "before."
        ) from error


def _check_call(model: keras.Model) -> None:
    """Raises ValueError where a model only holds its parts."""
    if not overrides(model, "call"):
        raise TermwiseError(
            f"The model {model.name!r}, a {type(model).__name__}, has no call(). Give it one, or "
            "override forward(step) in a subclass of Trainer."
        )


def call_model(model: keras.Model, x, training: bool):
    """The model's outputs; where Keras refuses the inputs, the error says which do not fit.

    Raises:
      ValueError: the data's x has another structure or shape than the model's inputs; or the
        model has no `call()`.
    """
    _check_call(model)
    inputs = model_inputs(model, x)
    expected = getattr(model, "input", None)
    if expected is None and getattr(model, "inputs", None):  # of a Sequential model
        expected = model.inputs[0]
    misfit = expected is not None and _misfit(model, expected, inputs)
    if misfit and isinstance(inputs, (list, tuple)) and isinstance(expected, keras.KerasTensor):
        raise TermwiseError(misfit)  # Keras would take the first and drop the others
    try:
        return model(inputs, training=training)
    except Exception as error:
        if raised_by_user(error):
            raised = as_raised(error)
            add_note(raised, f"({misfit})" if misfit else "(while calling the model)")
            raise raised from None
        if misfit and isinstance(error, (ValueError, TypeError)):
            raise TermwiseError(misfit) from error
        raise


def describe(nest) -> str:
    """float32 (None, 4); by name or in brackets where there are several."""
    if isinstance(nest, dict):
        return "{" + ", ".join(f"{key!r}: {describe(part)}" for key, part in nest.items()) + "}"
    if isinstance(nest, (list, tuple)):
        return "[" + ", ".join(map(describe, nest)) + "]"
    dtype = getattr(nest.dtype, "name", nest.dtype)
    shape = nest.shape
    return f"{dtype} {'of any shape' if getattr(shape, 'rank', 0) is None else tuple(shape)}"


def _misfit(model, expected, inputs) -> str | None:
    """How inputs differ from what a model takes, in structure or in known axes."""
    tensors, received = keras.tree.flatten(expected), keras.tree.flatten(inputs)
    fits = len(tensors) == len(received) and isinstance(inputs, dict) == isinstance(expected, dict)
    if fits and all(map(_fits, tensors, received)):
        return None
    return (
        f"The data's x is {describe(inputs)}, but the model {model.name!r} takes "
        f"{describe(expected)}. Change the data, or the model's Input.{about_lists((inputs,))}"
    )


def _fits(tensor, received) -> bool:
    shape = tf.TensorShape(received.shape)
    return shape.rank is None or tf.TensorShape(tensor.shape).is_compatible_with(shape)


def output_names(model: keras.Model) -> list[str] | None:
    """The names of a functional model's outputs; of a Sequential one its last layer's."""
    if isinstance(model, keras.Sequential):
        return [model.layers[-1].name] if model.layers else None
    return getattr(model, "output_names", None)


def may_add_losses(model: keras.Model) -> bool:
    """Whether a model may have losses of its own, as far as one can see before calling it."""
    if not model.built or overrides(model, "compute_loss"):
        return True
    if any(getattr(v, "regularizer", None) for v in model.trainable_variables):
        return True
    # Keras's own layers add nothing without an activity regularizer
    return any(
        getattr(layer, "activity_regularizer", None) is not None
        or not type(layer).__module__.startswith("keras.")
        for layer in [model, *model.layers]
    )


def check_batched(model: keras.Model, x) -> None:
    """Raises ValueError where a functional model's input lacks its first axis, the batch."""
    expected = getattr(model, "inputs", None) or []
    received = tf.nest.flatten(model_inputs(model, x))
    if len(expected) != len(received):
        return
    for tensor, spec in zip(expected, received, strict=True):
        shape = getattr(spec, "shape", None)
        if getattr(spec, "dtype", None) == tf.string and tensor.dtype != "string":
            raise TermwiseError(
                f"The data yields strings for the model's input {tensor.name!r}, which takes "
                f"{tensor.dtype}. Make them numbers before, or with a layer such as StringLookup."
            )
        if shape is None or shape.rank is None or tensor.shape is None:
            continue
        if shape.rank == len(tensor.shape) - 1 and tensor.shape[-1] != 1:
            raise TermwiseError(
                f"The data yields inputs of shape {tuple(shape)}, but the model's input "
                f"{tensor.name!r} has shape {tuple(tensor.shape)}: the data is not batched. Call "
                ".batch(global_batch) on it."
            )
