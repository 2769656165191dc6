"""The log window: sums over its steps, carried through the loop, and what the host reads of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainer.ledger.window import WindowSnapshot, WindowSums
from trainer.step.outputs import StepRecord

NUMBERS = 4  # behind the terms' sums: examples, grad_norm, steps, skipped


class LogWindow(NamedTuple):
    """Sums over the steps of a log window, in one vector: few operations, and one transfer.

    sums: float64 [2T + 4], of raw [T], weighted [T], examples, grad_norm, steps and skipped
    steps; weight: float32 [T], of the last step.
    """

    sums: tf.Tensor
    weight: tf.Tensor

    @classmethod
    def empty(cls, terms: int) -> LogWindow:
        return cls(tf.zeros([2 * terms + NUMBERS], tf.float64), tf.zeros([terms]))

    def finite(self) -> tf.Tensor:
        """bool [], whether every value so far is."""
        return tf.math.is_finite(tf.reduce_sum(self.sums))

    def add(self, record: StepRecord, skipping: bool) -> LogWindow:
        """The window with one more step; a skipped step leaves only its count."""
        numbers = tf.stack([record.examples, record.grad_norm, 1.0, 0.0])
        step = tf.concat([record.raw, record.weighted, numbers], 0)
        if skipping:
            only_skipped = tf.one_hot(step.shape[0] - 1, step.shape[0])
            step = tf.where(record.finite(), step, only_skipped)
        return LogWindow(self.sums + tf.cast(step, tf.float64), record.weight)

    def or_before(self, following: LogWindow) -> LogWindow:
        """The following window, but this one where it holds a value that is not finite."""
        return self.where(self.finite(), following)

    def where(self, condition, other: LogWindow) -> LogWindow:
        """The other window where the condition, bool [], is true, else this one."""
        pairs = zip(other, self, strict=True)
        return LogWindow(*(tf.where(condition, theirs, this) for theirs, this in pairs))

    def read(self) -> WindowSums:
        """The window on the host."""
        return WindowSums.of(self.sums.numpy(), self.weight.numpy())


def has_clock() -> bool:
    """Whether a graph may ask for the time: not under `enable_op_determinism()`."""
    try:
        with tf.init_scope():
            tf.timestamp()
    except tf.errors.OpError:
        return False
    return True


class WindowCodec:
    """One log window as one float64 vector: what the loop hands to the host.

    Args:
      terms: int, T.
      measured: int, the size of the diagnostics' vector; 0 without.
      tags: the names of the values that stand beside the sums.
    """

    def __init__(self, terms: int, measured: int, tags: tuple[str, ...]):
        self._sizes = [2 * terms + NUMBERS, terms, measured]
        self._tags = tags
        self._clock = has_clock()

    def pack(self, window: LogWindow, values: dict, measured=None) -> tf.Tensor:
        """A vector, stamped with the time at which it is made (NaN without a clock); in a graph.

        Args:
          window: the log window.
          values: tag -> [], in the order of the codec's tags.
          measured: float64 [measured], of the diagnostics, or None.
        """
        parts = [window.sums, tf.cast(window.weight, tf.float64)]
        parts += [] if measured is None else [measured]
        numbers = [tf.cast(values[tag], tf.float64) for tag in self._tags]
        now = tf.timestamp() if self._clock else tf.constant(np.nan, tf.float64)
        return tf.concat([*parts, tf.stack([*numbers, now])], 0)

    def read(self, vector: np.ndarray) -> WindowSnapshot:
        """What `pack` has put together."""
        sums, weight, measured, rest = np.split(vector, np.cumsum(self._sizes))
        *values, time = rest.tolist()
        return WindowSnapshot(
            WindowSums.of(sums, weight),
            dict(zip(self._tags, values, strict=True)),
            measured if len(measured) else None,
            time,
        )
