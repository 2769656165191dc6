"""ReLoBRaLo: relative loss balancing with random lookback."""

from __future__ import annotations

import tensorflow as tf

from losses.balancing.balancer import ValuesBalancer
from losses.balancing.numerics.draws import draw_uniform
from losses.balancing.numerics.safe_math import double, finite, ratio
from losses.checks import number


class ReLoBRaLo(ValuesBalancer):
    """Weights from each loss relative to its last value, and now and then to its first.

        bal(t, t')  = m softmax(L(t) / (tau L(t')))
        history(t)  = rho w(t - 1) + (1 - rho) bal(t, 0),       rho ~ Bernoulli(beta)
        w(t)        = alpha history(t) + (1 - alpha) bal(t, t - 1),      w(0) = 1

    L(t) are the values at step t, [m]; rho is one draw for all terms. The weights sum to m.

    Args:
      alpha: float in [0, 1], how much of the past is kept.
      beta: float in [0, 1], the probability that the past is the last weights and not a lookback
        to the first step (the paper's expectation of rho).
      tau: float > 0, temperature; a larger one brings the weights closer to 1 each.
      seed: int; the draw of a step depends on (seed, step).
      every, at, terms: as in `Balancer`; the last value is that of the last balancing.
    Raises:
      ValueError: a number outside its range.
    State: float64 [m]: `weights` of the last step, `last` and `first` values, and `started`, 0
      before the first step and 1 after.
    Source: Bischof and Kraus 2021. Two losses of 0 have the ratio 1. Losses are expected to keep a
      positive sign.

    Example: no past and no lookback leaves the ratios to the last step.
      >>> balancer = ReLoBRaLo(alpha=0.0)
      >>> state = balancer.next_state(tf.constant([2.0, 4.0]), balancer.initial_state(2))
      >>> balancer.weights(tf.constant([2.0, 2.0]), state).numpy().round(3).tolist()
      [1.245, 0.755]
    """

    def __init__(
        self,
        alpha: float = 0.999,
        beta: float = 0.999,
        tau: float = 1.0,
        *,
        every: int = 1,
        seed: int = 0,
        at=None,
        terms=None,
    ):
        super().__init__(every=every, seed=seed, at=at, terms=terms)
        share = "a number from 0 to 1"
        self.alpha = number("alpha", alpha, least=0, most=1, owner=self, accepted=share)
        self.beta = number("beta", beta, least=0, most=1, owner=self, accepted=share)
        self.tau = number("tau", tau, above=0, owner=self)

    def initial_state(self, terms):
        zeros = tf.zeros([terms], tf.float64)
        return {"weights": tf.ones([terms], tf.float64)} | {
            name: zeros for name in ("last", "first", "started")
        }

    def weights(self, values, state=None, *, step=0):
        state = state or self.initial_state(double(values).shape[-1])
        return finite(self._weights(values, state, step), values)

    def _weights(self, values, state, step):
        numbers = double(values)
        last = draw_uniform([1], self.seed, step) < self.beta  # rho
        past = tf.where(last, state["weights"], self._relative(numbers, state["first"]))
        recent = self._relative(numbers, state["last"])
        mixed = self.alpha * past + (1 - self.alpha) * recent
        return tf.where(state["started"] > 0, mixed, state["weights"])

    def _relative(self, now, then):
        return now.shape[-1] * tf.nn.softmax(ratio(now, then) / self.tau)

    def next_state(self, values, state, *, step=0):
        numbers = double(values)
        return {
            "weights": self._weights(values, state, step),
            "last": numbers,
            "first": tf.where(state["started"] > 0, state["first"], numbers),
            "started": tf.ones_like(numbers),
        }

    def get_config(self):
        return {
            "alpha": self.alpha,
            "beta": self.beta,
            "tau": self.tau,
            **super().get_config(),
        }
