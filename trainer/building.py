"""The model before the first step: given or built, in the strategy's scope, with known outputs."""

from __future__ import annotations

import keras
import tensorflow as tf

from losses.inputs import model_inputs
from trainer.data import unpack


def make_model(given, build, strategy) -> keras.Model:
    """The model of a run.

    Args:
      given: a Keras model, a function that builds one, or None.
      build: called when `given` is None.
      strategy: the run's strategy; the caller is inside its scope.
    Raises:
      TypeError: no Keras model came of it.
      ValueError: a model whose variables are not on every replica.
    """
    model = given
    if model is None:
        model = build()
    elif not isinstance(model, keras.Model) and callable(model):
        model = model()
    if not isinstance(model, keras.Model):
        source = "build_model() returned" if given is None else "model= gave"
        raise TypeError(
            f"{source} {type(model).__name__}. Accepted: a keras.Model, or a function that "
            "returns one."
        )
    if tf.distribute.has_strategy():  # the default one has no scope
        inside = strategy.extended.variable_created_in_scope
        if any(not inside(variable.value) for variable in model.variables):
            raise ValueError(
                "The model was built outside the strategy's scope, so its variables are not on "
                "every replica. Pass a function that builds it: Trainer(lambda: make_model())."
            )
    return model


def compiled_arguments(model: keras.Model) -> dict:
    """What a compiled model was compiled with, as arguments of `Trainer`.

    Raises:
      ValueError: the model is not compiled, or a metric of it cannot be made again.
    """
    if not getattr(model, "compiled", False):
        raise ValueError("from_compiled() needs a compiled model. Call model.compile() first.")
    config = model.get_compile_config() or {}
    try:
        metrics = keras.saving.deserialize_keras_object(config.get("metrics"))
    except (TypeError, ValueError) as error:
        raise ValueError(
            "The compiled metrics cannot be made again from their configuration "
            f"({error}). Pass metrics= to from_compiled()."
        ) from error
    return {
        "optimizer": type(model.optimizer).from_config(model.optimizer.get_config()),
        "loss": model.loss,
        "loss_weights": config.get("loss_weights"),
        "metrics": metrics,
    }


def build_model(model: keras.Model, strategy, spec) -> None:
    """Gives an unbuilt model its variables; checks that a built one is given batches.

    Args:
      spec: of one batch of data.
    """
    x = unpack(spec)[0]
    if model.built:
        check_batched(model, x)
        return
    tensors = tf.nest.map_structure(
        lambda s: keras.KerasTensor((None, *s.shape[1:]), dtype=s.dtype.name), x
    )
    with strategy.scope():
        model(tensors)


def output_names(model: keras.Model) -> list[str] | None:
    """The names of a functional model's outputs; of a Sequential one its last layer's."""
    if isinstance(model, keras.Sequential):
        return [model.layers[-1].name] if model.layers else None
    return getattr(model, "output_names", None)


def may_add_losses(model: keras.Model) -> bool:
    """Whether a model may have losses of its own, as far as one can see before calling it."""
    if not model.built or any(getattr(v, "regularizer", None) for v in model.trainable_variables):
        return True
    # Keras's own layers add nothing without an activity regularizer
    return any(
        getattr(layer, "activity_regularizer", None) is not None
        or not type(layer).__module__.startswith("keras.")
        for layer in [model, *model.layers]
    )


def check_batched(model: keras.Model, x) -> None:
    """Raises ValueError where a functional model's input lacks its first axis, the batch."""
    wanted = getattr(model, "inputs", None) or []
    received = tf.nest.flatten(model_inputs(model, x))
    if len(wanted) != len(received):
        return
    for tensor, spec in zip(wanted, received, strict=True):
        shape = getattr(spec, "shape", None)
        if shape is None or shape.rank is None or tensor.shape is None:
            continue
        if shape.rank == len(tensor.shape) - 1 and tensor.shape[-1] != 1:
            raise ValueError(
                f"The data yields inputs of shape {tuple(shape)}, but the model's input "
                f"{tensor.name!r} has shape {tuple(tensor.shape)}: the data is not batched. Call "
                ".batch(global_batch) on it."
            )
