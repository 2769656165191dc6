"""Learning-rate annealing of physics-informed networks: gradients brought to one size."""

from __future__ import annotations

import tensorflow as tf

from losses.balancing.balancer import JacobianWeightsBalancer
from losses.balancing.numerics.safe_math import LARGEST, double, finite
from losses.checks import number, whole
from losses.errors import TermwiseError


class LearningRateAnnealing(JacobianWeightsBalancer):
    """Weights that bring each term's mean gradient to the largest one of a reference term.

        new_i = max|g_ref| / mean|w_i g_i|
        w_i  <- alpha w_i + (1 - alpha) new_i,      w_ref = 1

    g_i is the gradient of term i, max and mean are over its entries; the reference is
    the residual of the equation, usually. With unchanged gradients w_i goes to
    sqrt(max|g_ref| / mean|g_i|). A step uses the weights that its own gradients moved.

    Args:
      alpha: float in [0, 1), the share of the old weight.
      update_every: steps between two changes of the weights, which stay in between; it is `every`
        of the base class.
      reference: the place of the term whose weight stays 1.
      at, terms: as in `Balancer`, but `at` cannot be a layer.
    Raises:
      ValueError: a number outside its range; a reference that is no term.
    State: float64 [m] `weights`, 1 each at the start.
    Source: Wang, Teng, Perdikaris 2021. As in the authors' code, alpha is the share of the old
      weight and the mean is of the weighted gradient. That code averages the means of the layers'
      kernels; here the mean is over all entries. A term without gradient keeps its weight; all
      do where the reference has none. A new weight is kept between 1e-30 and 1e30.

    Example: the first moves from 1 by a tenth of the way to max|g_0| / mean|g_1| = 8.
      >>> jacobian = tf.constant([[4.0, -1.0], [0.5, 0.5]])
      >>> balancer = LearningRateAnnealing(alpha=0.9)
      >>> balancer.weights(jacobian).numpy().round(3).tolist()
      [1.0, 1.7]
      >>> balancer.direction(jacobian).numpy().round(3).tolist()     # 1 g_0 + 1.7 g_1
      [4.85, -0.15]
    """

    def __init__(
        self,
        alpha: float = 0.9,
        update_every: int = 1,
        *,
        reference: int = 0,
        at=None,
        terms=None,
    ):
        every = whole("update_every", update_every, owner=self)
        super().__init__(every=every, at=at, terms=terms)
        self.alpha = number("alpha", alpha, least=0, owner=self)
        if self.alpha >= 1:
            raise TermwiseError(
                f"LearningRateAnnealing(alpha={alpha!r}): give a number below 1; 1 never moves."
            )
        self.reference = whole(
            "reference", reference, 0, owner=self, accepted="a term's place, from 0"
        )

    def initial_state(self, terms):
        return {"weights": tf.ones([terms], tf.float64)}

    def from_statistics(self, maxima, means, state=None) -> tf.Tensor:
        """The weights from what they need of the gradients, without a Jacobian.

        Args:
          maxima: floating [m], max|g_i|; only that of the reference is read.
          means: floating [m], mean|g_i|, of the unweighted gradients.
          state: of `initial_state` or `next_state`; None is the initial one.
        Returns:
          float64 [m]; {"weights": it} is the next state.
        """
        maxima, means = double(maxima), double(means)
        terms = means.shape[-1]
        if self.places is None and self.reference >= terms:
            raise TermwiseError(
                f"LearningRateAnnealing(reference={self.reference}): there are {terms} terms, "
                "counted from 0."
            )
        weights = (state or self.initial_state(terms))["weights"]
        places = tf.range(terms) if self.places is None else self.places
        reference = tf.equal(places, self.reference)
        largest = tf.reduce_max(tf.where(reference, maxima, tf.zeros_like(maxima)))  # 0 without it
        sizes = weights * means
        known = (sizes > 0) & (largest > 0)
        aims = tf.clip_by_value(largest / tf.where(known, sizes, 1.0), 1 / LARGEST, LARGEST)
        moved = self.alpha * weights + (1 - self.alpha) * aims
        unmoved = ~known | reference
        return tf.where(unmoved, weights, moved)

    def weights(self, jacobian, state: dict | None = None, *, values=None, step=0) -> tf.Tensor:
        """The weights of a step, [m] in the dtype of `jacobian`, floating [m, n]."""
        return finite(self.from_statistics(*self.statistics(jacobian), state), jacobian)

    def next_state(self, jacobian, state: dict, *, values=None, step=0) -> dict[str, tf.Tensor]:
        """The state after a step with this Jacobian."""
        return {"weights": self.from_statistics(*self.statistics(jacobian), state)}

    def direction(self, jacobian, state: dict | None = None, *, values=None, step=0) -> tf.Tensor:
        """[n] in the dtype of `jacobian`: weights @ jacobian."""
        weights = self.from_statistics(*self.statistics(jacobian), state)
        return finite(tf.linalg.matvec(double(jacobian), weights, transpose_a=True), jacobian)

    @staticmethod
    def statistics(jacobian) -> tuple[tf.Tensor, tf.Tensor]:
        """(maxima, means), float64 [m] each, of the sizes of each row's entries."""
        sizes = tf.abs(double(jacobian))
        return tf.reduce_max(sizes, axis=-1), tf.reduce_mean(sizes, axis=-1)

    def get_config(self):
        return {
            "alpha": self.alpha,
            "update_every": self.every,
            "reference": self.reference,
            **super().get_config(),
        }
