"""The layers of a model, as Keras lists them: one walk for all who look for some."""

from __future__ import annotations

from collections.abc import Iterator

import keras


def layers_of(model) -> Iterator[keras.Layer]:
    """The model and the layers below it, outer ones first."""
    yield model
    for layer in getattr(model, "layers", []):
        yield from layers_of(layer)
