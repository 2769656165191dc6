"""NTK weights of physics-informed networks: all terms converge at one rate."""

from __future__ import annotations

import tensorflow as tf

from losses.balancing.balancer import TracesBalancer
from losses.balancing.numerics.safe_math import LARGEST_SQUARE, double, finite


class NTK(TracesBalancer):
    """Weights from the traces of the terms' neural tangent kernels.

        w_i = sum_j trace(K_jj) / trace(K_ii)

    trace(K_ii) is the sum over the examples of term i of the squared norm of the gradient of that
    example's residual, where the term is a mean or sum of squared residuals. A term whose kernel
    is small trains slowly and gets more weight. One term alone has weight 1.

    A loop need not take one gradient per example. With random signs v_n, +1 or -1 with equal
    probability, the squared norm of the gradient of sum_n v_n r_n has the trace as its
    expectation (Hutchinson): one backward pass per term. This class is the function from traces to
    weights only.

    Args:
      every, at, terms: as in `Balancer`.
    Source: Wang, Yu, Perdikaris 2022, algorithm 1. A trace of 0, or below, counts as absent: its
      term has no gradient, its weight is 1.

    Example:
      >>> NTK().weights(tf.constant([1.0, 3.0])).numpy().round(3).tolist()
      [4.0, 1.333]
    """

    def __init__(self, *, every: int = 1, at=None, terms=None):
        super().__init__(every=every, at=at, terms=terms)

    def weights(self, traces, state: dict | None = None, *, values=None, step=0) -> tf.Tensor:
        """The weights, [m] in the dtype of `traces`, floating [m]."""
        numbers = tf.clip_by_value(double(traces), 0.0, LARGEST_SQUARE)
        present = numbers > 0
        total = tf.reduce_sum(numbers)
        weights = total / tf.where(present, numbers, 1.0)
        return finite(tf.where(present, weights, 1.0), traces)
