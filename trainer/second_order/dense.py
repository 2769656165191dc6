"""BFGS with the whole inverse Hessian, self-scaled: for some thousand variables."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from losses.errors import TermwiseError
from trainer.second_order.descent import Descent
from trainer.second_order.method import Point

UPDATES = ("self_scaled_broyden", "self_scaled_bfgs", "bfgs")


@dataclass(frozen=True, kw_only=True)
class BFGS(Descent):
    """Quasi-Newton with a dense inverse Hessian H; for up to some thousand variables.

        H' = (H - H y y^T H / y^T H y + phi v v^T) / tau + s s^T / y^T s
        v = sqrt(y^T H y) (s / y^T s - H y / y^T H y)

    with the step s and the change y of the gradient. "bfgs": phi = tau = 1. "self_scaled_bfgs":
    phi = 1, and tau = min(1, y^T s / s^T B s), B the inverse of H. "self_scaled_broyden": phi and
    tau of Al-Baali and Khalfan, found best for physics-informed models.

    Args:
      update: "self_scaled_broyden", "self_scaled_bfgs" or "bfgs".
      evaluations: the most passes over the data that one iteration takes.
      slope: of the strong Wolfe conditions, between 1e-4 and 1.
    Memory and each checkpoint hold n * n numbers.
    Raises:
      ValueError: something that cannot be one.
    Source: Al-Baali and Khalfan 2005; Urban, Stefanou and Pons 2025, section 2.3.

    Example:
      >>> BFGS().update
      'self_scaled_broyden'
    """

    update: str = "self_scaled_broyden"

    def __post_init__(self):
        super().__post_init__()
        if self.update not in UPDATES:
            raise TermwiseError(
                f"BFGS(update={self.update!r}): accepted are {', '.join(map(repr, UPDATES))}."
            )

    def curvature(self, size, dtype):
        return {"inverse": tf.eye(size, dtype=dtype)}

    def preconditioned(self, memory, gradient):
        return tf.linalg.matvec(memory["inverse"], gradient)

    def learned(self, memory, step, change, length, before: Point):
        inverse, fresh = memory["inverse"], tf.equal(memory["known"], 0)
        product = tf.tensordot(step, change, 1)
        # before anything is known, the identity in the unit of the first step
        scale = tf.where(fresh, product / tf.tensordot(change, change, 1), tf.ones_like(product))
        curved = scale * tf.linalg.matvec(inverse, change)
        middle = tf.tensordot(change, curved, 1)
        bent = -length * tf.tensordot(step, before.gradient, 1)  # s^T B s
        bent = tf.where(fresh, tf.tensordot(step, step, 1) / scale, bent)
        phi, tau = self._factors(bent / product, middle / product, step.shape[0])
        # the update in terms of s and H y alone, so that n * n numbers are gone through once
        across, of_curved = -phi / (product * tau), (phi - 1) / (middle * tau)
        of_step = (phi * middle / product / tau + 1) / product
        pair = tf.stack([step, curved], 1)
        middle_factors = tf.stack([tf.stack([of_step, across]), tf.stack([across, of_curved])])
        update = tf.matmul(tf.matmul(pair, middle_factors), pair, transpose_b=True)
        return {"inverse": inverse * (scale / tau) + update}

    def _factors(self, b, h, size: int) -> tuple:
        """phi and tau.

        Args:
          b: s^T B s / y^T s; h: y^T H y / y^T s; b * h >= 1.
        """
        one = tf.ones_like(b)
        if self.update == "bfgs":
            return one, one
        if self.update == "self_scaled_bfgs":
            return one, tf.minimum(one, 1 / b)
        a = tf.maximum(b * h - 1, 1e-15 * one)
        c = tf.sqrt(a / (a + 1))
        least = tf.minimum(one, h * (1 - c))
        low, high = (least - 1) / a, 1 / least
        theta = tf.maximum(low, tf.minimum(high, (1 - b) / b))
        sigma = 1 + a * theta
        rooted = sigma ** (-1.0 / max(size - 1, 1))
        bound = tf.where(theta > 0, tf.minimum(rooted, 1 / theta), tf.minimum(rooted, sigma))
        tau = tf.minimum(one, 1 / b) * bound
        return (1 - theta) / sigma, tau
