"""The terms of a step as two flat vectors, and the way back to one value per term."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import accumulate, groupby

import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from losses.objective.ratio import Ratio

STACKED = 4  # of so many terms in a row the values are summed at once


@dataclass(frozen=True)
class Layout:
    """Where each term's sums stand in the vectors of numerators and denominators.

    Attributes:
      names: the terms, T of them, in the ledger's order.
      shapes: the shape of each term's sums; K sums in all.
      afters: for each term the function that follows the division, or None.
      undivided: for each term whether it is a sum, divided by nothing.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    afters: tuple = field(compare=False)
    undivided: tuple[bool, ...] = ()

    @classmethod
    def of(cls, terms: dict[str, Ratio]) -> Layout:
        """The layout of a step's terms; ValueError where the shape of a numerator is unknown."""
        for name, ratio in terms.items():
            if not ratio.numerator.shape.is_fully_defined():
                raise TermwiseError(
                    f"Term {name!r} has sums of the unknown shape {ratio.numerator.shape}. "
                    "Give its Ratio a static shape."
                )
        return cls(
            tuple(terms),
            tuple(tuple(ratio.numerator.shape) for ratio in terms.values()),
            tuple(ratio.after for ratio in terms.values()),
            tuple(ratio.denominator is None for ratio in terms.values()),
        )

    def with_absent(self, terms: dict[str, Ratio]) -> dict[str, Ratio]:
        """The terms of a step and, with nothing that counts, those of the layout it leaves out.

        Raises:
          ValueError: a term that the layout does not have.
        """
        unknown = [name for name in terms if name not in self.names]
        if unknown:
            raise TermwiseError(
                f"A call of compute_gradients() finds the term {unknown[0]!r}, which the run does "
                f"not have: its terms are {', '.join(self.names)}, as compute_terms() gives them "
                "outside train_step(). Return every term there; a phase of train_step() may leave "
                "some out."
            )
        absent = zip(self.names, self.shapes, self.undivided, self.afters, strict=True)
        return {
            name: terms[name]
            if name in terms
            else Ratio(
                tf.zeros(shape),
                None if undivided else tf.zeros(shape),
                after,
                present=tf.zeros([]),
            )
            for name, shape, undivided, after in absent
        }

    @property
    def sizes(self) -> list[int]:
        """How many sums each term has."""
        return [math.prod(shape) for shape in self.shapes]

    @property
    def size(self) -> int:
        """K, the number of sums."""
        return sum(self.sizes)

    @property
    def linear(self) -> bool:
        """Whether every raw value is its numerator over its denominator, nothing after."""
        return all(after is None for after in self.afters)

    @property
    def of_sum(self) -> np.ndarray:
        """int [K], the term of each sum."""
        return np.repeat(np.arange(len(self.names)), self.sizes)

    def pack(self, terms: dict[str, Ratio]) -> tuple[tf.Tensor, tf.Tensor]:
        """float32 [K] numerators and [K] denominators (0 where a term has none)."""
        numerators = []
        for length, run in groupby(terms.values(), _summed_length):
            ratios = list(run)
            if length is not None and len(ratios) >= STACKED:
                numerators.append(tf.reduce_sum(tf.stack([r.values for r in ratios]), axis=1))
                continue
            for ratio in ratios:
                numerators.append(tf.reshape(tf.cast(ratio.numerator, tf.float32), [-1]))
        denominators = []
        for ratio, shape, size in zip(terms.values(), self.shapes, self.sizes, strict=True):
            whole = ratio.denominator is None
            denominator = tf.zeros([]) if whole else tf.cast(ratio.denominator, tf.float32)
            denominators.append(tf.reshape(tf.broadcast_to(denominator, shape), [size]))
        return tf.concat(numerators, 0), tf.stop_gradient(tf.concat(denominators, 0))

    def present(self, terms: dict[str, Ratio]) -> tf.Tensor | None:
        """float32 [T], a sum that is 0 where the examples hold nothing of a term.

        None where the shapes tell that they hold something of each.
        """
        parts = [ratio.present for ratio in terms.values()]
        if all(part is True for part in parts):
            return None
        parts = [tf.ones([]) if part is True else tf.cast(part, tf.float32) for part in parts]
        return tf.stop_gradient(tf.stack(parts))

    def absent(self, sums) -> tf.Tensor | None:
        """float32 [T], 1 where a term is absent from the global batch.

        Args:
          sums: float32 [2K + 2], or [2K + T + 2], over all replicas, as of `Forward.sums`.
        Returns:
          None where no term can be.
        """
        present = sums[2 * self.size : -2]
        return None if present.shape[0] == 0 else tf.cast(tf.equal(present, 0), tf.float32)

    def static_denominators(self, terms: dict[str, Ratio]) -> np.ndarray | None:
        """float32 [K], the denominators of `pack` where the shapes alone tell them, else None."""
        denominators = []
        for ratio, shape in zip(terms.values(), self.shapes, strict=True):
            undivided = ratio.denominator is None
            known = np.zeros([]) if undivided else tf.get_static_value(ratio.denominator)
            if known is None:
                return None
            denominators.append(np.broadcast_to(known, shape).astype(np.float32).ravel())
        return np.concatenate(denominators)

    def parts(self, terms: dict[str, Ratio], cotangents) -> list[tf.Tensor]:
        """Each term's part of the total, [] each: its numerators times their cotangents [K]."""
        ends = list(accumulate(self.sizes))
        return [
            tf.reduce_sum(
                tf.reshape(tf.cast(ratio.numerator, tf.float32), [size])
                * cotangents[end - size : end]
            )
            for ratio, size, end in zip(terms.values(), self.sizes, ends, strict=True)
        ]

    def raw(self, numerators, denominators, absent=None) -> tf.Tensor:
        """The terms' values, [T], of sums [K] over the global batch; 0 where nothing counts.

        Args:
          absent: float32 [T], of `absent`.
        """
        ratios = tf.math.divide_no_nan(numerators, self._divisors(denominators))
        if self.linear:
            return ratios
        values = []
        ends = list(accumulate(self.sizes))
        for shape, size, end, after in zip(self.shapes, self.sizes, ends, self.afters, strict=True):
            part = tf.reshape(ratios[end - size : end], shape)
            values.append(part if after is None else tf.cast(after(part), tf.float32))
        raw = tf.stack(values)
        return raw if absent is None else tf.where(absent > 0, tf.zeros_like(raw), raw)

    def _divisors(self, denominators):
        """The denominators, 1 for a sum."""
        if not any(self.undivided):
            return denominators
        whole = tf.constant(np.repeat(self.undivided, self.sizes))
        return tf.where(whole, tf.ones_like(denominators), denominators)

    def raw_and_cotangents(self, numerators, denominators, weights, absent=None):
        """The terms' values, and the total's derivative by each numerator.

        Args:
          numerators, denominators: float32 [K], sums over the global batch.
          weights: float32 [T].
          absent: float32 [T], of `absent`; of such a term both are 0, whatever `after` makes of 0.
        Returns:
          float32 [T] raw values; float32 [K] cotangents, d sum(weights * raw) / d numerators.
        """
        if self.linear:  # d (weight * numerator / denominator)
            raw = tf.stop_gradient(self.raw(numerators, denominators))
            divisors = self._divisors(denominators)
            return raw, tf.math.divide_no_nan(tf.stop_gradient(weights), divisors)
        with tf.GradientTape() as tape:
            tape.watch(numerators)
            raw = self.raw(numerators, denominators, absent)
            total = tf.reduce_sum(tf.stop_gradient(weights) * raw)
        cotangents = tape.gradient(total, numerators)
        if absent is not None:  # 0 times an infinite slope
            of_absent = tf.gather(absent, self.of_sum) > 0
            cotangents = tf.where(of_absent, tf.zeros_like(cotangents), cotangents)
        return tf.stop_gradient(raw), cotangents

    def by_term(self, denominators) -> tf.Tensor:
        """float32 [T], each term's denominators [K] added up; 1 for a sum."""
        whole = tf.constant(self.undivided)
        totals = tf.math.unsorted_segment_sum(
            denominators, tf.constant(self.of_sum), len(self.names)
        )
        return tf.where(whole, tf.ones_like(totals), totals)

    def accumulation_factors(self, denominators, mean_denominators) -> tf.Tensor:
        """What one of several accumulated steps counts against their mean.

            factor = this step's denominators of a term / their mean over the accumulated steps

        so that the mean over the steps of factor * (numerator / denominator) is the sum of the
        numerators over the sum of the denominators.

        Args:
          denominators: float32 [K], of this step's global batch.
          mean_denominators: float32 [T], the mean of `by_term(denominators)` over the steps.
        Returns:
          float32 [T]; 1 for a sum, which is divided by nothing.
        """
        return tf.math.divide_no_nan(self.by_term(denominators), mean_denominators)


def _summed_length(ratio: Ratio) -> int | None:
    """How many values a numerator is the sum of; None where that cannot be stacked with others.

    Each sum by itself is an operation forward and two backward: with 32 terms as much as a small
    model.
    """
    values = ratio.values
    if not ratio.sums_values or values.dtype != tf.float32 or values.shape.rank != 1:
        return None
    return values.shape[0]
