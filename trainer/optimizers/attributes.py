"""What the attributes of an optimizer hold: variables, and what Keras's base class makes."""

from __future__ import annotations

import functools

import keras
import tensorflow as tf


@functools.cache
def attributes_of_keras() -> frozenset:
    """The names of the attributes that Keras's base class of optimizers makes."""
    return frozenset(vars(keras.optimizers.Optimizer(learning_rate=0.0, name="attributes")))


def rate_of(optimizer):
    """An optimizer's schedule, or other function of its learning rate; 0.0 for a number."""
    values = (vars(optimizer).get(name) for name in sorted(attributes_of_keras()))
    return next((value for value in values if callable(value)), 0.0)


def is_variable(value) -> bool:
    return isinstance(value, (keras.Variable, tf.Variable))


def variables_in(value):
    """The variables of a value that is one, or a list or dict that holds some."""
    if is_variable(value):
        yield value
    elif isinstance(value, dict):
        yield from variables_in(list(value.values()))
    elif isinstance(value, (list, tuple, set)):
        for item in value:
            yield from variables_in(item)


def holds_variables(value) -> bool:
    return any(True for _ in variables_in(value))


def variables_of(value) -> list:
    """The variables of an object; a schedule, and any function, only reads those it has."""
    if isinstance(value, keras.Layer):
        return value.variables
    return [] if callable(value) else list(variables_in(getattr(value, "__dict__", {})))


def built_for(optimizer) -> list:
    """The variables that an optimizer was built for, in its order."""
    slots = {id(variable) for variable in optimizer.variables}
    for name in attributes_of_keras():
        value = vars(optimizer).get(name)
        listed = list(value) if isinstance(value, (list, tuple)) else []
        if listed and all(is_variable(v) and id(v) not in slots for v in listed):
            return listed
    return []
