"""Which terms pull where: norms, cosines and shares of their gradients, every so many steps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from losses.objective.layout import Layout
from trainer.balancing.balanced_terms import PLAIN
from trainer.balancing.jacobian import gramian
from trainer.data.batch import is_whole


class Diagnostics:
    """Measures the gradients of the weighted terms over all variables that train.

    Args:
      every: int, steps between two measurements; the others cost nothing.
      layout: the T terms.
      strategy: the run's strategy.
    """

    def __init__(self, every: int, layout: Layout, strategy):
        self.every = every
        self._strategy = strategy
        self.names = layout.names
        size = len(layout.names)
        self._gramian = tf.Variable(tf.zeros([size, size], tf.float64), trainable=False)
        self._at = tf.Variable(-1, dtype=tf.int64, trainable=False)

    @property
    def variables(self) -> list:
        return [self._gramian, self._at]

    def due(self, step):
        """Whether a step, counted from 0, is measured: the last of each `every`."""
        return tf.equal((step + 1) % self.every, 0)

    def measure_when_due(
        self, jacobian: Callable[[], dict], weights, step, absent, seldom: Callable
    ) -> None:
        """Keeps the Gramian of the weighted terms' gradients on a step that is due.

        Args:
          jacobian: () -> path -> [T, ...], of the raw values, summed over the replicas.
          weights: float32 [T].
          step: int64 [], counted from 0.
          absent: float32 [T], 1 where the step has nothing of a term; None: something of each.
          seldom: (function) -> what calls it in a branch that is seldom taken.
        """

        def measure():
            rows = [
                self._strategy.experimental_local_results(value)[0] for value in jacobian().values()
            ]
            scale = tf.cast(weights, tf.float64)
            inner = gramian(rows) * scale[:, None] * scale[None, :]
            if absent is not None:  # what is not there has no gradient, not one of 0
                nothing = absent > 0
                unknown = tf.constant(np.nan, inner.dtype)
                inner = tf.where(nothing[:, None] | nothing[None, :], unknown, inner)
            self._gramian.assign(inner)
            self._at.assign(step + 1)
            return tf.constant(True)

        tf.cond(self.due(step), seldom(measure), lambda: tf.constant(False))

    @property
    def size(self) -> int:
        """The length of what `packed` makes."""
        return 1 + len(self.names) ** 2

    def packed(self) -> tf.Tensor:
        """float64 [size], the last measurement: its step, and the Gramian; in a graph."""
        return tf.concat([[tf.cast(self._at, tf.float64)], tf.reshape(self._gramian, [-1])], 0)

    def _unpacked(self, packed) -> np.ndarray:
        return np.reshape(packed[1:], [len(self.names)] * 2)

    def values(self, packed: np.ndarray, first: int, last: int) -> dict[str, float]:
        """`grad_norm/*`, `grad_cosine/*`, `update_share/*`, if measured from step first to last.

        NaN, which a row writes as null, of a term that the step did not have.
        """
        if not first <= packed[0] <= last:
            return {}
        inner = self._unpacked(packed)
        norms = np.sqrt(np.maximum(np.diag(inner), 0.0))
        measured = {f"grad_norm/{n}": float(v) for n, v in zip(self.names, norms, strict=True)}
        cosines = self._cosines(inner, norms)
        pairs = [i for i, name in enumerate(self.names) if not name.startswith(PLAIN)]
        for a in pairs:
            for b in pairs:
                if a < b:
                    key = f"grad_cosine/{self.names[a]}:{self.names[b]}"
                    measured[key] = float(cosines[a, b])
        whole = np.nansum(inner)
        if whole > 0:
            shares = np.where(np.isnan(norms), np.nan, np.nansum(inner, 1) / whole)
            measured.update(
                {f"update_share/{n}": float(v) for n, v in zip(self.names, shares, strict=True)}
            )
        return measured

    @staticmethod
    def _cosines(inner, norms):
        lengths = np.outer(norms, norms)
        cosines = np.divide(inner, lengths, out=np.zeros_like(inner), where=lengths != 0)
        return np.clip(cosines, -1.0, 1.0)

    def picture(self, packed: np.ndarray) -> np.ndarray:
        """The cosines as a heat map, uint8 [height, width, 3]: blue agrees, red conflicts."""
        inner = self._unpacked(packed)
        pairs = [i for i, name in enumerate(self.names) if not name.startswith(PLAIN)]
        norms = np.sqrt(np.maximum(np.diag(inner), 0.0))
        cosines = np.nan_to_num(self._cosines(inner, norms)[np.ix_(pairs, pairs)])
        np.fill_diagonal(cosines, 1.0)
        strength = np.abs(cosines)[..., None]
        hue = np.where(cosines[..., None] >= 0, [33.0, 102.0, 172.0], [178.0, 24.0, 43.0])
        colours = 255.0 * (1 - strength) + hue * strength
        cell = max(8, 256 // max(len(pairs), 1))
        return np.kron(colours.round().astype(np.uint8), np.ones((cell, cell, 1), np.uint8))


def check_diagnostics_every(every) -> None:
    """Raises ValueError where `gradient_diagnostics_every=` is no interval, nor None."""
    if every is not None and (not is_whole(every) or every < 1):
        raise TermwiseError(
            f"gradient_diagnostics_every={every!r}: give a whole number of at least 1, or None."
        )
