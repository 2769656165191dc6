"""Loss parameters: trainable variables that the terms read and the model does not own."""

from __future__ import annotations

import gc
import inspect
import re

import keras
import numpy as np
import tensorflow as tf

_NUMBERED = re.compile(r"(variable|parameter)(_\d+)?(:0)?$", re.IGNORECASE)


def tensor_variable(variable):
    """The `tf.Variable` of a `keras.Variable`; a `tf.Variable` itself."""
    return variable.value if isinstance(variable, keras.Variable) else variable


def read(value) -> np.ndarray:
    """The value of a variable, mirrored or not, or of a tensor, on the host."""
    return np.asarray(tf.convert_to_tensor(value))


def by_path(variables) -> dict:
    """The variables by path; of two with one path the second is `<path>_1`."""
    paths: dict = {}
    for variable in variables:
        count, free = 1, variable.path
        while free in paths:
            free, count = f"{variable.path}_{count}", count + 1
        paths[free] = variable
    return paths


def find_parameters(read, model) -> list:
    """The loss parameters among the variables that a step read.

    Args:
      read: `tf.Variable`s that a tape watched.
      model: the model, whose variables are left out.
    Returns:
      list of `tf.Variable`, each once, in the order of reading.
    """
    owned = {id(tensor_variable(v)) for v in model.variables}
    found = {id(v): v for v in read if id(v) not in owned}
    return list(found.values())


def name_parameters(found: list, places) -> dict:
    """The loss parameters by name, each as the `keras.Variable` it belongs to, if it does.

    A parameter's name is its own (a `keras.Variable`'s path). One that was never named takes
    the name of the attribute or closed-over variable that holds it; where two agree, the
    term's name is put in front.

    Args:
      found: of `find_parameters`.
      places: (term name, object) pairs to look into: losses, functions, terms, weights.
    Returns:
      dict: name -> `keras.Variable` or `tf.Variable`.
    """
    holders: dict[int, tuple] = {}
    for term, place in places:
        for attribute, value in _held(place):
            if isinstance(value, (keras.Variable, tf.Variable)):
                key = id(tensor_variable(value))
                holders.setdefault(key, (term, attribute, value))
    missing = {id(v) for v in found} - set(holders)
    if missing:
        for thing in gc.get_objects():
            if isinstance(thing, keras.Variable) and id(thing.value) in missing:
                holders[id(thing.value)] = (None, None, thing)
    named = []
    for variable in found:
        term, attribute, holder = holders.get(id(variable), (None, None, variable))
        own = holder.path if isinstance(holder, keras.Variable) else holder.name.split(":")[0]
        name = attribute if attribute and _NUMBERED.match(own) else own
        named.append((name, term, holder))
    names = [name for name, _, _ in named]
    result: dict = {}
    for name, term, holder in named:
        if names.count(name) > 1 and term:
            name = f"{term}/{name}"
        count, free = 1, name
        while free in result:
            free, count = f"{name}_{count}", count + 1
        result[free] = holder
    return result


def _held(place):
    """(name, value) of what an object or function holds, one level of lists and dicts deep."""
    if isinstance(place, (keras.Variable, tf.Variable)):
        yield None, place
        return
    function = place if inspect.isfunction(place) else getattr(place, "function", None)
    items = []
    if inspect.isfunction(function):
        bound = inspect.getclosurevars(function)
        items += [*bound.nonlocals.items(), *bound.globals.items()]
    elif inspect.ismethod(function):
        items += vars(function.__self__).items()
    if hasattr(place, "__dict__"):
        items += vars(place).items()
    for name, value in items:
        yield name, value
        if isinstance(value, keras.Layer):
            yield from ((v.path, v) for v in value.trainable_variables)
        elif isinstance(value, (list, tuple)):
            yield from ((f"{name}_{i}", one) for i, one in enumerate(value))
        elif isinstance(value, dict):
            yield from ((str(key), one) for key, one in value.items())
