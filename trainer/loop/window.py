"""The log window: sums over its steps, carried through the loop, and what the host reads of it."""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainer.ledger.window import (
    NUMBERS,
    StackedSums,
    WindowColumns,
    WindowSnapshot,
    WindowSums,
)
from trainer.step.outputs import StepRecord


class OnNonfinite(enum.Enum):
    """What a loop does after a step whose values or gradient are not finite.

    STOP: it is the last step. FREEZE: the steps go on to the end of the segment, and the window
    stays as it is: on a GPU a check would cost a transfer to the host in every step.
    SKIP: the step is left out, and counted.
    """

    STOP = "stop"
    FREEZE = "freeze"
    SKIP = "skip"

    @classmethod
    def of(cls, skips: bool) -> OnNonfinite:
        """The way of this machine."""
        if skips:
            return cls.SKIP
        return cls.FREEZE if tf.config.list_logical_devices("GPU") else cls.STOP


class StepLine(NamedTuple):
    """What one step adds to a log window.

    It is made in the step's own graph: there it does not wait for the update of the weights.

    numbers: float64 [3T + 5], in the order of `LogWindow.sums`; weight: float32 [T]; finite:
    bool [], whether the step counts; None where each does.
    """

    numbers: tf.Tensor
    weight: tf.Tensor
    finite: tf.Tensor | None = None

    @classmethod
    def of(cls, record: StepRecord, skipping: bool = False, by_examples: bool = False) -> StepLine:
        """The line of a step; a skipped step leaves only its count.

        Args:
          by_examples: as in `WindowSums`.
        """
        terms, examples, norm = record.raw.shape[0], record.examples, record.grad_norm
        parts, absent = [record.raw, record.weighted], record.absent
        if by_examples:
            parts, norm = [part * examples for part in parts], norm * examples
            absent = None if absent is None else absent * examples
        absent = [0.0] * terms if absent is None else tf.unstack(absent, terms)
        loss = examples * tf.reduce_sum(record.weighted)
        rest = tf.stack([examples, norm, 1.0, 0.0, *absent, loss])
        numbers = tf.concat([*parts, rest], 0)
        if not skipping:
            return cls(tf.cast(numbers, tf.float64), record.weight)
        finite = record.finite()
        only_skipped = tf.one_hot(2 * terms + NUMBERS - 1, vector_size(terms))
        numbers = tf.where(finite, numbers, only_skipped)
        return cls(tf.cast(numbers, tf.float64), record.weight, finite)


class LogWindow(NamedTuple):
    """Sums over the steps of a log window, in one vector: few operations, and one transfer.

    sums: float64 [3T + 5], as `WindowSums.of` takes it; weight: float32 [T], of the last step that
    counts.
    """

    sums: tf.Tensor
    weight: tf.Tensor

    @classmethod
    def empty(cls, terms: int) -> LogWindow:
        return cls(tf.zeros([vector_size(terms)], tf.float64), tf.zeros([terms]))

    def finite(self) -> tf.Tensor:
        """bool [], whether every value so far is."""
        return tf.math.is_finite(tf.reduce_sum(self.sums))

    def add(self, line: StepLine) -> LogWindow:
        """The window with one more step."""
        weight = line.weight
        if line.finite is not None:
            weight = tf.where(line.finite, weight, self.weight)
        return LogWindow(self.sums + line.numbers, weight)

    def or_before(self, following: LogWindow) -> LogWindow:
        """The following window, but this one where it holds a value that is not finite."""
        return self.where(self.finite(), following)

    def where(self, condition, other: LogWindow) -> LogWindow:
        """The other window where the condition, bool [], is true, else this one."""
        pairs = zip(other, self, strict=True)
        return LogWindow(*(tf.where(condition, theirs, this) for theirs, this in pairs))

    def read(self, by_examples: bool = False) -> WindowSums:
        """The window on the host."""
        return WindowSums.of(self.sums.numpy(), self.weight.numpy(), by_examples)

    def saved(self) -> tuple[list, list]:
        """What a checkpoint holds: what those of before hold too, and more."""
        size = 2 * self.weight.shape[0] + NUMBERS
        return [self.sums[:size], self.weight], [self.sums[size:]]

    @classmethod
    def restored(cls, window: list, more: list) -> LogWindow:
        """The window that `saved` gave."""
        sums, weight = map(tf.convert_to_tensor, window)
        return cls(tf.concat([sums, *more], 0), weight)


def vector_size(terms: int) -> int:
    """The length of the vector of sums of so many terms."""
    return 3 * terms + NUMBERS + 1


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
      by_examples: as in `WindowSums`.
    """

    def __init__(self, terms: int, measured: int, tags: tuple[str, ...], by_examples: bool = False):
        self._sizes = [vector_size(terms), terms, measured]
        self._tags, self._by_examples = tags, by_examples
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
        windows = self.read_many(vector[None])
        values = {tag: numbers[0] for tag, numbers in windows.values.items()}
        gradients = None if windows.gradients is None else windows.gradients[0]
        return WindowSnapshot(windows.sums.at(0), values, gradients, windows.times[0])

    def read_many(self, vectors: np.ndarray) -> WindowColumns:
        """What `pack` has put together W times, float64 [W, ...]."""
        sums, weight, measured, rest = np.split(vectors, np.cumsum(self._sizes), axis=1)
        *values, times = rest.T.tolist()
        return WindowColumns(
            StackedSums.of(sums, weight, self._by_examples),
            dict(zip(self._tags, values, strict=True)),
            measured if measured.shape[1] else None,
            times,
        )
