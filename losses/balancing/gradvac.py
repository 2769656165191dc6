"""GradVac: gradients are turned towards each other until their usual cosine is met."""

from __future__ import annotations

import tensorflow as tf

from losses.balancing.balancer import GramianBalancer
from losses.balancing.numerics.draws import draw_orders
from losses.balancing.numerics.gramian import split_gramian
from losses.checks import number

_LARGEST_TARGET = 1 - 1e-6  # a cosine of 1 would take an infinite share of the other gradient


class GradVac(GramianBalancer):
    """Gradient vaccine.

        p_i = g_i;  for j != i in random order, with c = cos(p_i, g_j) and the target t_ij:
            if c < t_ij:
                p_i += |p_i| / |g_j| (t_ij sqrt(1 - c^2) / sqrt(1 - t_ij^2) - c) g_j
            t_ij becomes (1 - beta) t_ij + beta c
        d = sum_i p_i

    after which the cosine of p_i and g_j is t_ij. The targets start at 0, where a step is that of
    PCGrad; without conflict d is then the sum of the gradients.

    Args:
      beta: float in [0, 1], how fast the targets follow the cosines; the paper's experiments take
        0.01, TorchJD 0.5.
      every: steps between two balancings.
      seed: int; the order of each i is drawn from (seed, step).
      at, terms: as in `Balancer`.
    State:
      targets: float64 [m, m], t.
    Raises:
      ValueError: `beta` is outside [0, 1].
    Source: Wang et al. 2021, algorithm 1. Targets are held below 1 - 1e-6; TorchJD adds 1e-8
      to the denominators instead. Pairs with a zero row are left alone.

    Example:
      >>> balancer = GradVac(beta=0.5)
      >>> gramian = tf.constant([[1.0, 0.5], [0.5, 1.0]])
      >>> state = balancer.next_state(gramian, balancer.initial_state(2))
      >>> state["targets"].numpy()
      array([[0.  , 0.25],
             [0.25, 0.  ]])
    """

    def __init__(self, beta: float = 0.5, *, every: int = 1, seed: int = 0, at=None, terms=None):
        super().__init__(every=every, seed=seed, at=at, terms=terms)
        self.beta = number(
            "beta", beta, least=0, most=1, owner=self, accepted="a number from 0 to 1"
        )

    def get_config(self) -> dict:
        return {"beta": self.beta, **super().get_config()}

    def initial_state(self, terms: int) -> dict[str, tf.Tensor]:
        return {"targets": tf.zeros([terms, terms], tf.float64)}

    def weights(self, gramian, state=None, *, values=None, step=0) -> tf.Tensor:
        """[m], each at least 1."""
        gramian = tf.convert_to_tensor(gramian)
        weights, _ = self._vaccinate(gramian, state, step)
        return tf.cast(weights, gramian.dtype)

    def next_state(self, gramian, state, *, values=None, step=0) -> dict[str, tf.Tensor]:
        """The targets moved towards the cosines that were met at this step."""
        _, met = self._vaccinate(tf.convert_to_tensor(gramian), state, step)
        return {"targets": state["targets"] + self.beta * (met - state["targets"])}

    def _vaccinate(self, gramian, state, step):
        """The weights [m], and the cosines [m, m] met on the way."""
        split = split_gramian(gramian)
        terms = gramian.shape[0]
        targets = (state or self.initial_state(terms))["targets"]
        orders = draw_orders(terms, self.seed, step)
        # Row i holds p_i as a combination of unit gradients.
        parts = tf.linalg.diag(split.norms)
        itself = tf.eye(terms, dtype=tf.float64)
        present = tf.cast(split.alive, tf.float64)
        met = targets  # where no pair was visited the target stays
        for turn in range(terms):
            other = tf.one_hot(orders[:, turn], terms, dtype=tf.float64)  # j of each i
            other *= (1 - itself) * present[:, None] * present[None, :]
            products = tf.matmul(parts, split.cosines)  # p_i . g_j / |g_j|
            norms = tf.sqrt(tf.nn.relu(tf.reduce_sum(parts * products, axis=1)))
            cosine = tf.math.divide_no_nan(tf.reduce_sum(products * other, axis=1), norms)
            cosine = tf.clip_by_value(cosine, -1.0, 1.0)
            target = tf.reduce_sum(targets * other, axis=1)
            bounded = tf.clip_by_value(target, -_LARGEST_TARGET, _LARGEST_TARGET)
            sine, target_sine = tf.sqrt(1 - cosine**2), tf.sqrt(1 - bounded**2)
            share = norms * (bounded * sine - cosine * target_sine) / target_sine
            share = tf.where(cosine < bounded, share, tf.zeros_like(share))
            parts += share[:, None] * other
            met += (cosine - target)[:, None] * other
        weights = tf.reduce_sum(parts, axis=0) * split.inverse_norms
        return tf.where(split.alive, weights, tf.ones_like(weights)), met
