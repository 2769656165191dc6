"""Loss parameters: the variables that a step read and the model does not own, and their names."""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import keras
import numpy as np
import tensorflow as tf

from losses.layers import layers_of
from losses.naming import checked_name
from losses.objective.parameter import parameter_of
from trainer.model.owners import find_owners, ids_of
from trainer.model.variables import free_name, tensor_variable

DEPTH = 4  # how many objects the search passes through
MOST = 20_000  # objects that the search looks at
LIBRARIES = {"builtins", "numpy", "tensorflow", "trainer"}  # not looked into; Keras's wrappers are

_NUMBERED = re.compile(r"(variable|parameter)(_\d+)?(:0)?$", re.IGNORECASE)
_PLAIN = (str, bytes, bool, int, float, complex, type(None), np.ndarray, np.generic, tf.Tensor)


def find_parameters(read, model) -> list:
    """The loss parameters among the variables that a step read.

    Args:
      read: `tf.Variable`s that a tape watched.
      model: the model, whose variables are left out.
    Returns:
      list of `tf.Variable`, each once, in the order of reading.
    """
    owned = {id(tensor_variable(variable)) for variable in model.variables}
    parameters = {id(variable): variable for variable in read if id(variable) not in owned}
    return list(parameters.values())


def find_unwatched(read, known) -> list[keras.Variable]:
    """The `keras.Variable`s, made as not trainable, among the variables that a step read.

    A tape watches none of them, whatever their `trainable` is set to later.

    Args:
      read: `tf.Variable`s of the step's graph.
      known: variables that are left out: the model's, of metrics, of a balancer.
    """
    ids = {key for variable in known for key in ids_of(variable)}
    unknown = [v for v in read if not v.trainable and v.dtype.is_floating and id(v) not in ids]
    made = find_owners(unknown).variables.values()
    return list({id(variable): variable for variable in made}.values())


def factors_of_regularizers(model) -> list:
    """The `tf.Variable`s that a user's regularizers read, those of the model among them.

    A factor in there is the user's to set; a `losses.Parameter` is made to learn, and is none.
    """
    with tf.GradientTape() as tape:
        for variable in model.trainable_variables:
            if _is_users(variable.regularizer):
                variable.regularizer(variable)
    read = list(tape.watched_variables())
    for layer in layers_of(model):
        if _is_users(layer.activity_regularizer):
            values = [value for _, value in _held_by(layer.activity_regularizer)]
            read += [tensor_variable(value) for value in values if _is_variable(value)]
    return [variable for variable in read if parameter_of(variable) is None]


def _is_users(regularizer) -> bool:
    """Whether a regularizer is none of Keras's own, whose factors are numbers."""
    return regularizer is not None and not type(regularizer).__module__.startswith("keras.")


def name_parameters(parameters: list, places, made: Mapping = MappingProxyType({})) -> dict:
    """The loss parameters by name, each as the `keras.Variable` it belongs to, if it does.

    A parameter's name is its own (a `keras.Variable`'s path). One that was never named takes
    the name of the attribute or closed-over variable that holds it; where two agree, the
    term's name is put in front.

    Args:
      parameters: of `find_parameters`.
      places: (term name, object) pairs to look into: losses, functions, terms, weights.
      made: id of a `tf.Variable` -> its `keras.Variable`, where it is known.
    Returns:
      dict: name -> `keras.Variable` or `tf.Variable`.
    """
    holders = _holders(parameters, places)
    named = []
    for parameter in parameters:
        term, attribute, variable = holders.get(id(parameter), (None, None, parameter))
        variable = made.get(id(parameter), variable)
        is_keras = isinstance(variable, keras.Variable)
        path = variable.path if is_keras else variable.name.split(":")[0]
        name = attribute if attribute and _NUMBERED.match(path) else path
        named.append((name, term, variable))
    names = [name for name, _, _ in named]
    result: dict = {}
    for name, term, variable in named:
        checked_name(name, "A loss parameter's name")
        if names.count(name) > 1 and term:
            name = f"{term}/{name}"
        result[free_name(name, result)] = variable
    return result


def _holders(parameters: list, places) -> dict[int, tuple]:
    """id of a `tf.Variable` -> (term or None, attribute or None, the variable that users made).

    First what losses, terms and weights hold themselves; then every `losses.Parameter`; then
    what can be reached from the places through functions, objects and containers.
    """
    holders: dict[int, tuple] = {}
    for term, place in places:
        for attribute, variable in _held_by(place):
            if _is_variable(variable):
                holders.setdefault(id(tensor_variable(variable)), (term, attribute, variable))
    for parameter in parameters:
        term, attribute, variable = holders.get(id(parameter), (None, None, None))
        made = None if isinstance(variable, keras.Variable) else parameter_of(parameter)
        if made is not None:
            holders[id(parameter)] = (term, attribute, made)
    missing = {id(parameter) for parameter in parameters} - set(holders)
    return {**holders, **_reached(missing, [place for _, place in places])}


