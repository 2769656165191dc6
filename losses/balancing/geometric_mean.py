"""The geometric loss strategy (GLS): descend the geometric mean of the losses."""

from __future__ import annotations

import tensorflow as tf

from losses.balancing.balancer import ValuesBalancer
from losses.balancing.numerics.safe_math import double, finite
from losses.checks import number


class GeometricMean(ValuesBalancer):
    """Weights whose direction is the gradient of the losses' geometric mean (GLS).

        GLS = (L_1 ... L_m)^(1/m),    w_i = dGLS / dL_i = GLS / (m L_i)

    L_i is the value of term i. The sum of w_i L_i is GLS itself, so the total in the ledger is the
    geometric mean. The direction does not depend on the unit of any loss.

    Args:
      floor: float > 0; a smaller value, zero and negative ones too, counts as this one. Its term's
        weight is then large but finite, and the total exceeds that of the formula.
      every, at, terms: as in `Balancer`.
    Raises:
      ValueError: `floor` is not positive.
    Source: Chennupati et al. 2019 (MultiNet++). The floor is ours.

    Example:
      >>> GeometricMean().weights(tf.constant([1.0, 4.0])).numpy().tolist()     # GLS = 2
      [1.0, 0.25]
    """

    def __init__(self, floor: float = 1e-12, *, every: int = 1, at=None, terms=None):
        super().__init__(every=every, at=at, terms=terms)
        self.floor = number("floor", floor, above=0, owner=self)

    def weights(self, values, state=None, *, step=0):
        logs = tf.math.log(tf.maximum(double(values), self.floor))
        return finite(tf.exp(tf.reduce_mean(logs) - logs) / logs.shape[-1], values)

    def get_config(self):
        return {"floor": self.floor, **super().get_config()}
