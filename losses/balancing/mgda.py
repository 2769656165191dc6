"""MGDA: the shortest convex combination of the gradients."""

from __future__ import annotations

import tensorflow as tf

from losses.balancing.balancer import GramianBalancer
from losses.balancing.numerics.gramian import split_gramian
from losses.balancing.numerics.quadratic_program import solve_complementarity


class MGDA(GramianBalancer):
    """Multiple-gradient descent: the min-norm point of the gradients' convex hull.

        w = argmin w.(G w)   subject to  w >= 0, sum(w) = 1

    with G [m, m] the Gramian. The direction d = J^T w has g_i . d >= |d|^2 for every term, and is
    zero just where no direction helps all of them.

    Args:
      every, seed, at, terms: as in `Balancer`; the method draws nothing.
    Source: Désidéri 2012; Sener and Koltun 2018. TorchJD and the latter iterate (Frank-Wolfe); here
      the optimum is exact, in cosines, whatever the rows' norms: of up to twelve terms all supports
      are solved, of more one leads to the next.
      A zero row takes all the weight, as it is the shortest point; several share it.

    Example: the shorter gradient weighs more
      >>> MGDA().weights(tf.constant([[4.0, 0.0], [0.0, 1.0]])).numpy()
      array([0.2, 0.8], dtype=float32)
    """

    def __init__(self, *, every: int = 1, seed: int = 0, at=None, terms=None):
        super().__init__(every=every, seed=seed, at=at, terms=terms)

    def weights(self, gramian, state=None, *, values=None, step=0) -> tf.Tensor:
        """[m], non-negative, of sum 1."""
        gramian = tf.convert_to_tensor(gramian)
        split = split_gramian(gramian)
        # With v = w / (w.G w): G v >= 1, v >= 0, v.(G v - 1) = 0. In cosines, y = norms * v:
        # C y >= 1 / norms. Only proportions count.
        largest = tf.reduce_max(split.inverse_norms)
        offsets = split.inverse_norms / tf.where(largest > 0, largest, tf.ones_like(largest))
        y = solve_complementarity(split.cosines, -offsets[:, None], split.rounding)[:, 0]
        v = y * offsets
        dead = tf.cast(~split.alive, v.dtype)
        v = tf.where(tf.reduce_all(split.alive), v, dead)
        return tf.cast(v / tf.reduce_sum(v), gramian.dtype)
