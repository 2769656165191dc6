"""Whose a `tf.Variable` is: the `keras.Variable` it is the value of, and the layers that own it.

A tape tells which `tf.Variable`s a step read. What says whether they train, `trainable`, is set on
a `keras.Variable` or on a layer, and no way leads there from a `tf.Variable`; whatever a closure,
a generator or an object of C holds has to be found too. So the objects of the process are looked
through: once for a step that read variables which are not the model's.
"""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import keras
import tensorflow as tf

from trainer.model.variables import tensor_variable

FEW = 2  # variables: a layer, no network


@dataclass(frozen=True)
class Owners:
    """Whose some `tf.Variable`s are, by their ids.

    Attributes:
      variables: id -> the `keras.Variable`.
      layers: id -> the layers that own it, themselves or by a layer below them.
    """

    variables: dict[int, keras.Variable] = field(default_factory=dict)
    layers: dict[int, list[keras.Layer]] = field(default_factory=dict)

    def of(self, variable: tf.Variable) -> list:
        """The objects whose `trainable` counts for a variable."""
        made = self.variables.get(id(variable))
        return [*([] if made is None else [made]), *self.layers.get(id(variable), [])]

    def trains(self, variable: tf.Variable) -> bool:
        """Whether it trains: wherever `trainable` is False, it does not.

        Example:
          >>> network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
          >>> kernel = network.weights[0].value
          >>> find_owners([kernel]).trains(kernel)
          True
          >>> network.trainable = False
          >>> find_owners([kernel]).trains(kernel), kernel.trainable
          (False, True)
        """
        return all(owner.trainable for owner in self.of(variable))


class Network(NamedTuple):
    """A network outside the model that trains.

    Attributes:
      name: of its outermost layer.
      paths: of its variables that train.
      size: how many numbers these are.
      term: that reads it, where it is known.
    """

    name: str
    paths: tuple[str, ...]
    size: int
    term: str | None = None

    def __str__(self):
        reader = "a term" if self.term is None else f"term {self.term!r}"
        size = f"{len(self.paths)} variables, {_rounded(self.size)} numbers"
        return f"{reader} trains {self.name} ({size})"


def find_networks(variables: dict, owners: Owners, model: keras.Model) -> list[Network]:
    """The networks among variables outside a model: layers of more than a couple of variables.

    Args:
      variables: path -> variable.
      owners: of their `tf.Variable`s.
      model: a layer that owns variables of it is none outside.
    """
    inside = {id(tensor_variable(variable)) for variable in model.variables}
    paths: dict[str, list[str]] = {}
    for path, variable in variables.items():
        around = owners.layers.get(id(tensor_variable(variable)), [])
        around = [layer for layer in around if not inside & _owned(layer)]
        if around:
            name = max(around, key=lambda layer: len(layer.variables)).name
            paths.setdefault(name, []).append(path)
        elif isinstance(variable, tf.Variable):  # of a tf.Module, or of a loaded SavedModel
            paths.setdefault("a network", []).append(path)
    networks = []
    for name, inner in paths.items():
        shapes = [variables[path].shape for path in inner]
        if len(inner) > FEW and any(len(shape) > 1 for shape in shapes):
            networks.append(Network(name, tuple(inner), sum(map(math.prod, shapes))))
    return networks


def _rounded(count: int) -> str:
    """A number of at most four digits.

    Example:
      >>> _rounded(845), _rounded(3_210), _rounded(14_714_688)
      ('845', '3.2 k', '14.7 M')
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.1f} {letter}"
    return str(count)


def find_owners(variables: Iterable[tf.Variable]) -> Owners:
    """Whose these variables are.

    Args:
      variables: as a tape watched them.
    """
    wanted = {id(variable) for variable in variables}
    owners = Owners()
    if not wanted:
        return owners
    for thing in _living((keras.Variable, keras.Layer)):
        if isinstance(thing, keras.Variable):
            owners.variables.update(dict.fromkeys(wanted & ids_of(thing), thing))
        else:
            for key in wanted & _owned(thing):
                owners.layers.setdefault(key, []).append(thing)
    return owners


def _living(kinds: tuple) -> Iterator:
    """The objects of the process that are of some classes."""
    wanted: dict[int, bool] = {}  # by the class: many objects, few classes
    for thing in gc.get_objects():
        key = id(type(thing))
        if key not in wanted:
            wanted[key] = issubclass(type(thing), kinds)
        if wanted[key]:
            yield thing


def ids_of(variable) -> set[int]:
    """The ids of the `tf.Variable` behind a variable, and of its copies on the devices.

    None of one that is not made yet.
    """
    with contextlib.suppress(AttributeError):
        made = tensor_variable(variable)
        copies = tf.distribute.get_strategy().experimental_local_results(made)
        return {id(made), *map(id, copies)}
    return set()


def _owned(layer: keras.Layer) -> set[int]:
    """The ids of the `tf.Variable`s that a layer owns, those that Keras does not track too."""
    ids: set[int] = set()
    with contextlib.suppress(AttributeError, RuntimeError):  # its __init__ was not finished
        for variable in layer.variables:
            ids |= ids_of(variable)
        values = list(vars(layer).values())
        for value in [*values, *(item for v in values if isinstance(v, list) for item in v)]:
            if isinstance(value, tf.Variable):
                ids.add(id(value))
            elif isinstance(value, tf.Module):
                ids |= {id(variable) for variable in value.variables}
    return ids
