"""How the terms' sums are made global: one class for each way, chosen when a step is traced."""

from __future__ import annotations

import abc
from typing import NamedTuple

import tensorflow as tf

from losses.objective.layout import Layout
from trainer.distributed.reduce import sum_in_replica
from trainer.step.forward import Forward
from trainer.step.program import Placement


class GlobalSums(NamedTuple):
    """The terms' sums over the global batch.

    numerators: float32 [K]; zeros where they are known only after the gradients.
    denominators: float32 [K].
    result: float32 [2K + 2], what the replica hands on, see `ReplicaResult.sums`.
    absent: float32 [T], of `Layout.absent`; None also where it is known only after the gradients.
    """

    numerators: tf.Tensor
    denominators: tf.Tensor
    result: tf.Tensor
    absent: tf.Tensor | None = None


class Reducer(abc.ABC):
    """Makes one replica's sums global, before its gradients are taken.

    Attributes:
      deferred: whether each replica hands on its own sums, which are added up with the gradients.
    """

    deferred: bool = False

    @abc.abstractmethod
    def global_sums(self, forward: Forward, sums, present, precomputed) -> GlobalSums:
        """The sums over all replicas, as far as the gradients need them.

        Args:
          forward: this replica's forward pass.
          sums: float32 [2K + 2], of `forward`.
          present: float32 [], 0 where its examples are padding; None: they are not.
          precomputed: float32 [2K + 2], what a pass before has summed, or None.
        """

    @abc.abstractmethod
    def raw_share(self, forward: Forward, sums: GlobalSums, raw) -> tf.Tensor:
        """float32 [T], this replica's part of the terms' raw values; over the replicas, `raw`."""


class LocalReducer(Reducer):
    """One replica: its sums are the global ones."""

    def global_sums(self, forward, sums, present, precomputed):
        absent = forward.layout.absent(sums)
        return GlobalSums(forward.numerators, forward.denominators, sums, absent)

    def raw_share(self, forward, sums, raw):
        return raw


class EarlyReducer(Reducer):
    """All sums before the gradients: for a function after the division, or values to weigh by."""

    def __init__(self, replicas: int):
        self._replicas = replicas

    def global_sums(self, forward, sums, present, precomputed):
        totals, layout = sum_in_replica(sums), forward.layout
        size, absent = layout.size, layout.absent(totals)
        return GlobalSums(totals[:size], totals[size : 2 * size], totals, absent)

    def raw_share(self, forward, sums, raw):
        return raw / self._replicas


class DeferredReducer(Reducer):
    """The denominators before the gradients, the numerators with them: for linear terms."""

    deferred = True

    def __init__(self, placement: Placement):
        self._placement = placement

    def global_sums(self, forward, sums, present, precomputed):
        denominators = self._denominators(forward, present)
        return GlobalSums(tf.zeros_like(forward.numerators), denominators, sums)

    def raw_share(self, forward, sums, raw):
        return forward.layout.raw(forward.numerators, sums.denominators)

    def _denominators(self, forward, present):
        """float32 [K], over all replicas; without a collective where shapes alone tell them."""
        if present is None and forward.even and not self._placement.per_host:
            known = forward.layout.static_denominators(forward.terms)
            if known is not None:
                return tf.constant(known * self._placement.replicas)
        return sum_in_replica(forward.denominators)


class PrecomputedReducer(Reducer):
    """A pass before has summed: XLA on several replicas."""

    deferred = True

    def __init__(self, replicas: int):
        self._replicas = replicas

    def global_sums(self, forward, sums, present, precomputed):
        size, absent = forward.layout.size, forward.layout.absent(precomputed)
        return GlobalSums(precomputed[:size], precomputed[size : 2 * size], sums, absent)

    def raw_share(self, forward, sums, raw):
        if forward.layout.linear:
            return forward.layout.raw(forward.numerators, sums.denominators)
        return raw / self._replicas


def choose_reducer(placement: Placement, layout: Layout, reads_values: bool) -> Reducer:
    """The reducer of a step.

    Args:
      placement: where the step runs.
      layout: its terms.
      reads_values: whether the weighting needs all values before the gradients.
    """
    if placement.replicas == 1:
        return LocalReducer()
    if placement.precomputes_sums:
        return PrecomputedReducer(placement.replicas)
    if layout.linear and not reads_values:
        return DeferredReducer(placement)
    return EarlyReducer(placement.replicas)
