"""An optimizer built anew, in place, for other variables than before."""

from __future__ import annotations

import types

import keras

from trainer.optimizers.copies import copy_optimizer
from trainer.optimizers.loss_scale import unwrapped
from trainer.optimizers.trained_state import carry_state
from trainer.optimizers.weight_decay import exclude_from_decay


def rebuild(optimizer, variables: list, excluded: list) -> None:
    """Gives a built optimizer slots for other variables.

    The slots of those it was built for, its counters and its learning rate stay; the object is the
    same. Keras builds an optimizer once, so a copy is built, given the state, and its attributes
    are taken over.

    Args:
      optimizer: built; the strategy's scope is open.
      variables: in the order of their slots.
      excluded: those that weight decay leaves alone.
    Example:
      >>> a, b = keras.Variable([1.0]), keras.Variable([2.0])
      >>> optimizer = keras.optimizers.SGD(0.5, momentum=0.9)
      >>> optimizer.build([a])
      >>> optimizer.apply([keras.ops.ones(1)], [a])
      >>> rebuild(optimizer, [b, a], [])
      >>> [float(slot[0]) for slot in optimizer.momentums], int(optimizer.iterations)
      ([0.0, -0.5], 1)
    """
    other = copy_optimizer(optimizer)
    if excluded:
        exclude_from_decay(unwrapped(other), excluded)
    other.build(variables)
    carry_state(optimizer, other, variables)
    _take_over(optimizer, other)


def _take_over(optimizer, other) -> None:
    """Gives an optimizer, and one inside it, the attributes of another one of its kind."""
    before, attributes = dict(vars(optimizer)), dict(vars(other))
    for name, value in attributes.items():
        inside = before.get(name)
        if isinstance(value, keras.optimizers.Optimizer) and type(inside) is type(value):
            _take_over(inside, value)
            attributes[name] = inside
        elif isinstance(value, types.MethodType) and value.__self__ is other:
            attributes[name] = types.MethodType(value.__func__, optimizer)
    vars(optimizer).clear()
    vars(optimizer).update(attributes)
