"""The state of a trained optimizer, given to its copy: slots by variable, counters by attribute."""

from __future__ import annotations

from typing import NamedTuple

import keras

from losses.errors import TermwiseError
from trainer.model.variables import read
from trainer.optimizers.attributes import (
    attributes_of_keras,
    built_for,
    holds_variables,
    is_variable,
)
from trainer.optimizers.copies import Copying


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
    copied, trained = built_for(copy), {id(variable) for variable in built_for(original)}
    originals = {id(mine): variable for mine, variable in zip(copied, variables, strict=True)}
    _State(original, originals).carry(original, copy)
    averages = [slot for slot in copy.variables if slot.name.endswith("_average")]
    if len(averages) == len(copied):  # Keras begins one with the variable at the first update only
        for average, mine in zip(averages, copied, strict=True):
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


class _Places(NamedTuple):
    """Where the slots of a trained optimizer and of its copy are of the same variables.

    before, now: how many variables the two were built for; both: (place before, place now).
    """

    before: int
    now: int
    both: list[tuple[int, int]]


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
        copying, places = Copying(source, target), self._places(source, target)
        missing = {}
        for name, value in vars(source).items():
            if name not in vars(target):
                missing[name] = value
            elif name not in attributes_of_keras():
                self._assign(name, value, vars(target)[name], places)
            elif is_variable(value):
                copying.copies[id(value)] = vars(target)[name]
        for name, value in missing.items():
            if holds_variables(value):  # made by a constructor, not by build()
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
        elif is_variable(source) and is_variable(target):
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
        slots = holds_variables(source)
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
