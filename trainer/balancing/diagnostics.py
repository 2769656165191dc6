"""Which terms pull where: norms, cosines and shares of their gradients, every so many steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from trainer.balancing.balancing import PLAIN
from trainer.balancing.jacobian import gramian


class Diagnostics:
    """Measures the gradients of the weighted terms over all variables that train.

    Args:
      every: int, steps between two measurements; the others cost nothing.
      strategy: the run's strategy.
    Raises:
      ValueError: `every` is no whole number of at least 1.
    """

    def __init__(self, every: int, strategy):
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise TermwiseError(
                f"gradient_diagnostics_every={every!r}: give a whole number of at least 1, or None."
            )
        self.every = every
        self._strategy = strategy
        self._names: tuple[str, ...] = ()
        self._inner: Any = None  # made by build
        self._at: Any = None

    @classmethod
    def make(cls, every: int | None, strategy) -> Diagnostics | None:
        """None for None."""
        return None if every is None else cls(every, strategy)

    def build(self, layout) -> None:
        """Makes the variables that hold the last measurement."""
        self._names = layout.names
        size = len(layout.names)
        self._inner = tf.Variable(tf.zeros([size, size], tf.float64), trainable=False)
        self._at = tf.Variable(-1, dtype=tf.int64, trainable=False)

    @property
    def variables(self) -> list:
        return [] if self._inner is None else [self._inner, self._at]

    def due(self, step):
        """Whether a step, counted from 0, is measured: the last of each `every`."""
        return tf.equal((step + 1) % self.every, 0)

    def measure(self, rows: dict, weights, step) -> None:
        """Keeps the Gramian of the weighted terms' gradients, in cross-replica context.

        Args:
          rows: path -> [terms, ...], of the raw values, summed over the replicas.
          weights: float32 [terms].
          step: int64 [], counted from 0.
        """
        local = [self._strategy.experimental_local_results(row)[0] for row in rows.values()]
        weights = tf.cast(weights, tf.float64)[: len(self._names)]
        inner = gramian(local)[: len(self._names), : len(self._names)]
        self._inner.assign(inner * weights[:, None] * weights[None, :])
        self._at.assign(step + 1)

    @property
    def size(self) -> int:
        """The length of what `packed` makes."""
        return 1 + len(self._names) ** 2

    def packed(self) -> tf.Tensor:
        """float64 [size], the last measurement: its step, and the Gramian; in a graph."""
        return tf.concat([[tf.cast(self._at, tf.float64)], tf.reshape(self._inner, [-1])], 0)

    def _gramian(self, packed) -> np.ndarray:
        return np.reshape(packed[1:], [len(self._names)] * 2)

    def values(self, packed: np.ndarray, first: int, last: int) -> dict[str, float]:
        """`grad_norm/*`, `grad_cosine/*`, `update_share/*`, if measured from step first to last."""
        if not first <= packed[0] <= last:
            return {}
        inner = self._gramian(packed)
        norms = np.sqrt(np.maximum(np.diag(inner), 0.0))
        found = {f"grad_norm/{n}": float(v) for n, v in zip(self._names, norms, strict=True)}
        cosines = self._cosines(inner, norms)
        pairs = [i for i, name in enumerate(self._names) if not name.startswith(PLAIN)]
        for a in pairs:
            for b in pairs:
                if a < b:
                    key = f"grad_cosine/{self._names[a]}:{self._names[b]}"
                    found[key] = float(cosines[a, b])
        whole = inner.sum()
        if whole > 0:
            shares = inner.sum(1) / whole
            found.update(
                {f"update_share/{n}": float(v) for n, v in zip(self._names, shares, strict=True)}
            )
        return found

    @staticmethod
    def _cosines(inner, norms):
        with np.errstate(divide="ignore", invalid="ignore"):
            cosines = inner / np.outer(norms, norms)
        return np.clip(np.nan_to_num(cosines, nan=0.0, posinf=0.0, neginf=0.0), -1.0, 1.0)

    def picture(self, packed: np.ndarray) -> np.ndarray:
        """The cosines as a heat map, uint8 [height, width, 3]: blue agrees, red conflicts."""
        inner = self._gramian(packed)
        pairs = [i for i, name in enumerate(self._names) if not name.startswith(PLAIN)]
        norms = np.sqrt(np.maximum(np.diag(inner), 0.0))
        cosines = self._cosines(inner, norms)[np.ix_(pairs, pairs)]
        np.fill_diagonal(cosines, 1.0)
        strength = np.abs(cosines)[..., None]
        hue = np.where(cosines[..., None] >= 0, [33.0, 102.0, 172.0], [178.0, 24.0, 43.0])
        colours = 255.0 * (1 - strength) + hue * strength
        cell = max(8, 256 // max(len(pairs), 1))
        return np.kron(colours.round().astype(np.uint8), np.ones((cell, cell, 1), np.uint8))
