"""Random weights at every step (RLW)."""

from __future__ import annotations

import tensorflow as tf

from losses.balancing.balancer import ValuesBalancer
from losses.balancing.numerics.draws import draw_uniform
from losses.balancing.numerics.safe_math import double, finite
from losses.errors import TermwiseError


class RandomWeights(ValuesBalancer):
    """Random loss weighting (RLW): new weights at every step, whatever the losses are.

        normal:     w = softmax(z),  z_i ~ N(0, 1)
        dirichlet:  w ~ Dirichlet(1, ..., 1): uniform over the simplex

    The weights are positive and sum to 1; their mean is 1/m each.

    Args:
      distribution: "normal" or "dirichlet".
      seed: int; the draw of a step depends on (seed, step), so every replica and a resumed run
        draw the same.
      every, at, terms: as in `Balancer`.
    Raises:
      ValueError: another distribution.
    Source: Lin, Ye, Zhang, Tsang 2022, "Reasonable Effectiveness of Random Weighting".
      The paper tries further distributions, masks among them; these two are offered here.

    Example:
      >>> balancer = RandomWeights(seed=1)
      >>> weights = balancer.weights(tf.constant([3.0, 4.0]), step=7)
      >>> float(tf.reduce_sum(weights))
      1.0
    """

    def __init__(
        self,
        distribution: str = "normal",
        *,
        every: int = 1,
        seed: int = 0,
        at=None,
        terms=None,
    ):
        super().__init__(every=every, seed=seed, at=at, terms=terms)
        if distribution not in ("normal", "dirichlet"):
            raise TermwiseError(
                f"RandomWeights(distribution={distribution!r}): accepted are 'normal' and "
                "'dirichlet'."
            )
        self.distribution = distribution

    def weights(self, values, state=None, *, step=0):
        draws = double(draw_uniform(double(values).shape, self.seed, step))
        draws += 2.0**-25  # the middle between two multiples of 2^-24: never 0 or 1
        if self.distribution == "normal":
            # The inverse of the normal distribution function, by that of the error function.
            return finite(tf.nn.softmax(2.0**0.5 * tf.math.erfinv(2 * draws - 1)), values)
        # Exponential numbers over their sum are uniform on the simplex.
        exponential = -tf.math.log(draws)
        return finite(exponential / tf.reduce_sum(exponential), values)

    def get_config(self):
        return {"distribution": self.distribution, **super().get_config()}
