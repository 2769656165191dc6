"""GradNorm: gradient norms of the terms that follow how fast each term trains."""

from __future__ import annotations

import tensorflow as tf

from losses.balancing.balancer import GramianBalancer
from losses.balancing.numerics.safe_math import LARGEST_SQUARE, double, finite, ratio
from losses.checks import number
from losses.errors import TermwiseError

LEAST_WEIGHT = 1e-3  # before the weights are scaled to sum to m


class GradNorm(GramianBalancer):
    """Weights trained until each term's weighted gradient norm meets its target.

        G_i      = w_i n_i,     n_i = sqrt(gramian_ii)
        target_i = mean(G) r_i^alpha,     r_i = (L_i / L_i(0)) / mean_j(L_j / L_j(0))
        w_i     <- w_i - learning_rate n_i sign(G_i - target_i) / mean(n)
        w       <- m w / sum(w)

    n_i is the norm of term i's unweighted gradient, L_i its value, L_i(0) that of the first step.
    With the targets as constants, the third line is a step down the gradient of
    sum_i |G_i - target_i|. The weights of a step come from the steps before; the first are 1.

    Args:
      alpha: float >= 0; 0 makes all norms equal, more lets slow terms have larger ones.
      learning_rate: float >= 0, of the weights.
      relative: divide the gradient by the mean norm, so that the learning rate does not
        depend on the losses' unit. The paper's equation has no such division: False.
      every, at, terms: as in `Balancer`.
    Raises:
      ValueError: a number outside its range; `next_state` without values.
    State: float64 [m]: `weights`; `first` values; `started`, 0 before the first step, 1 after.
    Source: Chen et al. 2018, algorithm 1. A weight is kept at 0.001 or more before the scaling,
      since the step may pass 0. Two losses of 0 have the ratio 1; a negative ratio counts as 0.
      The paper takes the norms over the last shared layer: give the Gramian of its gradients.

    Example: equal training rates, norms 1 and 3; the larger one loses weight.
      >>> balancer = GradNorm(learning_rate=0.1)
      >>> gramian, values = tf.constant([[1.0, 0.0], [0.0, 9.0]]), tf.constant([1.0, 1.0])
      >>> state = balancer.next_state(gramian, balancer.initial_state(2), values=values)
      >>> balancer.weights(gramian, state).numpy().round(3).tolist()   # (1.05, 0.85) 2 / 1.9
      [1.105, 0.895]
    """

    def __init__(
        self,
        alpha: float = 1.5,
        learning_rate: float = 0.025,
        *,
        relative: bool = True,
        every: int = 1,
        at=None,
        terms=None,
    ):
        super().__init__(every=every, at=at, terms=terms)
        self.alpha = number("alpha", alpha, least=0, owner=self)
        self.learning_rate = number("learning_rate", learning_rate, least=0, owner=self)
        self.relative = bool(relative)

    def initial_state(self, terms):
        zeros = tf.zeros([terms], tf.float64)
        return {"weights": tf.ones([terms], tf.float64), "first": zeros, "started": zeros}

    def weights(self, gramian, state=None, *, values=None, step=0):
        state = state or self.initial_state(double(gramian).shape[-1])
        return finite(state["weights"], gramian)

    def next_state(self, gramian, state, *, values=None, step=0):
        if values is None:
            raise TermwiseError(
                "GradNorm.next_state(values=None): it compares the losses with those of the first "
                "step. Give the terms' values."
            )
        numbers = double(values)
        norms = tf.sqrt(tf.clip_by_value(tf.linalg.diag_part(double(gramian)), 0.0, LARGEST_SQUARE))
        first = tf.where(state["started"] > 0, state["first"], numbers)
        weights = state["weights"]
        weighted = weights * norms
        targets = tf.reduce_mean(weighted) * self._rates(numbers, first) ** self.alpha
        slopes = norms * tf.sign(weighted - targets)
        if self.relative:
            slopes = tf.math.divide_no_nan(slopes, tf.reduce_mean(norms))
        moved = tf.maximum(weights - self.learning_rate * slopes, LEAST_WEIGHT)
        return {
            "weights": moved.shape[-1] * moved / tf.reduce_sum(moved),
            "first": first,
            "started": tf.ones_like(first),
        }

    def _rates(self, numbers, first):
        """float64 [m], the relative inverse training rates; their mean is 1."""
        remaining = tf.maximum(ratio(numbers, first), 0.0)
        mean = tf.reduce_mean(remaining) * tf.ones_like(remaining)
        return ratio(remaining, mean)

    def get_config(self):
        return {
            "alpha": self.alpha,
            "learning_rate": self.learning_rate,
            "relative": self.relative,
            **super().get_config(),
        }
