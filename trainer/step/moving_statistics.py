"""Moving statistics: under replicas their mean after every step; put back where one is left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from losses.layers import layers_of
from trainer.model.variables import free_name, tensor_variable


def moving_variables(strategy, model, places=()) -> dict:
    """The variables that a forward pass may move, alike on all replicas: name -> variable.

    Batch normalisation's moving mean and variance, and what custom layers, terms and a subclass
    keep alike: floating and not trainable, made in the strategy's scope. Frozen layers are left
    out: they move nothing.

    Args:
      strategy: the run's.
      model: its model.
      places: (name, object) pairs: losses, terms and a subclass, which may hold layers and
        variables.
    """
    holders = [thing for _, thing in places if hasattr(thing, "__dict__") and thing is not model]
    inside = strategy.extended.variable_created_in_scope
    named: dict = {}
    for variable in _without_gradient(model, holders):
        if tf.as_dtype(variable.dtype).is_floating and inside(tensor_variable(variable)):
            name = getattr(variable, "path", None) or variable.name
            named[free_name(name, named)] = variable
    return named


def _without_gradient(model, holders: list) -> list:
    """The variables of a model and of other objects that do not train, but for frozen layers."""
    distinct = {id(layer): layer for thing in [model, *holders] for layer in layers_of(thing)}
    layers = [layer for layer in distinct.values() if isinstance(layer, keras.Layer)]
    frozen = {id(v) for layer in layers if not layer.trainable for v in layer.variables}
    variables = list(model.non_trainable_variables)
    for layer in layers:
        variables += _own_variables(layer) if layer.trainable else []
    for thing in holders:
        variables += [v for v in _held_by(thing) if not v.trainable]
    return [v for key, v in {id(v): v for v in variables}.items() if key not in frozen]


def _own_variables(layer) -> list:
    """A layer's own that do not train: Keras's, and a `tf.Variable` that each replica moves."""
    none = tf.VariableAggregation.NONE
    plain = [v for v in _held_by(layer) if isinstance(v, tf.Variable) and v.aggregation == none]
    return [*layer.non_trainable_variables, *(v for v in plain if not v.trainable)]


def _held_by(thing) -> Iterator:
    """The variables among an object's attributes, one level of containers deep."""
    for value in vars(thing).values():
        if isinstance(value, dict):
            value = list(value.values())
        for part in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(part, (keras.Variable, tf.Variable)):
                yield part


def assign_means(strategy, variables: dict, summed: dict, present) -> None:
    """Gives every replica the mean of the replicas that had examples, in cross-replica context.

    Args:
      variables: name -> variable.
      summed: name -> sum over the replicas of value * present.
      present: float32 [], how many replicas had examples.
    """
    for name, total in summed.items():
        variable = tensor_variable(variables[name])
        strategy.extended.update(
            variable,
            lambda mine, value: mine.assign(value / tf.cast(present, value.dtype)),
            args=(total,),
        )


class Statistics(NamedTuple):
    """The moving statistics before a step that may be left out; in cross-replica context.

    Attributes:
      program: the `StepProgram`.
      variables: name -> variable; empty where no step is left out.
      before: name -> value.
    """

    program: Any
    variables: dict
    before: dict

    @classmethod
    def of(cls, program) -> Statistics:
        """Those of a program, as they are now."""
        if not program.skips:
            return cls(program, {}, {})
        strategy = program.placement.strategy
        variables = moving_variables(strategy, program.model, program.places())
        local = strategy.experimental_local_results
        now = {name: tf.identity(local(tensor_variable(v))[0]) for name, v in variables.items()}
        return cls(program, variables, now)

    def put_back(self, finite) -> None:
        """Puts them back after a step that is not finite, bool [].

        One that a loss scale leaves out moves them, as in Keras: its gradients alone overflowed. A
        statistic that is itself not finite is put back in any case: it would stay so.
        """
        left_out = tf.constant(False) if self.program.optimizers.scaled else ~finite

        def assign(mine, value):
            now = tf.convert_to_tensor(mine)
            back = left_out | ~tf.reduce_all(tf.math.is_finite(now))
            mine.assign(tf.where(back, value, now))

        for name, value in self.before.items():
            variable = tensor_variable(self.variables[name])
            self.program.placement.strategy.extended.update(variable, assign, args=(value,))
