"""Dynamic weight average (DWA): the terms that fall slower get more weight."""

from __future__ import annotations

import tensorflow as tf

from losses.balancing.balancer import ValuesBalancer
from losses.balancing.numerics.safe_math import double, finite, ratio
from losses.checks import number, whole


class DWA(ValuesBalancer):
    """Weights from how fast each loss fell over the last two periods.

        r_i = mean L_i of the last period / mean L_i of the period before
        w   = m softmax(r / T)

    L_i is the value of term i, T the temperature. The weights sum to m; they are 1 each until two
    periods are over, and stay the same during a period.

    Args:
      temperature: float > 0; a larger one brings the weights closer to 1 each.
      period: steps in a period (balancings, with `every` above 1). The paper's period is an
        epoch, which a loop of steps does not have: give the steps of one to have it.
      every, at, terms: as in `Balancer`.
    Raises:
      ValueError: a number outside its range.
    State: float64 [m] each: `total` and `count` of the running period, the means `last` and
      `before` of the periods that are over, and their number `periods`.
    Source: Liu, Johns, Davison 2019, eq. 7. A loss of 0 that stays 0 has the ratio 1. Losses are
      expected to keep a positive sign: of negative ones the falling gets more weight.

    Example: after two periods of one step, the first loss halved and the second stayed.
      >>> balancer = DWA(temperature=0.5, period=1)
      >>> state = balancer.initial_state(2)
      >>> for values in ([2.0, 1.0], [1.0, 1.0]):
      ...     state = balancer.next_state(tf.constant(values), state)
      >>> balancer.weights(tf.constant([1.0, 1.0]), state).numpy().round(3).tolist()
      [0.538, 1.462]
    """

    def __init__(
        self,
        temperature: float = 2.0,
        period: int = 100,
        *,
        every: int = 1,
        at=None,
        terms=None,
    ):
        super().__init__(every=every, at=at, terms=terms)
        self.temperature = number("temperature", temperature, above=0, owner=self)
        self.period = whole("period", period, owner=self)

    def initial_state(self, terms):
        names = ("total", "count", "last", "before", "periods")
        return {name: tf.zeros([terms], tf.float64) for name in names}

    def weights(self, values, state=None, *, step=0):
        numbers = double(values)
        terms = numbers.shape[-1]
        state = state or self.initial_state(terms)
        rates = ratio(state["last"], state["before"])
        balanced = terms * tf.nn.softmax(rates / self.temperature)
        return finite(tf.where(state["periods"] >= 2, balanced, tf.ones_like(numbers)), values)

    def next_state(self, values, state, *, step=0):
        total = state["total"] + double(values)
        count = state["count"] + 1
        over = count >= self.period
        zeros = tf.zeros_like(total)
        return {
            "total": tf.where(over, zeros, total),
            "count": tf.where(over, zeros, count),
            "last": tf.where(over, total / count, state["last"]),
            "before": tf.where(over, state["last"], state["before"]),
            "periods": state["periods"] + tf.cast(over, tf.float64),
        }

    def get_config(self):
        return {"temperature": self.temperature, "period": self.period, **super().get_config()}
