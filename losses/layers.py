"""The layers of a model, however deep they are nested, and names of them that stay the same."""

from __future__ import annotations

import collections
from collections.abc import Mapping

import keras

from losses.naming import counted_name


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


def stable_names(model: keras.Layer) -> dict[str, str]:
    """Keras's own names of a model's layers -> the same without what else the process has made.

    Keras counts the layers of a process: the Dense layers of its third model may be `dense_4` and
    `dense_5`. Here those of one model are counted, in the order in which they were made: `dense`,
    `dense_1`, as in a process that makes this model alone. Names that users gave stay.
    """
    counted: dict[str, set] = collections.defaultdict(set)
    for layer in layers_of(model):
        default = counted_name(layer.name, type(layer))
        if default is not None:
            counted[default[0]].add((default[1], layer.name))
    return {
        name: f"{base}_{place}" if place else base
        for base, names in counted.items()
        for place, (_, name) in enumerate(sorted(names))
    }


def stable_path(path: str, names: Mapping[str, str]) -> str:
    """A path of layers and variables in `stable_names`.

    Example:
      >>> stable_path("net/dense_7/kernel", {"dense_7": "dense"})
      'net/dense/kernel'
    """
    return "/".join(names.get(part, part) for part in path.split("/"))
