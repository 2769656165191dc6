"""SoftAdapt: weights from the slopes of the losses, in three variants."""

from __future__ import annotations

import tensorflow as tf

from losses.balancing.balancer import ValuesBalancer
from losses.balancing.numerics.safe_math import double, finite
from losses.checks import number


class SoftAdapt(ValuesBalancer):
    """A softmax of the losses' slopes: what falls slowest, or rises, gets most weight.

        s_i = L_i(t) - L_i(t - 1)
        w   = softmax(beta s)                                     original
        w_i = f_i exp(beta s_i) / sum_j f_j exp(beta s_j)         loss_weighted
        s_i / sum_j |s_j| instead of s_i                          normalized
        f_i = (L_i(t) + L_i(t - 1)) / 2

    L_i(t) is the value of term i at step t. The weights sum to 1. At the first step the slopes
    are 0 and f_i is L_i.

    Args:
      beta: float; above 0 the worst term gets most weight, below 0 the best one.
      loss_weighted: multiply by the mean values f; one below 0 counts as 0, and where all do, the
        original variant is taken.
      normalized: slopes relative to their sum, so that `beta` does not depend on the losses' unit.
      every, at, terms: as in `Balancer`; the slope is between two balancings.
    Raises:
      ValueError: `beta` is not finite.
    State: float64 [m]: `last` values; `started`, 0 before the first step and 1 after.
    Source: Heydari, Thompson, Mehmood 2019, section 3.1. The paper leaves the finite difference
      open; this one is of first order, between consecutive steps. The authors' package divides the
      slopes by their signed sum, which can be 0; the sum of sizes cannot turn them around.

    Example:
      >>> balancer = SoftAdapt(beta=1.0)
      >>> state = balancer.next_state(tf.constant([2.0, 2.0]), balancer.initial_state(2))
      >>> balancer.weights(tf.constant([1.0, 2.0]), state).numpy().round(3).tolist()
      [0.269, 0.731]
    """

    def __init__(
        self,
        beta: float = 0.1,
        *,
        loss_weighted: bool = False,
        normalized: bool = False,
        every: int = 1,
        at=None,
        terms=None,
    ):
        super().__init__(every=every, at=at, terms=terms)
        self.beta = number("beta", beta, owner=self)
        self.loss_weighted = bool(loss_weighted)
        self.normalized = bool(normalized)

    def initial_state(self, terms):
        return {name: tf.zeros([terms], tf.float64) for name in ("last", "started")}

    def weights(self, values, state=None, *, step=0):
        numbers = double(values)
        state = state or self.initial_state(numbers.shape[-1])
        slopes = (numbers - state["last"]) * state["started"]
        if self.normalized:
            slopes = tf.math.divide_no_nan(slopes, tf.reduce_sum(tf.abs(slopes)))
        weights = tf.nn.softmax(self.beta * slopes)
        if self.loss_weighted:
            # Relative to the largest, so that the product cannot overflow.
            means = tf.where(state["started"] > 0, (numbers + state["last"]) / 2, numbers)
            sizes = tf.maximum(means, 0.0)
            scaled = weights * tf.math.divide_no_nan(sizes, tf.reduce_max(sizes))
            total = tf.reduce_sum(scaled)
            weights = tf.where(total > 0, tf.math.divide_no_nan(scaled, total), weights)
        return finite(weights, values)

    def next_state(self, values, state, *, step=0):
        numbers = double(values)
        return {"last": numbers, "started": tf.ones_like(numbers)}

    def get_config(self):
        return {
            "beta": self.beta,
            "loss_weighted": self.loss_weighted,
            "normalized": self.normalized,
            **super().get_config(),
        }
