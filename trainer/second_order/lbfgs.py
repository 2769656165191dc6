"""Limited-memory BFGS: the inverse Hessian from the last few steps."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from trainer.second_order.descent import Descent
from trainer.second_order.method import Point, checked_count


@dataclass(frozen=True, kw_only=True)
class LBFGS(Descent):
    """Limited-memory BFGS with a strong-Wolfe line search; for many variables.

        direction = -H gradient,    H from the last `pairs` steps s and changes y of the gradient

    Args:
      pairs: how many steps it remembers; memory 2 * pairs * n numbers.
      evaluations: the most passes over the data that one iteration takes.
      slope: of the strong Wolfe conditions, between 1e-4 and 1.
    Raises:
      ValueError: something that cannot be one.
    Source: Nocedal and Wright 2006, algorithms 7.4 and 7.5.

    Example:
      >>> LBFGS(pairs=20).pairs
      20
    """

    pairs: int = 50

    def __post_init__(self):
        super().__post_init__()
        checked_count(self, "pairs", self.pairs)

    def curvature(self, size, dtype):
        pairs = tf.zeros([self.pairs, size], dtype)
        return {"steps": pairs, "changes": pairs}

    def preconditioned(self, memory, gradient):
        steps, changes = memory["steps"], memory["changes"]
        products = tf.reduce_sum(steps * changes, 1)
        rho = tf.math.divide_no_nan(tf.ones_like(products), products)  # 0 where there is no pair
        factors = [tf.zeros([], gradient.dtype)] * self.pairs
        vector = gradient
        for i in reversed(range(self.pairs)):
            factors[i] = rho[i] * tf.tensordot(steps[i], vector, 1)
            vector -= factors[i] * changes[i]
        last = tf.reduce_sum(tf.square(changes[-1]))
        vector *= tf.where(last > 0, tf.math.divide_no_nan(products[-1], last), 1.0)
        for i in range(self.pairs):
            other = rho[i] * tf.tensordot(changes[i], vector, 1)
            vector += (factors[i] - other) * steps[i]
        return vector

    def learned(self, memory, step, change, length, before: Point):
        steps = tf.concat([memory["steps"][1:], step[None]], 0)
        return {"steps": steps, "changes": tf.concat([memory["changes"][1:], change[None]], 0)}
