"""The update of a variable in few TensorFlow kernels, where they compute what Keras would.

Keras writes `update_step` in elementary operations, and each variable computes the step's learning
rate and bias corrections for itself: for Adam twenty small operations and more, a good part of what
a small model's step costs. Here these scalars are computed once per step; a kernel does the rest
(`kernels.py`).

The user's optimizer is not changed. Its `apply` is called on a view: an object of a subclass that
overrides `update_step` and shares every attribute, and so every variable, with the optimizer.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from trainer.model.variables import tensor_variable
from trainer.optimizers.kernels import Rule, rule_of
from trainer.optimizers.loss_scale import unwrapped


class FusedUpdate:
    """The fused update of one built optimizer.

    Args:
      optimizer: built for `variables`; a LossScaleOptimizer, or what updates by the rule.
      variables: in the order it was built for.
      rule: of its kind.
      strategy: in whose scope it was built.
    """

    def __init__(self, optimizer, variables, rule: Rule, strategy):
        self._optimizer, self._rule = optimizer, rule
        devices = strategy.experimental_local_results
        named = [_ending(unwrapped(optimizer), name) for name in rule.slots]
        self._slots: dict[int, tuple] = {}  # id of a device's variable -> its slots there
        self._parts = []  # so that no id is given to another
        for variable_and_slots in zip(variables, *named, strict=True):
            parts = [devices(tensor_variable(variable)) for variable in variable_and_slots]
            for part, *slots in zip(*parts, strict=True):
                self._parts.append(part)
                self._slots[id(part)] = tuple(slots)

    def apply_gradients(self, pairs) -> None:
        """One update by (gradient, variable) pairs, as the optimizer's `apply_gradients`."""
        optimizer, updating = self._optimizer, unwrapped(self._optimizer)
        step = _Step(self._rule, self._slots)
        view = _view(updating, _VIEWS[type(updating)], fused_step=step)
        if updating is not optimizer:
            view = _view(optimizer, type(optimizer), inner_optimizer=view)
        view.apply_gradients(pairs)


class _Step:
    """What the variables of one `apply` share.

    Args:
      rule: of the optimizer's kind.
      slots: id of a device's variable -> its slots there.
    """

    def __init__(self, rule: Rule, slots: dict[int, tuple]):
        self._rule, self._slots = rule, slots
        self._scalars: dict[Any, Any] = {}  # one copy per graph, device and dtype

    def takes(self, gradient, variable) -> bool:
        """Whether the kernels do: a dense gradient of the variable's shape, in 32 or 64 bits."""
        return (
            id(variable) in self._slots
            and isinstance(gradient, tf.Tensor)
            and gradient.shape == variable.shape
            and variable.dtype in (tf.float32, tf.float64)
        )

    def update(self, optimizer, gradient, variable, learning_rate):
        key = tf.compat.v1.get_default_graph(), variable.device, variable.dtype
        if key not in self._scalars:
            rate = keras.ops.cast(learning_rate, variable.dtype.name)
            self._scalars[key] = self._rule.scalars(optimizer, rate)
        slots, gradient = self._slots[id(variable)], tf.cast(gradient, variable.dtype)
        return self._rule.update(optimizer, variable, slots, gradient, self._scalars[key])


class _Fused:
    """Stands before a class of Keras's: what the kernels do not take is updated by Keras."""

    fused_step: _Step

    def update_step(self, gradient, variable, learning_rate):
        if self.fused_step.takes(gradient, variable):
            return self.fused_step.update(self, gradient, variable, learning_rate)
        keras_class: Any = super()
        return keras_class.update_step(gradient, variable, learning_rate)


class _SGD(_Fused, keras.optimizers.SGD):
    pass


class _Adam(_Fused, keras.optimizers.Adam):
    pass


class _AdamW(_Fused, keras.optimizers.AdamW):
    pass


class _RMSprop(_Fused, keras.optimizers.RMSprop):
    pass


class _Adadelta(_Fused, keras.optimizers.Adadelta):
    pass


class _Adamax(_Fused, keras.optimizers.Adamax):
    pass


_VIEWS: dict[type, type] = {
    view.__bases__[1]: view for view in (_SGD, _Adam, _AdamW, _RMSprop, _Adadelta, _Adamax)
}


def _view(optimizer, kind: type, **attributes):
    """An object of a class that shares an optimizer's attributes, but for those given here."""
    view: Any = object.__new__(kind)
    vars(view).update(vars(optimizer), **attributes)
    return view


def fuse(optimizer, variables, strategy=None) -> FusedUpdate | None:
    """How the variables of an optimizer are updated in few kernels.

    Args:
      optimizer: a built Keras optimizer, or a LossScaleOptimizer around one.
      variables: those it was built for, in their order.
      strategy: in whose scope it was built; the current one by default.
    Returns:
      a FusedUpdate, or None where Keras's own update is to be used.
    Example:
      >>> variable, optimizer = keras.Variable([1.0, 2.0]), keras.optimizers.SGD(0.5, 0.9)
      >>> optimizer.build([variable])
      >>> fuse(optimizer, [variable]).apply_gradients([(tf.constant([1.0, 1.0]), variable)])
      >>> print(variable.numpy())
      [0.5 1.5]
    """
    updating = unwrapped(optimizer)
    rule = rule_of(updating)
    if rule is None or "update_step" in vars(updating):
        return None
    # a variable without slots is one that Keras sets to its gradient
    if any(_shapes(_ending(updating, name)) != _shapes(variables) for name in rule.slots):
        return None
    return FusedUpdate(optimizer, variables, rule, strategy or tf.distribute.get_strategy())


def _ending(optimizer, name) -> list:
    """The slots of one name, in the order of the variables they belong to."""
    return [slot for slot in optimizer.variables if slot.name.endswith(f"_{name}")]


def _shapes(variables) -> list[tuple]:
    return [tuple(variable.shape) for variable in variables]
