"""FairGrad: the direction of alpha-fair gains."""

from __future__ import annotations

import tensorflow as tf

from losses.balancing.balancer import GramianBalancer
from losses.balancing.numerics.alpha_fair import equalize
from losses.balancing.numerics.gramian import split_gramian
from losses.checks import number


class FairGrad(GramianBalancer):
    """Alpha-fairness between the terms.

        G w = w^(-1/alpha) elementwise, w > 0

    d = J^T w maximises sum_i (g_i . d)^(1 - alpha) / (1 - alpha) among the directions of its
    length. alpha = 1 is proportional fairness (the equation of Nash-MTL); larger values care more
    for the term that gains least, and 0 is the mean.

    Args:
      alpha: float >= 0.
      every, seed, at, terms: as in `Balancer`; the method draws nothing.
    Raises:
      ValueError: `alpha` is negative or not finite.
    Source: Ban and Ji 2024, eq. 4. The scale of w is the equation's own: of gradients t times as
      long, w is t^(-2 alpha / (1 + alpha)) times as large. TorchJD solves by least squares to
      1e-8; here Newton's method in cosines goes to rounding. Zero rows get the weight 0. Where a
      convex combination of the gradients is zero there is no solution: the weights stay finite,
      and d harms no term. One term gives its own gradient.

    Example: 4 * 0.5 = 0.5^-1, 1 * 1 = 1^-1
      >>> FairGrad(alpha=1.0).weights(tf.constant([[4.0, 0.0], [0.0, 1.0]])).numpy()
      array([0.5, 1. ], dtype=float32)
    """

    def __init__(self, alpha: float = 2.0, *, every: int = 1, seed: int = 0, at=None, terms=None):
        super().__init__(every=every, seed=seed, at=at, terms=terms)
        self.alpha = number("alpha", alpha, least=0.0, owner=self)

    def get_config(self) -> dict:
        return {"alpha": self.alpha, **super().get_config()}

    def weights(self, gramian, state=None, *, values=None, step=0) -> tf.Tensor:
        """[m], non-negative."""
        gramian = tf.convert_to_tensor(gramian)
        split = split_gramian(gramian)
        terms = gramian.shape[0]
        if terms == 1 or self.alpha == 0:
            return tf.fill([terms], tf.constant(1.0 / terms, gramian.dtype))
        # G = trace H:  w solves for G where w trace^(alpha / (1 + alpha)) solves for H.
        scale = split.trace ** (-self.alpha / (1 + self.alpha))
        return tf.cast(equalize(split, self.alpha) * scale, gramian.dtype)
