"""Smooth Tchebycheff scalarization (STCH): a smooth maximum of the losses."""

from __future__ import annotations

import tensorflow as tf

from losses.balancing.balancer import ValuesBalancer
from losses.balancing.numerics.safe_math import check_points, double, finite, points
from losses.checks import number


class STCH(ValuesBalancer):
    """Weights whose direction is the gradient of a smooth maximum of the losses.

        STCH = mu log sum_i exp(p_i (L_i - z_i) / mu)
        w_i  = dSTCH / dL_i = p_i softmax(p (L - z) / mu)_i

    L_i is the value of term i, p_i its preference, z_i its ideal value. The weights sum to a mean
    of the preferences: 1/m with equal ones. As mu goes to 0, the worst term alone is descended.
    The total in the ledger is the sum of w_i L_i, not STCH.

    Args:
      mu: float > 0, the smoothing; in the unit of the losses.
      ideal: the best value a term can have: None (0 each), a number, or m numbers.
      preference: None (1/m each), or m positive numbers.
      every, at, terms: as in `Balancer`.
    Raises:
      ValueError: a number outside its range; not one number for each term.
    Source: Lin et al. 2024, "Smooth Tchebycheff Scalarization". LibMTL's variant takes
      logarithms of the losses first; here the losses are taken as they are.

    Example: equal losses share equally.
      >>> STCH(mu=0.1).weights(tf.constant([3.0, 3.0])).numpy().tolist()
      [0.25, 0.25]
    """

    def __init__(
        self,
        mu: float = 1.0,
        *,
        ideal=None,
        preference=None,
        every: int = 1,
        at=None,
        terms=None,
    ):
        super().__init__(preference=preference, every=every, at=at, terms=terms)
        self.mu = number("mu", mu, above=0, owner=self)
        self.ideal = check_points(self, "ideal", ideal)

    def weights(self, values, state=None, *, step=0):
        numbers = double(values)
        terms = numbers.shape[-1]
        ideal = points(self, "ideal", self.ideal, terms)
        preference = self.preferred(terms)
        heights = preference * (numbers - ideal)
        # Centred before the division: a small mu must not overflow.
        shares = tf.nn.softmax((heights - tf.reduce_max(heights)) / self.mu)
        return finite(preference * shares, values)

    def get_config(self):
        return {"mu": self.mu, "ideal": self.ideal, **super().get_config()}
