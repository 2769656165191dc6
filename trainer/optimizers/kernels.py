"""The kernels of TensorFlow that update a variable, and which optimizer each of them equals.

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
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf


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


def rule_of(optimizer) -> Rule | None:
    """The rule by which an optimizer is fused; None where no kernel equals its update."""
    rule = _rule_of_kind(optimizer)
    if rule is None or not all(_averages(getattr(optimizer, name)) for name in rule.decays):
        return None
    return rule


def _rule_of_kind(optimizer) -> Rule | None:
    kind = type(optimizer)
    if kind is keras.optimizers.SGD:
        return MOMENTUM if optimizer.momentum else None
    if kind in (keras.optimizers.Adam, keras.optimizers.AdamW):
        return AMSGRAD if optimizer.amsgrad else ADAM
    if kind is keras.optimizers.RMSprop:
        return RMSPROP if optimizer.momentum > 0 and not optimizer.centered else None
    return {keras.optimizers.Adadelta: ADADELTA, keras.optimizers.Adamax: ADAMAX}.get(kind)


def _averages(decay: float) -> bool:
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
