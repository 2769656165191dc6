"""GradDrop: in every coordinate one sign is drawn, and the gradients of the other are dropped."""

from __future__ import annotations

import tensorflow as tf

from losses.balancing.balancer import JacobianBalancer
from losses.balancing.numerics.draws import draw_uniform
from losses.checks import numbers_of_terms
from losses.errors import TermwiseError


class GradDrop(JacobianBalancer):
    """Gradient sign dropout.

        P = (1 + sum_i g_i / sum_i |g_i|) / 2,   U uniform in [0, 1), in each coordinate
        m_i = [U < P] [g_i > 0] + [U >= P] [g_i < 0]
        d = sum_i (leak_i + (1 - leak_i) m_i) g_i

    With gradients of one sign in every coordinate d is their sum.

    Args:
      leak: None (0 each), or m numbers from 0 to 1: the share of a term that is never dropped.
      every: steps between two balancings; the draw stands in between.
      seed: int; U is drawn from (seed, step), by the place in the direction.
      at, terms: as in `Balancer`, but `at` cannot be a layer.
    Raises:
      ValueError: a leak is outside [0, 1] or not one per term.
    Source: Chen et al. 2020, algorithm 1, lines 10 to 15, with the identity for f. The paper takes
      the signs of activations' gradients, summed over the batch; here they are those of the rows.

    Example: the first coordinate is 3 or -1; the others agree
      >>> d = GradDrop().direction(tf.constant([[3.0, 1.0, 0.0], [-1.0, 1.0, 2.0]])).numpy()
      >>> d[0] in (3.0, -1.0), d[1:]
      (True, array([2., 2.], dtype=float32))
    """

    def __init__(self, leak=None, *, every: int = 1, seed: int = 0, at=None, terms=None):
        super().__init__(every=every, seed=seed, at=at, terms=terms)
        if leak is not None:
            shares = "one number from 0 to 1 for each term"
            leak = numbers_of_terms("leak", leak, least=0, most=1, owner=self, accepted=shares)
        self.leak = leak

    def get_config(self) -> dict:
        return {"leak": self.leak, **super().get_config()}

    def direction(self, jacobian, state=None, *, values=None, step=0) -> tf.Tensor:
        """[n], in the dtype of `jacobian`, floating [m, n]."""
        jacobian = tf.convert_to_tensor(jacobian)
        terms = jacobian.shape[0]
        if jacobian.shape.rank != 2 or terms is None:
            raise TermwiseError(
                f"A Jacobian of shape {jacobian.shape} was given; one of shape [m, n] is needed, "
                "with one row per term."
            )
        leak = None if self.leak is None else self.per_term("leak", self.leak, terms)
        small = jacobian.dtype in (tf.float16, tf.bfloat16)
        rows = tf.cast(jacobian, tf.float32) if small else jacobian
        ups = tf.reduce_sum(tf.nn.relu(rows), axis=0)
        downs = tf.reduce_sum(tf.nn.relu(-rows), axis=0)
        purity = tf.math.divide_no_nan(ups, ups + downs)  # P, without cancellation
        draws = tf.cast(draw_uniform(tf.shape(purity), self.seed, step), rows.dtype)
        sign = tf.where(draws < purity, tf.ones_like(purity), -tf.ones_like(purity))
        passing = tf.cast(rows * sign > 0, rows.dtype)
        if leak is not None:
            leak = tf.cast(leak[:, None], rows.dtype)
            passing = leak + (1 - leak) * passing
        return tf.cast(tf.reduce_sum(passing * rows, axis=0), jacobian.dtype)
