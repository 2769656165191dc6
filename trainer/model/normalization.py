"""Layers whose answer depends on how a batch is shared out over the replicas."""

from __future__ import annotations

import warnings

import keras

from losses.layers import layers_of


def tell_of_normalization(model: keras.Model, replicas: int) -> None:
    """Warns of layers that train by the mean of a replica's share, not of the global batch.

    Args:
      model: a Keras model.
      replicas: int, over how many a step runs.
    """
    if replicas == 1:
        return
    alone = [
        layer.name
        for layer in layers_of(model)
        if isinstance(layer, keras.layers.BatchNormalization)
        and layer.trainable
        and not getattr(layer, "synchronized", False)
    ]
    if alone:
        more = f" and {len(alone) - 1} more" if len(alone) > 1 else ""
        warnings.warn(
            f"Layer {alone[0]!r}{more}: BatchNormalization takes mean and variance of each "
            f"replica's share of a batch, so {replicas} replicas train to another answer than one. "
            "BatchNormalization(synchronized=True) takes those of the global batch.",
            stacklevel=2,
        )
