"""The log window: sums over its steps, carried through the loop, and what the host reads of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainer.ledger.window import WindowSnapshot as Ended
from trainer.ledger.window import WindowSums as Sums
from trainer.step.replica import Record

NUMBERS = 4  # behind the terms' sums: examples, grad_norm, steps, skipped


class Window(NamedTuple):
    """Sums over the steps of a log window, in one vector: few operations, and one transfer.

    sums: float64 [2T + 4], of raw [T], weighted [T], examples, grad_norm, steps and skipped
    steps; weight: float32 [T], of the last step.
    """

    sums: tf.Tensor
    weight: tf.Tensor

    @classmethod
    def empty(cls, terms: int) -> Window:
        return cls(tf.zeros([2 * terms + NUMBERS], tf.float64), tf.zeros([terms]))

    def finite(self) -> tf.Tensor:
        """bool [], whether every value so far is."""
        return tf.math.is_finite(tf.reduce_sum(self.sums))

    def add(self, record: Record, skipping: bool) -> Window:
        """The window with one more step; a skipped step leaves only its count."""
        numbers = tf.stack([record.examples, record.grad_norm, 1.0, 0.0])
        step = tf.concat([record.raw, record.weighted, numbers], 0)
        if skipping:
            # the record of a skipped step has a norm that is not finite
            counted = tf.math.is_finite(record.grad_norm)
            only_skipped = tf.one_hot(step.shape[0] - 1, step.shape[0])
            step = tf.where(counted, step, only_skipped)
        return Window(self.sums + tf.cast(step, tf.float64), record.weight)

    def frozen(self, following: Window) -> Window:
        """The following window, but this one where it holds a value that is not finite."""
        finite = self.finite()
        pairs = zip(following, self, strict=True)
        return Window(*(tf.where(finite, after, before) for after, before in pairs))

    def read(self) -> Sums:
        """The window on the host."""
        return Sums.of(self.sums.numpy(), self.weight.numpy())


class Row:
    """One log window as one float64 vector: what the loop hands to the host.

    Args:
      terms: int, T.
      measured: int, size of the diagnostics' vector; 0 without.
    """

    def __init__(self, terms: int, measured: int):
        self._sums = [2 * terms + NUMBERS, terms, measured]
        self.tags: tuple[str, ...] = ()

    def pack(self, window: Window, values: dict, measured=None) -> tf.Tensor:
        """A vector, stamped with the time at which it is made; in a graph."""
        self.tags = tuple(values)
        parts = [window.sums, tf.cast(window.weight, tf.float64)]
        parts += [] if measured is None else [measured]
        numbers = [tf.cast(value, tf.float64) for value in values.values()]
        return tf.concat([*parts, tf.stack([*numbers, tf.timestamp()])], 0)

    def read(self, row: np.ndarray) -> Ended:
        """What `pack` has put together."""
        sums, weight, measured, rest = np.split(row, np.cumsum(self._sums))
        *values, time = rest.tolist()
        found = measured if len(measured) else None
        return Ended(Sums.of(sums, weight), dict(zip(self.tags, values, strict=True)), found, time)
