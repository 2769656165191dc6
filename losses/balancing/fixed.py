"""Fixed weights: the balancer that balances nothing, to compare the others with."""

from __future__ import annotations

import tensorflow as tf

from losses.balancing.balancer import ValuesBalancer
from losses.balancing.numerics.safe_math import double, finite
from losses.checks import numbers_of_terms


class Fixed(ValuesBalancer):
    """The same weights at every step.

        w_i = weights_i

    Args:
      weights: m finite numbers; None is 1 each, the plain sum.
      every, at, terms: as in `Balancer`.
    Raises:
      ValueError: a number that is not finite; when called, not one number for each term.

    Example:
      >>> Fixed([1.0, 0.5]).weights(tf.constant([3.0, 4.0])).numpy().tolist()
      [1.0, 0.5]
    """

    def __init__(self, weights=None, *, every: int = 1, at=None, terms=None):
        super().__init__(every=every, at=at, terms=terms)
        if weights is not None:
            finite_numbers = "one finite number for each term"
            weights = numbers_of_terms("weights", weights, owner=self, accepted=finite_numbers)
        self.fixed = weights

    def weights(self, values, state=None, *, step=0):
        numbers = double(values)
        if self.fixed is None:
            return finite(tf.ones_like(numbers), values)
        return finite(self.per_term("weights", self.fixed, numbers.shape[-1]), values)

    def get_config(self):
        return {"weights": self.fixed, **super().get_config()}
