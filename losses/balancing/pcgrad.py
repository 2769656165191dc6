"""PCGrad: gradients that conflict are projected onto each other's normal plane, then summed."""

from __future__ import annotations

import tensorflow as tf

from losses.balancing.balancer import GramianBalancer
from losses.balancing.numerics.draws import draw_orders
from losses.balancing.numerics.gramian import split_gramian


class PCGrad(GramianBalancer):
    """Projecting conflicting gradients.

        p_i = g_i;  for j != i in random order:  p_i -= min(0, p_i . g_j) / |g_j|^2 g_j
        d = sum_i p_i

    It is the sum of the gradients if none conflict. With two terms d harms neither; with more
    it may, as a later projection can undo an earlier one.

    Args:
      every: steps between two balancings.
      seed: int; the order of each i is drawn from (seed, step).
      at, terms: as in `Balancer`.
    Source: Yu et al. 2020, algorithm 1. The orders are drawn for each i, as in TorchJD. Where only
      rounding makes two rows conflict, it is treated as conflict: the difference is as small.

    Example:
      >>> PCGrad().direction(tf.constant([[1.0, 0.0], [-1.0, 2.0]])).numpy()
      array([0.8, 2.4], dtype=float32)
    """

    def __init__(self, *, every: int = 1, seed: int = 0, at=None, terms=None):
        super().__init__(every=every, seed=seed, at=at, terms=terms)

    def weights(self, gramian, state=None, *, values=None, step=0) -> tf.Tensor:
        """[m], each at least 1."""
        gramian = tf.convert_to_tensor(gramian)
        split = split_gramian(gramian)
        terms = gramian.shape[0]
        orders = draw_orders(terms, self.seed, step)
        # Row i holds p_i as a combination of unit gradients.
        parts = tf.linalg.diag(split.norms)
        itself = tf.eye(terms, dtype=tf.float64)
        for turn in range(terms):
            other = tf.one_hot(orders[:, turn], terms, dtype=tf.float64)  # j of each i
            products = tf.reduce_sum(parts * tf.matmul(other, split.cosines), axis=1)
            parts -= tf.minimum(products, 0)[:, None] * other * (1 - itself)
        weights = tf.reduce_sum(parts, axis=0) * split.inverse_norms
        return tf.cast(tf.where(split.alive, weights, tf.ones_like(weights)), gramian.dtype)
