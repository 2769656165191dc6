"""Moving statistics under replicas: one value, the mean of the replicas', after every step."""

from __future__ import annotations

import keras
import tensorflow as tf

from losses.layers import layers_of


def moving_variables(model) -> dict[str, keras.Variable]:
    """The variables that a forward pass may move: path -> variable.

    Batch normalisation's moving mean and variance, and what custom layers keep alike: floating
    and not trainable, in a layer that trains. Frozen layers are left out: they move nothing.
    """
    frozen = {id(v) for layer in layers_of(model) if not layer.trainable for v in layer.variables}
    return {
        variable.path: variable
        for variable in model.non_trainable_variables
        if id(variable) not in frozen and tf.as_dtype(variable.dtype).is_floating
    }


def assign_means(strategy, variables: dict, summed: dict, present) -> None:
    """Gives every replica the mean of the replicas that had examples, in cross-replica context.

    Args:
      variables: path -> variable.
      summed: path -> sum over the replicas of value * present.
      present: float32 [], how many replicas had examples.
    """
    for path, total in summed.items():
        variable = variables[path].value
        strategy.extended.update(
            variable,
            lambda mine, value: mine.assign(value / tf.cast(present, value.dtype)),
            args=(total,),
        )
