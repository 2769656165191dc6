"""The layers of a model, however deep they are nested."""

from __future__ import annotations

import keras


def layers_of(layer: keras.Layer) -> list[keras.Layer]:
    """A layer and all layers below it, each once, outer ones first.

    Followed are attributes, and lists, tuples, sets and dicts of layers; so the layers that a
    custom layer holds are among them, which a model's `layers` leaves out.

    Example:
      >>> inner = keras.Sequential([keras.layers.Dense(1, name="deep")], name="inner")
      >>> outer = keras.Sequential([keras.Input((2,)), inner], name="outer")
      >>> [layer.name for layer in layers_of(outer) if "deep" in layer.name]
      ['deep']
    """
    layers: dict[int, keras.Layer] = {}
    _collect(layer, layers)
    return list(layers.values())


def _collect(layer, layers: dict) -> None:
    if id(layer) in layers:
        return
    layers[id(layer)] = layer
    values = list(vars(layer).values())
    for value in values:  # which grows by what the containers among them hold
        if isinstance(value, keras.Layer):
            _collect(value, layers)
        elif isinstance(value, (list, tuple, set)):
            values.extend(value)
        elif isinstance(value, dict):
            values.extend(value.values())
