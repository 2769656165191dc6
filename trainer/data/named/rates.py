"""At which steps a source is drawn: every n, or with a probability; functions of the step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from trainer.data.batch import is_whole
from trainer.data.permutation import random_bits


@dataclass(frozen=True)
class Rate:
    """When a source is drawn, by the position in the data, which counts steps from 0.

    Attributes:
      every: it is drawn at positions 0, every, 2 every, ...
      probability: or at each position with this probability, drawn from the seed and the position.
      seed: of these draws.

    Example:
      >>> [int(Rate(every=3).before(position)) for position in range(5)]
      [0, 1, 1, 1, 2]
    """

    every: int = 1
    probability: float | None = None
    seed: int = 0

    def drawn(self, position) -> tf.Tensor:
        """bool of the shape of `position`, int64: whether the source is drawn there."""
        position = tf.convert_to_tensor(position, tf.int64)
        if self.probability is None:
            return tf.equal(position % self.every, 0)
        high = tf.bitwise.right_shift(random_bits(self.seed, position), tf.constant(40, tf.int64))
        uniform = tf.bitwise.bitwise_and(high, tf.constant(2**24 - 1, tf.int64))  # 24 bits
        return tf.cast(uniform, tf.float32) < tf.cast(self.probability * 2**24, tf.float32)

    def before(self, position):
        """int64 [], how often the source was drawn before a position.

        With a probability the position is a Python number: the draws before it are counted.
        """
        if self.probability is None:
            return (position + self.every - 1) // self.every
        count = 0
        for start in range(0, position, _COUNTED):
            positions = tf.range(start, min(start + _COUNTED, position), dtype=tf.int64)
            count += int(np.count_nonzero(self.drawn(positions)))
        return count

    def __str__(self) -> str:
        if self.probability is not None:
            return f"drawn with probability {self.probability:g}"
        return f"every {self.every} steps"


_COUNTED = 2**20  # positions at a time


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
