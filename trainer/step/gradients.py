"""A replica's gradients: of the total, or one row per balanced term over the shared variables."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from losses import Layout
from trainer.balancing.balancing import Balancing
from trainer.balancing.jacobian import gramian, shared_paths, stacked, term_gradients
from trainer.model.variables import tensor_variable
from trainer.optimizers.optimizers import Optimizers
from trainer.step.trainable import Trained


class Surrogate:
    """What a tape differentiates: shares whose gradients, over the replicas, are the total's.

    shares: float32 [K], each sum's part of the total; parts: the same by term, [] each, kept apart
    so that it shows which variables a term reaches; own: float32 [T], weight * raw, for the
    gradient by the weights; scale: float32 [], the loss scale, or None; counts: float32 [T],
    what the step counts in an accumulated window, or None.
    """

    def __init__(self, layout: Layout, shares, own, scale, counts, parts=()):
        self.layout = layout
        self.parts = parts
        self.shares, self.own, self.scale, self.counts = shares, own, scale, counts

    def counted(self) -> Surrogate:
        """The surrogate of an accumulated step: each term by what it counts."""
        if self.counts is None:
            return self
        return self.times(self.counts)

    def times(self, factors) -> Surrogate:
        """Each term's part times a factor [T]."""
        on_sums = tf.gather(factors, self.layout.of_sum)
        parts = [factors[i] * part for i, part in enumerate(self.parts)]
        shares, own = self.shares * on_sums, self.own * factors
        return Surrogate(self.layout, shares, own, self.scale, self.counts, parts)

    def total(self, mask=None) -> tf.Tensor:
        """The part of the total of some terms, of one at least; all by default."""
        if mask is None or all(mask):
            total = tf.reduce_sum(self.shares) + tf.reduce_sum(self.own)
        elif self.parts:  # by themselves: nothing is differentiated for the others
            chosen = tf.constant(np.flatnonzero(mask))
            total = tf.add_n([part for part, on in zip(self.parts, mask, strict=True) if on])
            total += tf.reduce_sum(tf.gather(self.own, chosen))
        else:
            part = self.times(tf.constant(np.asarray(mask, np.float32)))
            total = tf.reduce_sum(part.shares) + tf.reduce_sum(part.own)
        return total if self.scale is None else total * self.scale


class Gradients:
    """Gradients by path, of the variables that train.

    Args:
      trained: which variables train, and for which terms.
      optimizers: whose loss scales and accumulation count.
    """

    def __init__(self, trained: Trained, optimizers: Optimizers):
        self._trained = trained
        self._optimizers = optimizers

    def plain(self, tape, surrogate: Surrogate, scales, only=None, terms=None) -> dict[str, Any]:
        """path -> gradient; one pass for every set of terms that train the same groups.

        Args:
          only: the paths that are wanted; all by default.
          terms: bool [T], the terms that count; all by default.
        """
        found: dict[str, Any] = {}
        mask: tuple
        for (mask, accumulates), paths in self._trained.passes(surrogate.layout).items():
            paths = [path for path in paths if only is None or path in only]
            if not paths:
                continue
            if terms is not None:
                mask = tuple(np.logical_and(mask, terms))
            if not any(mask):
                continue
            with tape:
                total = (surrogate.counted() if accumulates else surrogate).total(mask)
            variables = [tensor_variable(self._trained.variables[path]) for path in paths]
            for path, gradient in zip(paths, tape.gradient(total, variables), strict=True):
                if gradient is not None:
                    found[path] = self._scaled(path, gradient, scales)
        return found

    def rows(self, tape, surrogate: Surrogate, scales, balancing: Balancing):
        """The balanced terms' gradients of the shared variables, and all other gradients.

        Returns:
          path -> gradient of the terms that are not balanced, and of variables that one term
          alone reaches; path -> rows [m, ...] of the shared variables.
        """
        layout = surrogate.layout
        positions = balancing.positions(layout)
        paths = list(self._trained.owners)
        passes = self._trained.passes(layout)
        kinds = {path: key for key, members in passes.items() for path in members}
        with tape:
            parts = [surrogate.parts[i] for i in positions]
            if surrogate.counts is not None:
                parts = [
                    surrogate.counts[i] * part for i, part in zip(positions, parts, strict=True)
                ]
        sources = [tensor_variable(self._trained.variables[path]) for path in paths]
        found = term_gradients(tape, parts, surrogate.scale, sources)
        reached: list[dict] = []
        for position, of_sources in zip(positions, found, strict=True):
            of_term = {}
            for path, gradient in zip(paths, of_sources, strict=True):
                trains = kinds[path][0][position]
                wanted = gradient is not None and trains
                of_term[path] = self._scaled(path, gradient, scales) if wanted else None
            reached.append(of_term)
        models = {p: self._trained.variables[p] for p in paths if p not in self._trained.parameters}
        shared = shared_paths(balancing.balancer.at, models, reached)
        others = np.ones(len(layout.names), bool)
        others[positions] = False
        gradients = self.plain(tape, surrogate, scales, only=shared, terms=others)
        gradients.update(self.plain(tape, surrogate, scales, only=set(paths) - set(shared)))
        variables = self._trained.variables
        rows = {p: stacked([of[p] for of in reached], variables[p]) for p in shared}
        return gradients, rows

    def through(self, tape, surrogate, scales, balancing, outputs, values, step, sum_over):
        """All gradients, the balanced terms weighed by their gradients of a layer's outputs.

        The replicas' outputs are other examples, so their Gramians add up.

        Args:
          outputs: the layer's outputs, watched by the tape.
          values: float32 [m], of the balanced terms.
          step: int64 [].
          sum_over: function that sums a tensor over the replicas.
        Returns:
          path -> gradient; float32 [m] factors and float64 [m, m] Gramian.
        """
        layout = surrogate.layout
        positions = balancing.positions(layout)
        parts = [surrogate.parts[i] for i in positions]
        found = term_gradients(tape, parts, None, outputs)
        rows = [
            stacked(list(of), output)
            for of, output in zip(zip(*found, strict=True), outputs, strict=True)
        ]
        inner = sum_over(gramian(rows))
        factors = balancing.when_due(step, lambda: balancing.of_gradients(inner, values, step))
        with tape:
            weighed = surrogate.times(balancing.weighted(tf.ones_like(surrogate.own), factors))
        paths = list(self._trained.owners)
        sources = [tensor_variable(self._trained.variables[path]) for path in paths]
        with tape:
            total = tf.add_n([tf.reduce_sum(output) for output in outputs])
        before = tape.gradient(total, sources)
        before = {path for path, g in zip(paths, before, strict=True) if g is not None}
        gradients = self.plain(tape, weighed, scales, only=before)
        gradients.update(self.plain(tape, surrogate, scales, only=set(paths) - before))
        return gradients, (factors, inner)

    def settle(self, gradients: dict, rows=()) -> None:
        """Keeps, among the variables that train, those with a gradient."""
        self._trained.settle({**gradients, **dict.fromkeys(rows)})

    def _scaled(self, path, gradient, scales):
        factor = -1.0 if getattr(self._trained.variables[path], "maximize", False) else None
        index = list(self._optimizers.of_group).index(self._trained.owners[path])
        if scales is not None and index:
            factor = (factor or 1.0) * scales[index] / scales[0]
        return gradient if factor is None else times(gradient, factor)


def times(gradient, factor):
    """A gradient, sparse or dense, times a factor []."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(gradient.values * factor, gradient.indices, gradient.dense_shape)
    return gradient * tf.cast(factor, gradient.dtype)
