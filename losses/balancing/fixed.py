"""Fixed weights: the balancer that balances nothing, to compare the others with."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from losses.balancing.balancer import ValuesBalancer
from losses.balancing.numerics.safe_math import double, finite
from losses.errors import TermwiseError


class Fixed(ValuesBalancer):
    """The same weights at every step.

        w_i = given_i

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
            weights = tuple(float(weight) for weight in weights)
            if not weights or not np.all(np.isfinite(weights)):
                raise TermwiseError(
                    f"Fixed(weights={weights}): give one finite number for each term."
                )
        self.given = weights

    def weights(self, values, state=None, *, step=0):
        numbers = double(values)
        terms = numbers.shape[-1]
        if self.given is None:
            return finite(tf.ones_like(numbers), values)
        if len(self.given) != terms:
            raise TermwiseError(
                f"Fixed(weights=) holds {len(self.given)} numbers, but there are {terms} terms. "
                "Give one for each."
            )
        return finite(tf.constant(self.given, tf.float64), values)

    def get_config(self):
        return {"weights": self.given, **super().get_config()}
