"""IMTL-G: the direction that advances equally along every gradient."""

from __future__ import annotations

import tensorflow as tf

from losses.balancing.balancer import GramianBalancer
from losses.balancing.numerics.eigen import eigen, solve_where
from losses.balancing.numerics.gramian import split_gramian


class IMTLG(GramianBalancer):
    """Impartial multi-task learning, the gradient half.

        w = v / sum(v),   v = pinv(G) sqrt(diag(G))

    so that g_i . d / |g_i| is the same for every term, where any d in their span can do that.
    Weights may be negative, and so may the common value: this method does not rule out conflict.

    Args:
      every, seed, at, terms: as in `Balancer`; the method draws nothing.
    Source: Liu et al. 2021; with the pseudo-inverse of Quinton and Rey 2024, as in TorchJD, for
      dependent gradients. Independent ones are solved in cosines, so that short rows keep their
      part. All weights are 0 where v sums to 0 (opposite rows), and for zero rows.

    Example: gradients of any length get the same projection
      >>> IMTLG().weights(tf.constant([[9.0, 0.0], [0.0, 1.0]])).numpy()
      array([0.25, 0.75], dtype=float32)
    """

    def __init__(self, *, every: int = 1, seed: int = 0, at=None, terms=None):
        super().__init__(every=every, seed=seed, at=at, terms=terms)

    def weights(self, gramian, state=None, *, values=None, step=0) -> tf.Tensor:
        """[m], of sum 1, or all 0."""
        gramian = tf.convert_to_tensor(gramian)
        split = split_gramian(gramian)
        terms = gramian.shape[0]
        present = tf.cast(split.alive, tf.float64)
        # With y = norms * v the equations G v = norms read C y = 1.
        least, y = _pseudo_solve(split.cosines, present, split.rounding)
        short_rows_too = y * split.inverse_norms
        relative = split.norms[:, None] * split.cosines * split.norms[None, :]
        _, dependent = _pseudo_solve(relative, split.norms, split.rounding)
        independent = least > terms * split.rounding
        v = tf.where(independent, short_rows_too, dependent) * present
        total = tf.reduce_sum(v)
        cancels = tf.abs(total) <= 1e-9 * tf.reduce_sum(tf.abs(v))
        safe = tf.where(cancels, tf.ones_like(total), total)
        return tf.cast(tf.where(cancels, tf.zeros_like(v), v / safe), gramian.dtype)


def _pseudo_solve(matrix, right, rounding: float):
    """The least eigenvalue of a symmetric [m, m] matrix, and pinv(matrix) right, [m]."""
    values, vectors = eigen(matrix)
    counts = values > rounding * tf.reduce_max(values)
    return tf.reduce_min(values), solve_where(counts, values, vectors, right)
