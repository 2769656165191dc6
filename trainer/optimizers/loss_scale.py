"""The loss scale of mixed precision: a factor that keeps float16 gradients from rounding to 0."""

from __future__ import annotations

from collections.abc import Iterable

import keras
import tensorflow as tf


def needs_scale(model) -> bool:
    """Whether a model's policy is mixed_float16, for which Model.compile scales the loss too."""
    return model.dtype_policy.name == "mixed_float16"


def unwrapped(optimizer):
    """What updates the variables: of a LossScaleOptimizer the optimizer inside it."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer.inner_optimizer
    return optimizer


def scales_loss(optimizer) -> bool:
    """Whether an optimizer expects gradients of a scaled loss."""
    scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return scales or bool(optimizer.loss_scale_factor)


def with_loss_scale(optimizer):
    """An optimizer that scales its loss: itself where it does, else in a LossScaleOptimizer."""
    if scales_loss(optimizer):
        return optimizer
    return keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale_optimizer")


def loss_scales(optimizers: Iterable) -> tf.Tensor:
    """float32 [optimizers], what each multiplies its loss by; 1 where it does not.

    One that is not built is not asked: it would answer with a constant.
    """
    unit = tf.ones([])
    return tf.stack(
        [
            tf.convert_to_tensor(optimizer.scale_loss(unit)) if optimizer.built else unit
            for optimizer in optimizers
        ]
    )
