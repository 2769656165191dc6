"""Copies of an optimizer as an object, whose variables are made anew in the strategy's scope.

An optimizer belongs to the strategy in whose scope its variables were made, and once it is built
to the variables it was built for. Where it is needed elsewhere it is copied attribute by attribute:
Keras's own way, `from_config(get_config())`, forgets the arguments that a subclass leaves out of
`get_config`, what `exclude_from_weight_decay` was told, and the state of a trained optimizer.

    copy_optimizer   settings, schedules, functions, nested optimizers; not built yet
    build            by Keras, for the variables of the run
    carry_state      slots and counters of a trained optimizer
"""

from __future__ import annotations

import functools
import inspect
import types
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from losses.errors import TermwiseError
from trainer.model.variables import read, tensor_variable


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
    return _Copying(original).run()


def carry_state(original, copy, variables: list) -> None:
    """Gives a copy that is built the slots and counters of the trained optimizer it is of.

    Args:
      original: built; of `copy_optimizer`.
      copy: built for `variables`.
      variables: those of the model, in the copy's order. What the original was not built for
        keeps the slots that Keras has made.
    Raises:
      ValueError: its state does not fit.
    """
    own, trained = built_for(copy), {id(variable) for variable in built_for(original)}
    originals = {id(mine): variable for mine, variable in zip(own, variables, strict=True)}
    _State(original, originals).carry(original, copy)
    averages = [slot for slot in copy.variables if slot.name.endswith("_average")]
    if len(averages) == len(own):  # Keras begins one with the variable at the first update only
        for average, mine in zip(averages, own, strict=True):
            if id(originals[id(mine)]) not in trained:
                average.assign(read(mine))


def check_built_for(optimizer, variables) -> None:
    """Raises ValueError where a trained optimizer was built for none of a run's variables."""
    before = {id(variable) for variable in built_for(optimizer)}
    if not any(id(variable) in before for variable in variables):
        kind = type(optimizer).__name__
        raise TermwiseError(
            f"optimizer= is a {kind} that was built for other variables; its moments would be "
            f"lost. Pass a new one: {kind}.from_config(optimizer.get_config())."
        )


def built_for(optimizer) -> list:
    """The variables that an optimizer was built for, in its order."""
    slots = {id(variable) for variable in optimizer.variables}
    for name in _attributes_of_keras():
        value = vars(optimizer).get(name)
        listed = list(value) if isinstance(value, (list, tuple)) else []
        if listed and all(_is_variable(v) and id(v) not in slots for v in listed):
            return listed
    return []


def made_in_scope(optimizer) -> bool:
    """Whether the strategy that is open is the one in whose scope an optimizer was made."""
    if tf.distribute.has_strategy():  # the default one has no scope
        return _in_scope(optimizer.variables)
    variables = map(tensor_variable, optimizer.variables)
    return not any(isinstance(v, tf.distribute.DistributedValues) for v in variables)


class _Places(NamedTuple):
    """Where the slots of a trained optimizer and of its copy are of the same variables.

    before, now: how many variables the two were built for; both: (place before, place now).
    """

    before: int
    now: int
    both: list[tuple[int, int]]


class _Copying:
    """One `copy_optimizer`: the original, its copy, and what was copied already."""

    def __init__(self, original, copy=None):
        self.original = original
        self.copy: Any = object.__new__(type(original)) if copy is None else copy
        self.copies: dict[int, Any] = {}  # id of a variable or optimizer -> its copy

    def run(self):
        # the base constructor makes what Keras keeps for itself: the lists of variables, their
        # tracking, the counter of updates and the learning rate
        rate = self.value("learning_rate", _rate_function(self.original), 0.0)
        keras.optimizers.Optimizer.__init__(self.copy, rate, name=self.original.name)
        for name, value in vars(self.original).items():
            if name in _attributes_of_keras():
                self._base_attribute(name, value)
            elif not self._made_by_build(value):
                setattr(self.copy, name, self.value(name, value))
        return self.copy

    def _base_attribute(self, name, value) -> None:
        fresh = vars(self.copy).get(name)
        if _is_variable(value) and _is_variable(fresh):
            fresh.assign(read(value))
            self.copies[id(value)] = fresh
        elif not name.startswith("_") and name != "built":  # a setting: clipnorm, use_ema, ...
            setattr(self.copy, name, self.value(name, value))

    def _made_by_build(self, value) -> bool:
        """Whether a trained optimizer's attribute is left to `build` and `carry_state`."""
        return self.original.built and _holds_variables(value)

    def value(self, name, value, default=None):
        """The copy of an attribute's value; functions and other objects are shared."""
        if value is None:
            return default
        if id(value) in self.copies:
            return self.copies[id(value)]
        if _is_variable(value):
            self.copies[id(value)] = self._variable(value)
            return self.copies[id(value)]
        if isinstance(value, keras.optimizers.Optimizer):
            self.copies[id(value)] = copy_optimizer(value)
            return self.copies[id(value)]
        if isinstance(value, dict):
            return {key: self.value(name, item) for key, item in value.items()}
        if isinstance(value, (list, set)) or type(value) is tuple:
            kind = next(k for k in (list, set, tuple) if isinstance(value, k))
            return kind(self.value(name, item) for item in value)
        if isinstance(value, types.MethodType) and value.__self__ is self.original:
            return types.MethodType(value.__func__, self.copy)
        self._check_shared(name, value)
        return value

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
        if tf.distribute.has_strategy() and not _in_scope(_variables_of(value)):
            raise TermwiseError(
                f"optimizer= is a {kind} whose {name} is a {type(value).__name__} with variables "
                f"of its own. They are not on every replica, and cannot be copied. {_WHERE_NO_COPY}"
            )

    def _reads_original(self, function) -> bool:
        reads = inspect.getclosurevars(function)
        values = [*reads.nonlocals.values(), *reads.globals.values()]
        return any(value is self.original for value in values)


