"""What layers add by `add_loss` while several replicas are traced: each replica's apart.

The replicas of a `MirroredStrategy` are traced in threads that take turns wherever one waits for
the others, as synchronized batch normalization does. A layer has one list of added losses; a
replica that begins would clear what another has added before its turn ended.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import keras

from losses.layers import layers_of


@contextlib.contextmanager
def added_losses_apart(model: keras.Model, replicas: int) -> Iterator[None]:
    """Around `strategy.run`: every layer is lent lists of which each thread has its own."""
    layers = layers_of(model) if replicas > 1 else []
    before = [(layer._losses, layer._loss_ids) for layer in layers]
    for layer in layers:
        vars(layer).update(_losses=_OfThread(list), _loss_ids=_OfThread(set))
    try:
        yield
    finally:
        # past Layer.__setattr__, which would wrap them
        for layer, (values, ids) in zip(layers, before, strict=True):
            vars(layer).update(_losses=values, _loss_ids=ids)


class _OfThread:
    """A list or set, one for each thread; of their methods those that Keras's layers use."""

    def __init__(self, kind: type):
        self._kind = kind
        self._by_thread: dict = {}

    def _mine(self):
        return self._by_thread.setdefault(threading.get_ident(), self._kind())

    def __getitem__(self, index):
        return self._mine()[index]

    def __contains__(self, value):
        return value in self._mine()

    def extend(self, values):
        self._mine().extend(values)

    def add(self, value):
        self._mine().add(value)

    def clear(self):
        self._mine().clear()
