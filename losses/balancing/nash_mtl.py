"""Nash-MTL: the direction that the terms would agree on as bargainers."""

from __future__ import annotations

import tensorflow as tf

from losses.balancing.balancer import GramianBalancer
from losses.balancing.numerics.alpha_fair import equalize
from losses.balancing.numerics.gramian import split_gramian
from losses.checks import number


class NashMTL(GramianBalancer):
    """The Nash bargaining solution.

        G w = 1 / w elementwise, w > 0;   then w = w min(1, max_norm / |J^T w|)

    d = J^T w maximises sum_i log(g_i . d) among the directions of its length: every term gains, and
    none can gain by a factor without the others' losing more. It does not depend on the gradients'
    lengths, nor do these show in |d|, which is sqrt(m) before it is bounded: choose the learning
    rate as for a normalised gradient.

    Args:
      max_norm: float >= 0, the most that |d| may be; 0 leaves it as it is.
      every, seed, at, terms: as in `Balancer`; the method draws nothing. (`every` is
        `update_weights_every` elsewhere.)
    Raises:
      ValueError: `max_norm` is negative or not finite.
    Source: Navon et al. 2022, eq. 1 and algorithm 1; the bound as in the authors' code and TorchJD.
      These start a sequence of approximations from the last weights, and may stop early; here the
      equation is solved at every call, without state. Zero rows get the weight 0. Where a convex
      combination of the gradients is zero there is no bargain: the weights stay finite, and
      d harms no term. One term gives its own gradient, of any norm.

    Example: each orthogonal gradient gains 1 / sqrt(2) of its norm
      >>> NashMTL().weights(tf.constant([[4.0, 0.0], [0.0, 1.0]])).numpy()
      array([0.3536, 0.7071], dtype=float32)
    """

    def __init__(
        self, max_norm: float = 1.0, *, every: int = 1, seed: int = 0, at=None, terms=None
    ):
        super().__init__(every=every, seed=seed, at=at, terms=terms)
        self.max_norm = number("max_norm", max_norm, least=0.0, owner=self)

    def get_config(self) -> dict:
        return {"max_norm": self.max_norm, **super().get_config()}

    def weights(self, gramian, state=None, *, values=None, step=0) -> tf.Tensor:
        """[m], non-negative."""
        gramian = tf.convert_to_tensor(gramian)
        split = split_gramian(gramian)
        if gramian.shape[0] == 1:
            return tf.ones_like(gramian[0])
        # The equation holds for G with w where it holds for G / trace with w * sqrt(trace).
        weights = equalize(split, 1.0)
        if self.max_norm > 0:
            along = tf.linalg.matvec(split.cosines, split.norms * weights)
            norm = tf.sqrt(tf.nn.relu(tf.reduce_sum(split.norms * weights * along)))
            weights *= self.max_norm / tf.maximum(norm, self.max_norm)
        weights /= tf.sqrt(split.trace)
        return tf.cast(weights, gramian.dtype)
