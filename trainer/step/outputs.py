"""What a step leaves: on one replica, and, after the sum over the replicas, for the ledger."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import tensorflow as tf

from losses.objective.ratio import Ratio


class StepRecord(NamedTuple):
    """What one step leaves for the ledger; the same on every replica.

    raw, weight, weighted: float32 [terms]; examples: float32 [], of the global batch;
    grad_norm: float32 [], of the gradient of the total; absent: float32 [terms], 1 where the
    batch holds nothing of a term; None where it holds something of each; sums: float32 [2K], the
    numerators and denominators over the global batch, by which multipliers move; None where there
    is no constraint.
    """

    raw: tf.Tensor
    weight: tf.Tensor
    weighted: tf.Tensor
    examples: tf.Tensor
    grad_norm: tf.Tensor
    absent: tf.Tensor | None = None
    sums: tf.Tensor | None = None

    def joined(self, other: StepRecord) -> StepRecord:
        """The record of a step of two passes, of which each has other terms.

        Absent from the step is what is absent from both.
        """
        ours = tf.not_equal(self.weighted, 0)
        absent = None
        if self.absent is not None and other.absent is not None:
            absent = self.absent * other.absent
        sums = None
        if self.sums is not None and other.sums is not None:
            sums = self.sums + other.sums
        return StepRecord(
            self.raw + other.raw,
            tf.where(ours, self.weight, other.weight),
            self.weighted + other.weighted,
            tf.maximum(self.examples, other.examples),
            tf.sqrt(tf.square(self.grad_norm) + tf.square(other.grad_norm)),
            absent,
            sums,
        )

    def finite(self) -> tf.Tensor:
        """bool [], whether the values and the gradient are."""
        return tf.math.is_finite(self.grad_norm + tf.reduce_sum(self.weighted))


class ReplicaResult(NamedTuple):
    """What a forward and backward pass leaves on one replica.

    gradients: path -> gradient of this replica's share of the total.
    moving: path -> value of a moving statistic, times `present`.
    sums: float32 [2K + 2], see `Forward.sums`: over all replicas, or this replica's own where the
      reducer is deferred.
    raw, weights: float32 [terms], of the global batch; `raw` is valid only where `sums` are over
      all replicas.
    jacobian: path -> [m, ...], the gradients of the m balanced terms one by one.
    decided: what a weighting decided during the pass: float32 [m] factors; of gradients also the
      statistic they came of; float32 [m] values under the given weights. None where it decides
      after the sum over the replicas.
    absent: float32 [terms], 1 where the global batch holds nothing of a term; None where it holds
      something of each, and before the sum over the replicas.
    """

    gradients: dict[str, Any]
    moving: dict[str, tf.Tensor]
    sums: tf.Tensor
    raw: tf.Tensor
    weights: tf.Tensor
    jacobian: dict[str, tf.Tensor]
    decided: Any
    absent: tf.Tensor | None = None


@dataclass(frozen=True)
class ExampleNotes:
    """What the trace of a pass over single examples finds out of the terms.

    Attributes:
      terms: each term, in the ledger's order, and why no example has a value of it; None: each has.
      sums: those that are divided by nothing.
    """

    terms: dict[str, str | None] = field(default_factory=dict)
    sums: set[str] = field(default_factory=set)

    def note(self, name: str, ratio: Ratio) -> None:
        """Notes what is known of a term."""
        self.terms[name] = ratio.without_examples
        if ratio.denominator is None:
            self.sums.add(name)


@dataclass(frozen=True)
class TrialNotes:
    """What the trace of a step that is only tried finds out of the terms.

    Attributes:
      examples: which have a value per example.
      shapes: term -> the shape of its values without the axis of examples; none: of one number.
      reached: term -> the paths of the variables that it reaches.
    """

    examples: ExampleNotes = field(default_factory=ExampleNotes)
    shapes: dict[str, tuple] = field(default_factory=dict)
    reached: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def note(self, name: str, ratio: Ratio, reached: tuple[str, ...]) -> None:
        """Notes what is known of a term."""
        self.examples.note(name, ratio)
        self.reached[name] = reached
        if ratio.without_examples is None:
            self.shapes[name] = tuple(tf.convert_to_tensor(ratio.values).shape[1:])