_WHERE_NO_COPY = (
    "No copy is needed of a new optimizer that is made inside strategy.scope() and belongs to one "
    "group."
)


class _State:
    """One `carry_state`.

    Args:
      trained: the optimizer whose state is carried.
      originals: id of a variable that the copy was built for -> the model's variable. The two
        differ where the copy updates a mirrored copy of the variable.
    """

    def __init__(self, trained, originals: dict):
        self.trained, self.originals = trained, originals

    def carry(self, source, target) -> None:
        """From one optimizer to its copy, attribute by attribute."""
        copying, places = _Copying(source, target), self._places(source, target)
        missing = {}
        for name, value in vars(source).items():
            if name not in vars(target):
                missing[name] = value
            elif name not in _attributes_of_keras():
                self._assign(name, value, vars(target)[name], places)
            elif _is_variable(value):
                copying.copies[id(value)] = vars(target)[name]
        for name, value in missing.items():
            if _holds_variables(value):  # made by a constructor, not by build()
                setattr(target, name, copying.value(name, value))

    def _places(self, source, target) -> _Places:
        """Which slots of two optimizers are of the same variables."""
        before, now = built_for(source), built_for(target)
        place = {id(variable): number for number, variable in enumerate(before)}
        names = (id(self.originals.get(id(variable), variable)) for variable in now)
        both = [(place[name], number) for number, name in enumerate(names) if name in place]
        return _Places(len(before), len(now), both)

    def _assign(self, name, source, target, places: _Places) -> None:
        if isinstance(source, keras.optimizers.Optimizer):
            self.carry(source, target)
        elif _is_variable(source) and _is_variable(target):
            if tuple(source.shape) != tuple(target.shape):
                raise self._unfit(name)
            target.assign(read(source))
        elif isinstance(source, dict):
            for key in source.keys() & target.keys():
                self._assign(name, source[key], target[key], places)
        elif isinstance(source, (list, tuple)):
            for before, now in self._pairs(name, source, target, places):
                self._assign(name, source[before], target[now], places)

    def _pairs(self, name, source, target, places: _Places) -> list[tuple[int, int]]:
        slots = _holds_variables(source)
        if slots and (len(source), len(target)) == (places.before, places.now):
            return places.both
        if slots and len(source) != len(target):
            raise self._unfit(name)
        return [(place, place) for place in range(min(len(source), len(target)))]

    def _unfit(self, name) -> TermwiseError:
        kind = type(self.trained).__name__
        return TermwiseError(
            f"optimizer= is a trained {kind}, and its {name} does not fit the variables of this "
            f"run. Pass a new {kind}: its state would be lost."
        )


@functools.cache
def _attributes_of_keras() -> frozenset:
    """The names of the attributes that Keras's base class of optimizers makes."""
    return frozenset(vars(keras.optimizers.Optimizer(learning_rate=0.0, name="attributes")))


def _rate_function(optimizer):
    """An optimizer's schedule, or other function of its learning rate; None for a number."""
    values = (vars(optimizer).get(name) for name in sorted(_attributes_of_keras()))
    return next((value for value in values if callable(value)), None)


def _is_variable(value) -> bool:
    return isinstance(value, (keras.Variable, tf.Variable))


def _in_scope(variables) -> bool:
    """Whether all were made in the scope that is open."""
    inside = tf.distribute.get_strategy().extended.variable_created_in_scope
    return all(inside(tensor_variable(variable)) for variable in variables)


def _variables_in(value):
    """The variables of a value that is one, or a list or dict that holds some."""
    if _is_variable(value):
        yield value
    elif isinstance(value, dict):
        yield from _variables_in(list(value.values()))
    elif isinstance(value, (list, tuple, set)):
        for item in value:
            yield from _variables_in(item)


def _holds_variables(value) -> bool:
    return any(True for _ in _variables_in(value))


def _variables_of(value) -> list:
    """The variables of an object; a schedule, and any function, only reads those it has."""
    if isinstance(value, keras.Layer):
        return value.variables
    return [] if callable(value) else list(_variables_in(getattr(value, "__dict__", {})))
