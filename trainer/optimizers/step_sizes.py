"""By what an update multiplies a gradient: the learning rate, and what else scales it."""

from __future__ import annotations

from collections.abc import Iterable

import keras
import tensorflow as tf

from losses.errors import TermwiseError
from trainer.optimizers.loss_scale import unwrapped
from trainer.optimizers.optimizers import Optimizers, UpdateGroup

KNOWN = "SGD, Adam, AdamW, RMSprop and Adagrad"


def check_known(optimizers: Iterable) -> None:
    """Raises ValueError where it is not known how an optimizer scales a gradient."""
    for optimizer in map(unwrapped, optimizers):
        if _scales(optimizer) is None:
            centered = " with centered=True" if getattr(optimizer, "centered", False) else ""
            raise TermwiseError(
                f"helps_every= knows how {KNOWN} scale a gradient; optimizer= is a "
                f"{type(optimizer).__name__}{centered}. Use one of these, or leave it out."
            )


def step_sizes(optimizers: Optimizers) -> dict[str, tf.Tensor]:
    """path -> what a gradient is multiplied by, [] or of the variable's shape; as things stand now.

        SGD                  rate
        Adam, AdamW          rate sqrt(1 - beta_2^t) / (sqrt(v) + epsilon)
        RMSprop, Adagrad     rate / sqrt(v + epsilon)

    The second moments v count as constants. Momentum is left out: what it adds later is as much
    for every gradient, 1 / (1 - momentum) in all.

    Args:
      optimizers: built; in cross-replica context.
    """
    sizes: dict[str, tf.Tensor] = {}
    for group in optimizers.updated:
        sizes.update(_of_group(group, optimizers.strategy))
    return sizes


def _of_group(group: UpdateGroup, strategy) -> dict[str, tf.Tensor]:
    optimizer = unwrapped(group.optimizer)
    rate = tf.cast(tf.convert_to_tensor(optimizer.learning_rate), tf.float32)
    slot, scale = _scales(optimizer) or ("", None)
    if scale is None:
        return dict.fromkeys(group.variables, rate)
    slots = [s for s in optimizer.variables if s.name.endswith(f"_{slot}")]
    moments = (strategy.experimental_local_results(s.value)[0] for s in slots)
    return {
        path: rate * tf.cast(scale(optimizer, tf.convert_to_tensor(moment)), tf.float32)
        for path, moment in zip(group.variables, moments, strict=True)
    }


def _scales(optimizer):
    """The last word of a slot's name and the function of it; None where it is not known."""
    kind = type(optimizer)
    if kind is keras.optimizers.SGD:
        return "", None
    if kind in (keras.optimizers.Adam, keras.optimizers.AdamW):
        return ("velocity_hat" if optimizer.amsgrad else "velocity"), _adam
    if kind is keras.optimizers.RMSprop and not optimizer.centered:
        return "velocity", _root
    if kind is keras.optimizers.Adagrad:
        return "accumulator", _root
    return None


def _adam(optimizer, moment):
    updates = tf.cast(tf.convert_to_tensor(optimizer.iterations), moment.dtype)
    bias = 1.0 - tf.pow(tf.cast(optimizer.beta_2, moment.dtype), updates)
    return tf.sqrt(bias) / (tf.sqrt(moment) + optimizer.epsilon)


def _root(optimizer, moment):
    return tf.math.rsqrt(moment + optimizer.epsilon)
