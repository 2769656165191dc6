"""How the terms of a step are weighed: the interface of the balancing room, and no balancing."""

from __future__ import annotations

import abc
import contextlib
from typing import Any

import tensorflow as tf

from losses.objective.layout import Layout
from losses.objective.ratio import Ratio
from trainer.step.gradients import Backward
from trainer.step.outputs import ReplicaResult


class Weighting(abc.ABC):
    """A way to weigh the terms, chosen once, before a step is traced.

    A replica calls `before` with the values and `differentiate` under the tape; after the sum over
    the replicas `finish` is called once, in cross-replica context.

    Attributes:
      reads_values: whether it needs the terms' global values before the gradients are taken.
      jacobian: whether terms are differentiated one by one, so that the tape is used repeatedly.
    """

    reads_values: bool = False
    jacobian: bool = False

    @property
    def otherwise(self) -> Weighting | None:
        """The weighting of the steps on which this one is not due; None: it always is."""
        return None

    @property
    def in_one_pass(self) -> Weighting:
        """The weighting of a pass that is looked at alone: it takes no gradients term by term."""
        return self

    def due(self, step):
        """bool [], whether a step, int64 [], is weighed by this weighting."""
        raise NotImplementedError(f"{type(self).__name__} is due on every step.")

    def penalties(self, terms: dict[str, Ratio], weights_of) -> dict[str, Ratio]:
        """Terms that the weighting adds of its own.

        Args:
          terms: the others, by name.
          weights_of: names -> float32 [names], their given weights.
        """
        return {}

    def lent(self):
        """A context manager around the trace of all replicas, in cross-replica context."""
        return contextlib.nullcontext()

    def tap(self, tape):
        """A context manager around a replica's forward pass; yields the tensors it records."""
        return contextlib.nullcontext(())

    def before(self, weights, raw, step, absent=None) -> tuple[Any, Any]:
        """The weights before the gradients are taken, float32 [T], and what was decided.

        Args:
          weights: float32 [T], the given weights.
          raw: float32 [T], of the global batch; valid where `reads_values`.
          step: int64 [], the global step.
          absent: float32 [T], 1 where the global batch holds nothing of a term, or None: it holds
            something of each; valid where `reads_values`.
        """
        return weights, None

    @abc.abstractmethod
    def differentiate(self, backward: Backward, weights, raw, decided):
        """The gradients of this replica's share of the total.

        Returns:
          path -> gradient; path -> [m, ...] jacobian; float32 [T] weights; what was decided.
        """

    def finish(self, result: ReplicaResult, scales: dict, step, probe) -> ReplicaResult:
        """What follows the sum over the replicas, in cross-replica context.

        Args:
          result: summed over the replicas.
          scales: path -> float32 [], the loss scale of its gradient; {} where none is scaled.
          step: int64 [], the global step.
          probe: () -> path -> [m, ...], the gradients of the terms' residuals, by another pass.
        """
        return result

    @property
    def accumulated(self) -> dict[str, tf.Variable]:
        """path -> what the weighting adds up over accumulated steps."""
        return {}

    def make_accumulated(self, jacobian: dict) -> dict[str, tf.Variable]:
        """Makes these variables, before the loop is traced.

        Args:
          jacobian: path -> spec of the rows, [m, ...], as the pass was traced.
        """
        return self.accumulated

    def evaluation_weights(self, layout: Layout, weights):
        """float32 [T], the weights with which an evaluation reports the terms of a layout."""
        return weights


class FixedWeighting(Weighting):
    """The given weights, as they are."""

    def differentiate(self, backward, weights, raw, decided):
        return backward.gradients(), {}, weights, decided
