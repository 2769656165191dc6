"""At which steps a source is drawn: every n, or with a probability; functions of the step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from trainer.data.batch import is_whole
from trainer.data.permutation import random_bits


@dataclass(frozen=True)
class Rate:
    """When a source is drawn, by the position in the data, which counts steps from 0.

    Attributes:
      every: it is drawn at positions start, start + every, start + 2 every, ...; 0: at none.
      probability: or at each position with this probability, drawn from the seed and the position.
      seed: of these draws.
      start: the position from which it is counted.
      offset: how often it was drawn at other rates before, less what it counts itself.

    Example:
      >>> [int(Rate(every=3).before(position)) for position in range(5)]
      [0, 1, 1, 1, 2]
    """

    every: int = 1
    probability: float | None = None
    seed: int = 0
    start: int = 0
    offset: int = 0

    @property
    def always(self) -> bool:
        """Whether every step draws."""
        return self.every == 1 and self.probability is None

    @property
    def never(self) -> bool:
        """Whether no step draws."""
        return self.every == 0

    def drawn(self, position) -> tf.Tensor:
        """bool of the shape of `position`, int64: whether the source is drawn there."""
        position = tf.convert_to_tensor(position, tf.int64)
        if self.never:
            return tf.zeros_like(position, tf.bool)
        if self.probability is None:
            return tf.equal((position - self.start) % self.every, 0)
        high = tf.bitwise.right_shift(random_bits(self.seed, position), tf.constant(40, tf.int64))
        uniform = tf.bitwise.bitwise_and(high, tf.constant(2**24 - 1, tf.int64))  # 24 bits
        return tf.cast(uniform, tf.float32) < tf.cast(self.probability * 2**24, tf.float32)

    def before(self, position):
        """int64 [], how often the source was drawn before a position.

        With a probability the position is a Python number: the draws before it are counted.
        """
        if self.never:
            return position * 0 + self.offset
        if self.probability is None:
            return (position - self.start + self.every - 1) // self.every + self.offset
        count = self.offset
        for start in range(self.start, position, _COUNTED):
            positions = tf.range(start, min(start + _COUNTED, position), dtype=tf.int64)
            count += int(np.count_nonzero(self.drawn(positions)))
        return count

    def from_now(self, position: int, drawn: int) -> Rate:
        """The same rate for a source that was drawn so often before a position."""
        own = replace(self, start=0 if self.always else self.start, offset=0)
        return replace(own, offset=drawn - own.before(position))

    def __str__(self) -> str:
        if self.never:
            return "never drawn"
        if self.probability is not None:
            return f"drawn with probability {self.probability:g}"
        return f"every {self.every} steps"


_COUNTED = 2**20  # positions at a time


def rate_of(name: str, value) -> Rate:
    """The rate that a phase gives a source.

    Args:
      value: a whole number n: every n steps from the first of the phase on; 0: never; a fraction:
        the probability.
    Raises:
      ValueError: something else.
    """
    if is_whole(value) and value >= 0:
        return Rate(int(value))
    if isinstance(value, float) and 0 < value < 1:
        return Rate(1, value)
    raise TermwiseError(
        f"rates={{{name!r}: {value!r}}}: give every how many steps the source is drawn, a "
        "probability between 0 and 1, or 0 for never."
    )


def checked_rates(rates: Mapping[str, Any]) -> dict[str, Rate]:
    """name -> `Rate`, of the rates that a phase sets. ValueError: as `rate_of`."""
    return {name: rate_of(name, value) for name, value in rates.items()}


def checked_every(name: str, every) -> int:
    """The steps between two draws of a source. ValueError: no whole number of at least 1."""
    if is_whole(every) and every >= 1:
        return int(every)
    raise TermwiseError(f"every({name}={every!r}): give a whole number of steps, at least 1.")


def checked_probability(name: str, probability) -> float:
    """A probability. ValueError: not above 0, or above 1."""
    number = isinstance(probability, (int, float)) and not isinstance(probability, bool)
    if number and 0 < probability <= 1:
        return float(probability)
    raise TermwiseError(
        f"sampled({name}={probability!r}): give a probability, above 0 and at most 1."
    )