def _reached(missing: set[int], places: list) -> dict[int, tuple]:
    """Of the missing variables those that can be reached, as in `_holders`."""
    reached: dict[int, tuple] = {}
    missing = set(missing)
    if not missing:
        return reached
    for attribute, variable in _reachable(places):
        key = id(tensor_variable(variable))
        if key in missing:
            reached[key] = (None, attribute, variable)
            if isinstance(variable, keras.Variable):  # which knows more than a tf.Variable
                missing.discard(key)
        if not missing:
            break
    return reached


def term_that_reaches(parameters: list, places) -> str | None:
    """The first term from whose loss, function or weight one of the parameters can be reached."""
    wanted = {id(parameter) for parameter in parameters}
    for term, place in places:
        if any(id(tensor_variable(variable)) in wanted for _, variable in _reachable([place])):
            return term
    return None


def _held_by(place) -> Iterator[tuple]:
    """(name, value) of what an object or function holds, one level of lists and dicts deep."""
    if _is_variable(place):
        yield None, place
        return
    written = inspect.isfunction(place) or inspect.ismethod(place)
    function = place if written else getattr(place, "function", None)
    items: list[tuple] = []
    if inspect.isfunction(function):
        bound = inspect.getclosurevars(function)
        items += [*bound.nonlocals.items(), *bound.globals.items()]
    elif inspect.ismethod(function):
        items += vars(function.__self__).items()
    items += getattr(place, "__dict__", {}).items()
    for name, value in items:
        yield name, value
        if isinstance(value, keras.Layer):
            yield from ((v.path, v) for v in value.trainable_variables)
        elif isinstance(value, (list, tuple, dict)):
            yield from _parts_of_container(name, value)


def _reachable(places: list) -> Iterator[tuple]:
    """(name, variable) of what can be reached from places, the nearest first."""
    seen: set[int] = set()
    level = [(None, place) for place in places]
    for _ in range(DEPTH + 1):
        below = []
        for name, thing in level:
            if id(thing) in seen or len(seen) > MOST:
                continue
            seen.add(id(thing))
            if _is_variable(thing):
                yield name, thing
            elif not isinstance(thing, _PLAIN):
                below += _parts_of(name, thing)
        level = below


def _parts_of(name, thing) -> list[tuple]:
    """(name, part) of what an object, function or container holds."""
    if isinstance(thing, keras.Layer):
        return [(variable.path, variable) for variable in thing.variables]
    if isinstance(thing, (list, tuple, set, dict)):
        return list(_parts_of_container(name, thing))
    if callable(thing) and not _of_libraries(thing):
        return _parts_of_callable(name, thing)
    if isinstance(thing, types.ModuleType) or _of_libraries(thing):
        return []
    return _parts_of_object(name, thing)


def _parts_of_callable(name, thing) -> list[tuple]:
    if isinstance(thing, functools.partial):
        return [(name, thing.func), *_parts_of_container(name, thing.args), *thing.keywords.items()]
    if inspect.ismethod(thing):
        return [(name, thing.__self__), (name, thing.__func__)]
    if inspect.isfunction(thing):
        return _read_by(thing)
    if inspect.isclass(thing):
        return [(part, value) for part, value in vars(thing).items() if _is_variable(value)]
    return _parts_of_object(name, thing)


def _parts_of_object(name, thing) -> list[tuple]:
    return [*getattr(thing, "__dict__", {}).items(), (name, type(thing))]


def _of_libraries(thing) -> bool:
    """Whether an object's class, or a function, is none that a user wrote or wraps."""
    written = inspect.isfunction(thing) or inspect.ismethod(thing) or inspect.isclass(thing)
    owner = thing if written else type(thing)
    return (owner.__module__ or "").split(".")[0] in LIBRARIES


def _parts_of_container(name, container) -> Iterator[tuple]:
    if isinstance(container, dict):
        yield from ((str(key), value) for key, value in container.items())
    else:
        yield from ((f"{name}_{i}", value) for i, value in enumerate(container))


def _read_by(function) -> list[tuple]:
    """(name, value) of what a function, and those written inside it, reads from outside."""
    codes, names = [function.__code__], set()
    for code in codes:  # which grows by the functions written inside
        names |= set(code.co_names)
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    values = [(name, cell.cell_contents) for name, cell in cells if _filled(cell)]
    outside = {name: function.__globals__[name] for name in names & function.__globals__.keys()}
    for name, value in sorted(outside.items()):
        values.append((name, value))
        if inspect.ismodule(value):  # of a module, what the function names
            values += [(n, vars(value)[n]) for n in sorted(names & vars(value).keys())]
    defaults = function.__defaults__ or ()
    return [*values, *_parts_of_container("default", defaults)]


def _filled(cell) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # nothing was assigned yet
        return False


def _is_variable(value) -> bool:
    return isinstance(value, (keras.Variable, tf.Variable))
