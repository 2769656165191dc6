"""The backward pass of one replica: its share of the total, and the gradients by path."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from losses.objective.layout import Layout
from trainer.model.variables import tensor_variable
from trainer.step.trainable import TrainableVariables


@dataclass(frozen=True)
class ObjectiveShare:
    """This replica's share of the total: over the replicas, its gradients add up to the total's.

    Attributes:
      layout: the T terms, of K sums.
      numerator_part: float32 [K], each numerator times the total's derivative by it.
      weight_part: float32 [T], weights * raw, of which the gradient by the weights is taken.
      loss_scale: float32 [], or None.
      accumulation: float32 [T], what the step counts among accumulated steps, or None.
      parts: the numerator part by term, [] each, kept apart so that a tape tells which variables
        a term reaches; empty where the terms are not differentiated one by one.
      cotangents: float32 [K], what the numerators were multiplied by; None where unknown.
    """

    layout: Layout
    numerator_part: tf.Tensor
    weight_part: tf.Tensor
    loss_scale: Any = None
    accumulation: Any = None
    parts: tuple = ()
    cotangents: Any = None

    @property
    def constants(self) -> tuple:
        """The tensors in the parts that were computed while the tape was not recording."""
        return tuple(t for t in (self.cotangents, self.accumulation) if t is not None)

    def accumulated(self) -> ObjectiveShare:
        """The share of an accumulated step: each term by what it counts."""
        return self if self.accumulation is None else self.times(self.accumulation)

    def times(self, factors) -> ObjectiveShare:
        """Each term's part times a factor, [T]."""
        on_sums = tf.gather(factors, self.layout.of_sum)
        return ObjectiveShare(
            self.layout,
            self.numerator_part * on_sums,
            self.weight_part * factors,
            self.loss_scale,
            self.accumulation,
            tuple(factors[i] * part for i, part in enumerate(self.parts)),
            self.cotangents,
        )

    def total(self, mask=None) -> tf.Tensor:
        """float32 [], the share of the terms in a mask, bool [T], of one at least; of all."""
        if mask is None or all(mask):
            total = tf.reduce_sum(self.numerator_part) + tf.reduce_sum(self.weight_part)
        elif self.parts:  # by themselves: nothing is differentiated for the others
            chosen = tf.constant(np.flatnonzero(mask))
            total = tf.add_n([part for part, on in zip(self.parts, mask, strict=True) if on])
            total += tf.reduce_sum(tf.gather(self.weight_part, chosen))
        else:
            masked = self.times(tf.constant(np.asarray(mask, np.float32)))
            total = tf.reduce_sum(masked.numerator_part) + tf.reduce_sum(masked.weight_part)
        return total if self.loss_scale is None else total * self.loss_scale


@dataclass(frozen=True)
class Backward:
    """A tape that has recorded one replica's forward pass, and what its gradients are taken of.

    Attributes:
      tape: the tape.
      share: this replica's share of the total.
      trainables: the variables that train.
      passes: (mask of terms, bool [T] as a tuple; whether their optimizer accumulates) -> paths.
      scales: float32 [optimizers], the loss scales, or None.
      scale_index: the place of each group's optimizer among `scales`.
      tapped: the tensors that the weighting recorded in the forward pass.
      step: int64 [], the global step.
      sum_over_replicas: tensor -> its sum over all replicas.
    """

    tape: tf.GradientTape
    share: ObjectiveShare
    trainables: TrainableVariables
    passes: dict[tuple, list[str]]
    scales: Any
    scale_index: dict[str, int]
    tapped: tuple
    step: tf.Tensor
    sum_over_replicas: Callable

    @property
    def sources(self) -> dict[str, Any]:
        """path -> `tf.Variable` of what trains."""
        variables = self.trainables.variables
        return {path: tensor_variable(variables[path]) for path in self.trainables.owners}

    def gradients(self, share: ObjectiveShare | None = None, only=None, terms=None) -> dict:
        """path -> gradient; one pass of the tape for each set of terms that train alike.

        Args:
          share: what is differentiated; the share of the total by default.
          only: the paths that are wanted; all by default.
          terms: bool [T], the terms that count; all by default.
        """
        share = self.share if share is None else share
        gradients: dict[str, Any] = {}
        for (mask, accumulates), group in self.passes.items():
            paths = group if only is None else [path for path in group if path in only]
            mask = mask if terms is None else tuple(np.logical_and(mask, terms))
            if paths and any(mask):
                for scale, scaled_alike in self.by_scale(paths):
                    scaled = replace(share, loss_scale=scale)
                    gradients.update(self._one_pass(scaled, accumulates, mask, scaled_alike))
        return gradients

    def by_scale(self, paths: Iterable[str]) -> list[tuple[Any, list[str]]]:
        """(loss scale [], paths) of each optimizer that owns some of the paths; (None, all).

        Each has a pass of the tape to itself: a gradient that overflows under the scale of
        another optimizer cannot be brought back by a factor.
        """
        if self.scales is None:
            return [(None, list(paths))]
        by_index: dict[int, list[str]] = {}
        for path in paths:
            by_index.setdefault(self.scale_index[self.trainables.owners[path]], []).append(path)
        return [(tf.stop_gradient(self.scales[index]), mine) for index, mine in by_index.items()]

    def _one_pass(self, share: ObjectiveShare, accumulates: bool, mask, paths) -> dict:
        """path -> gradient of the share's terms in a mask, of those that they reach."""
        with self.tape:
            total = (share.accumulated() if accumulates else share).total(mask)
        sources = [tensor_variable(self.trainables.variables[path]) for path in paths]
        pairs = zip(paths, self.tape.gradient(total, sources), strict=True)
        return {path: self.signed(path, g) for path, g in pairs if g is not None}

    def signed(self, path: str, gradient):
        """A gradient of the total as an optimizer wants it: negative for what is to grow."""
        rises = getattr(self.trainables.variables[path], "maximize", False)
        return times(gradient, -1.0) if rises else gradient


def times(gradient, factor):
    """A gradient, sparse or dense, times a factor []."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(gradient.values * factor, gradient.indices, gradient.dense_shape)
    return gradient * tf.cast(factor, gradient.dtype)
