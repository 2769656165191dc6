"""The update of a variable in few TensorFlow kernels, where they compute what Keras would.

Keras writes `update_step` in elementary operations, and each variable computes the step's learning
rate and bias corrections for itself: for Adam twenty small operations and more, a good part of what
a small model's step costs. Here these scalars are computed once per step; a kernel does the rest:

    optimizer                       kernel
    SGD with momentum, nesterov     ResourceApplyKerasMomentum
    Adam, AdamW, amsgrad or not     ResourceApplyAdagradV2, after the moving averages
    RMSprop with momentum           ResourceApplyRMSProp
    Adadelta                        ResourceApplyAdadelta
    Adamax                          ResourceApplyAdaMax

All of them have kernels for XLA too. What is not in the table, and every subclass, is updated by
Keras: plain SGD is two operations there and no faster as a kernel; Adagrad, plain RMSprop and Nadam
have no kernel of their formula; centered RMSprop subtracts averages whose rounding would show;
Ftrl's kernel refuses a learning rate of 0.

The user's optimizer is not changed. Its `apply` is called on a view: an object of a subclass that
overrides `update_step` and shares every attribute, and so every variable, with the optimizer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from trainer.model.variables import tensor_variable
from trainer.optimizers.loss_scale import unwrapped


class Rule(NamedTuple):
    """How one kind of optimizer is fused.

    Attributes:
      slots: the last words of its slots' names.
      scalars: (optimizer, learning rate) -> what all variables share, once per step.
      update: (optimizer, variable, its slots, gradient, scalars) -> None.
      decays: the attributes by which the kernel itself takes moving averages.
    """

    slots: tuple[str, ...]
    scalars: Callable
    update: Callable
    decays: tuple[str, ...] = ()


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
    rule = _rule(updating)
    if rule is None or "update_step" in vars(updating):
        return None
    shapes = [tuple(variable.shape) for variable in variables]
    for name in rule.slots:
        if [tuple(slot.shape) for slot in _ending(updating, name)] != shapes:
            return None  # a variable without slots: Keras sets it to its gradient
    for name in rule.decays:
        if not _kernel_averages(getattr(updating, name)):
            return None
    return FusedUpdate(optimizer, variables, rule, strategy or tf.distribute.get_strategy())


def _rule(optimizer) -> Rule | None:
    kind = type(optimizer)
    if kind is keras.optimizers.SGD:
        return MOMENTUM if optimizer.momentum else None
    if kind in (keras.optimizers.Adam, keras.optimizers.AdamW):
        return AMSGRAD if optimizer.amsgrad else ADAM
    if kind is keras.optimizers.RMSprop:
        return RMSPROP if optimizer.momentum > 0 and not optimizer.centered else None
    return {keras.optimizers.Adadelta: ADADELTA, keras.optimizers.Adamax: ADAMAX}.get(kind)


def _ending(optimizer, name) -> list:
    """The slots of one name, in the order of the variables they belong to."""
    return [slot for slot in optimizer.variables if slot.name.endswith(f"_{name}")]


def _kernel_averages(decay: float) -> bool:
    """Whether a kernel's moving average is Keras's, but for rounding.

    A kernel has 1 - decay in float32, which is off by more than 1e-6 of it for 0.999, and
    a + (1 - decay) (x - a), which loses the digits of an x much smaller than a if decay is small.
    """
    exact = 1.0 - decay
    of_kernel = float(np.float32(1) - np.float32(decay))
    return decay >= 0.5 and abs(of_kernel - exact) <= 1e-6 * exact


def _constants(like, **values) -> dict:
    return {name: tf.constant(value, like.dtype) for name, value in values.items()}


def _attributes(*names) -> Callable:
    """Scalars that a kernel calls as the optimizer does."""
    return lambda optimizer, rate: {
        "lr": rate,
        **_constants(rate, **{name: getattr(optimizer, name) for name in names}),
    }


def _momentum_scalars(optimizer, rate):
    return {"lr": rate, "momentum": keras.ops.cast(optimizer.momentum, rate.dtype.name)}


def _momentum(optimizer, variable, slots, gradient, scalars):
    # m <- momentum m - rate g; w <- w + m, with nesterov w + momentum m - rate g
    tf.raw_ops.ResourceApplyKerasMomentum(
        var=variable.handle,
        accum=slots[0].handle,
        grad=gradient,
        use_nesterov=optimizer.nesterov,
        **scalars,
    )


def _powers(optimizer, like, *betas):
    """beta^t of each, t counting the updates from 1."""
    step = tf.cast(tf.convert_to_tensor(optimizer.iterations) + 1, like.dtype)
    return [tf.pow(keras.ops.cast(beta, like.dtype.name), step) for beta in betas]


def _adam_scalars(optimizer, rate):
    # alpha = rate sqrt(1 - beta_2^t) / (1 - beta_1^t)
    first, second = _powers(optimizer, rate, optimizer.beta_1, optimizer.beta_2)
    alpha = rate * tf.sqrt(1 - second) / (1 - first)
    betas = dict(first=optimizer.beta_1 - 1, second=optimizer.beta_2 - 1)
    return {"alpha": alpha, **_constants(rate, epsilon=optimizer.epsilon, **betas)}


def _adam(optimizer, variable, slots, gradient, scalars):
    # m <- m - (beta_1 - 1) (g - m); v <- v - (beta_2 - 1) (g^2 - v), both as gradient descent;
    # with amsgrad v is then the largest so far;
    # w <- w - alpha m / (sqrt(v) + epsilon), the step of Adagrad with m for its gradient.
    # ResourceApplyAdam does all of it, but on CPU it takes longer than these up to 30,000
    # elements; and it computes 1 - beta_2 in float32.
    first, second, *largest = slots
    descend = tf.raw_ops.ResourceApplyGradientDescent
    descend(var=first.handle, alpha=scalars["first"], delta=gradient - first)
    descend(var=second.handle, alpha=scalars["second"], delta=tf.square(gradient) - second)
    for peak in largest:
        peak.assign(tf.maximum(peak, second), read_value=False)
        second = peak
    tf.raw_ops.ResourceApplyAdagradV2(
        var=variable.handle,
        accum=second.handle,
        lr=scalars["alpha"],
        epsilon=scalars["epsilon"],
        grad=first.read_value(),
        update_slots=False,
    )


def _rmsprop(optimizer, variable, slots, gradient, scalars):
    # v <- rho v + (1 - rho) g^2; m <- momentum m + rate g / sqrt(v + epsilon); w <- w - m
    velocity, momentum = slots
    tf.raw_ops.ResourceApplyRMSProp(
        var=variable.handle, ms=velocity.handle, mom=momentum.handle, grad=gradient, **scalars
    )


def _adadelta(optimizer, variable, slots, gradient, scalars):
    # a <- rho a + (1 - rho) g^2; u = g sqrt(d + epsilon) / sqrt(a + epsilon); w <- w - rate u;
    # d <- rho d + (1 - rho) u^2
    squares, deltas = slots
    tf.raw_ops.ResourceApplyAdadelta(
        var=variable.handle,
        accum=squares.handle,
        accum_update=deltas.handle,
        grad=gradient,
        **scalars,
    )


def _adamax_scalars(optimizer, rate):
    (power,) = _powers(optimizer, rate, optimizer.beta_1)
    betas = dict(beta1=optimizer.beta_1, beta2=optimizer.beta_2)
    constants = _constants(rate, epsilon=optimizer.epsilon, **betas)
    return {"lr": rate, "beta1_power": power, **constants}


def _adamax(optimizer, variable, slots, gradient, scalars):
    # m <- m + (1 - beta_1) (g - m); u <- max(beta_2 u, |g|);
    # w <- w - rate / (1 - beta_1^t) m / (u + epsilon)
    first, norm = slots
    tf.raw_ops.ResourceApplyAdaMax(
        var=variable.handle, m=first.handle, v=norm.handle, grad=gradient, **scalars
    )


MOMENTUM = Rule(("momentum",), _momentum_scalars, _momentum)
ADAM = Rule(("momentum", "velocity"), _adam_scalars, _adam)
AMSGRAD = Rule(("momentum", "velocity", "velocity_hat"), _adam_scalars, _adam)
RMSPROP = Rule(
    ("velocity", "momentum"), _attributes("rho", "momentum", "epsilon"), _rmsprop, ("rho",)
)
ADADELTA = Rule(
    ("accumulated_grad", "accumulated_delta_var"),
    _attributes("rho", "epsilon"),
    _adadelta,
    ("rho",),
)
ADAMAX = Rule(("momentum", "norm"), _adamax_scalars, _adamax, ("beta_1",))
