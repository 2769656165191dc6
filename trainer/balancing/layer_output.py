"""A layer's outputs as a forward pass computes them, for gradients with respect to them.

Keras calls a layer's activity regularizer with each of its outputs: while a pass is traced, the
layer is lent one that notes them. It is set before any replica is traced and taken back after
the last, and each replica, traced in a thread of its own, fills its own list; so that neither the
order in which the replicas' threads take turns matters, nor anything of the layer's stays changed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import keras
import tensorflow as tf

from losses.errors import TermwiseError
from losses.layers import layers_of


class LayerOutput:
    """Notes the outputs of one layer while it is lent to it; one list for each replica.

    Args:
      layer: the layer; what it was lent is taken back when `lent` ends.
    """

    def __init__(self, layer: keras.Layer):
        self._layer = layer
        self._regularizer = layer.activity_regularizer
        self._outputs: dict[int, list[tf.Tensor]] = {}  # by the thread of a replica
        self._tapes: dict[int, tf.GradientTape] = {}

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Around the trace of all replicas, in cross-replica context."""
        self._layer.activity_regularizer = self._note
        try:
            yield
        finally:
            self._layer.activity_regularizer = self._regularizer

    @contextlib.contextmanager
    def recorded(self, tape) -> Iterator[list[tf.Tensor]]:
        """Around one replica's forward pass: its outputs, which the tape watches.

        Yields:
          list of tensors, filled by the layer's calls.
        Raises:
          ValueError: the pass has not called the layer.
        """
        thread = threading.get_ident()
        self._outputs[thread], self._tapes[thread] = [], tape
        try:
            yield self._outputs[thread]
            if not self._outputs[thread]:
                raise TermwiseError(
                    f"at= names layer {self._layer.name!r}, which the forward pass does not call. "
                    "Name a layer that it calls, or take patterns of variable paths."
                )
        finally:
            del self._outputs[thread], self._tapes[thread]

    def _note(self, output):
        """Notes an output; what the layer's own regularizer gives, else an empty loss."""
        thread = threading.get_ident()
        if thread in self._outputs:
            self._tapes[thread].watch(output)
            self._outputs[thread].append(output)
        return tf.zeros([0]) if self._regularizer is None else self._regularizer(output)


def find_layer(model, at) -> keras.Layer | None:
    """The layer whose output `at` means, or None where it means variables."""
    if isinstance(at, keras.Layer):
        return at
    if isinstance(at, str):
        for layer in layers_of(model):
            if at in (layer.name, getattr(layer, "path", None)):
                return layer
    return None
