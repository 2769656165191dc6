"""Copies of an optimizer as an object, whose variables are made anew in the strategy's scope.

An optimizer belongs to the strategy in whose scope its variables were made, and once it is built
to the variables it was built for. Where it is needed elsewhere it is copied attribute by attribute:
Keras's own way, `from_config(get_config())`, forgets the arguments that a subclass leaves out of
`get_config`, what `exclude_from_weight_decay` was told, and the state of a trained optimizer.

    copy_optimizer   settings, schedules, functions, nested optimizers; not built yet
    build            by Keras, for the variables of the run
    carry_state      slots and counters of a trained optimizer (`trained_state.py`)
"""

from __future__ import annotations

import inspect
import types
from typing import Any

import keras
import tensorflow as tf

from losses.errors import TermwiseError
from trainer.model.variables import read, tensor_variable
from trainer.optimizers.attributes import (
    attributes_of_keras,
    holds_variables,
    is_variable,
    rate_of,
    variables_of,
)

_WHERE_NO_COPY = (
    "No copy is needed of a new optimizer that is made inside strategy.scope() and belongs to one "
    "group."
)


def copy_optimizer(original):
    """An optimizer like another one, not built, with variables of the scope that is open.

    Args:
      original: any Keras optimizer; it stays as it is.
    Raises:
      ValueError: an attribute that cannot be copied; the message names it.

    Example:
      >>> class Faster(keras.optimizers.SGD):
      ...     def __init__(self, factor=1.0, **arguments):
      ...         super().__init__(**arguments)
      ...         self.factor = factor
      >>> copy_optimizer(Faster(factor=3.0, learning_rate=0.5)).factor
      3.0
    """
    return Copying(original).run()


def made_in_scope(optimizer) -> bool:
    """Whether the strategy that is open is the one in whose scope an optimizer was made."""
    if tf.distribute.has_strategy():  # the default one has no scope
        return _in_scope(optimizer.variables)
    variables = map(tensor_variable, optimizer.variables)
    return not any(isinstance(v, tf.distribute.DistributedValues) for v in variables)


class Copying:
    """What is copied of one optimizer.

    Args:
      original: the optimizer.
      copy: what its attributes are set of; a new object of the same class by default.
    """

    def __init__(self, original, copy=None):
        self.original = original
        self.copy: Any = object.__new__(type(original)) if copy is None else copy
        self.copies: dict[int, Any] = {}  # id of a variable or optimizer -> its copy

    def run(self):
        # the base constructor makes what Keras keeps for itself: the lists of variables, their
        # tracking, the counter of updates and the learning rate
        rate = self.value("learning_rate", rate_of(self.original))
        keras.optimizers.Optimizer.__init__(self.copy, rate, name=self.original.name)
        for name, value in vars(self.original).items():
            if name in attributes_of_keras():
                self._base_attribute(name, value)
            elif not self._made_by_build(value):
                setattr(self.copy, name, self.value(name, value))
        return self.copy

    def _base_attribute(self, name, value) -> None:
        fresh = vars(self.copy).get(name)
        if is_variable(value) and is_variable(fresh):
            fresh.assign(read(value))
            self.copies[id(value)] = fresh
        elif not name.startswith("_") and name != "built":  # a setting: clipnorm, use_ema, ...
            setattr(self.copy, name, self.value(name, value))

    def _made_by_build(self, value) -> bool:
        """Whether a trained optimizer's attribute is left to `build` and `carry_state`."""
        return self.original.built and holds_variables(value)

    def value(self, name, value):
        """The copy of an attribute's value; functions and other objects are shared."""
        if id(value) in self.copies:
            return self.copies[id(value)]
        if is_variable(value):
            self.copies[id(value)] = self._variable(value)
            return self.copies[id(value)]
        if isinstance(value, keras.optimizers.Optimizer):
            self.copies[id(value)] = copy_optimizer(value)
            return self.copies[id(value)]
        if isinstance(value, (dict, list, set)) or type(value) is tuple:
            return self._container(name, value)
        if isinstance(value, types.MethodType) and value.__self__ is self.original:
            return types.MethodType(value.__func__, self.copy)
        self._check_shared(name, value)
        return value

    def _container(self, name, container):
        # Keras keeps kinds of its own of these, which belong to one optimizer
        if isinstance(container, dict):
            return {key: self.value(name, item) for key, item in container.items()}
        kind: type = next(k for k in (list, set, tuple) if isinstance(container, k))
        return kind(self.value(name, item) for item in container)

    def _variable(self, variable):
        values = read(variable)
        if isinstance(variable, tf.Variable):
            return tf.Variable(
                values,
                trainable=variable.trainable,
                name=variable.name.split(":")[0],
                aggregation=variable.aggregation,
            )
        settings: dict[str, Any] = {
            "shape": values.shape,
            "initializer": "zeros",
            "dtype": variable.dtype,
            "aggregation": variable.aggregation,
            "name": variable.name,
        }
        if variable.path == f"{self.original.name}/{variable.name}":  # of `add_variable`
            fresh = self.copy.add_variable(**settings)
        else:
            fresh = keras.Variable(trainable=variable.trainable, **settings)
        fresh.assign(values)
        return fresh

    def _check_shared(self, name, value) -> None:
        """Raises where the copy cannot use the same object as the original."""
        kind = type(self.original).__name__
        if inspect.isfunction(value) and self._reads_original(value):
            raise TermwiseError(
                f"optimizer= is a {kind} whose {name} is a function that reads the optimizer "
                f"itself, so a copy of it would read the wrong one. {_WHERE_NO_COPY}"
            )
        if tf.distribute.has_strategy() and not _in_scope(variables_of(value)):
            raise TermwiseError(
                f"optimizer= is a {kind} whose {name} is a {type(value).__name__} with variables "
                f"of its own. They are not on every replica, and cannot be copied. {_WHERE_NO_COPY}"
            )

    def _reads_original(self, function) -> bool:
        reads = inspect.getclosurevars(function)
        values = [*reads.nonlocals.values(), *reads.globals.values()]
        return any(value is self.original for value in values)


def _in_scope(variables) -> bool:
    """Whether all were made in the scope that is open."""
    inside = tf.distribute.get_strategy().extended.variable_created_in_scope
    return all(inside(tensor_variable(variable)) for variable in variables)
