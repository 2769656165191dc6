"""The solver of Nash-MTL and FairGrad: G a = a^(-1/alpha), elementwise.

The equation says that the gradient of a strictly convex function vanishes, which Newton's
method minimises. Steps are bounded, and shortened until they do not climb.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from losses.balancing.numerics.eigen import raise_eigenvalues
from losses.balancing.numerics.gramian import Cosines

_MOST_STEPS = 200
_HALVINGS = 40
_ENOUGH = 1e-9  # relative length of a step; Newton's next one would be its square


class _Equation(NamedTuple):
    """The equation in the unknowns x, all positive: C y = scales * x^(-1/alpha), y = scales * x.

    Attributes:
      cosines: float64 [m, m], C with its eigenvalues raised to rounding.
      scales: float64 [m].
      alpha: float.
    """

    cosines: tf.Tensor
    scales: tf.Tensor
    alpha: float

    def newton_step(self, x) -> tuple[tf.Tensor, tf.Tensor]:
        """The next x, [m], and the largest relative change of a y, []."""
        y, pull = self.scales * x, self.scales * x ** (-1 / self.alpha)
        gap = tf.linalg.matvec(self.cosines, y) - pull
        curvature = pull / y / self.alpha
        # Scaled to a diagonal of 1, as curvatures differ by many powers of ten.
        roots = tf.math.rsqrt(1 + curvature)
        hessian = roots[:, None] * (self.cosines + tf.linalg.diag(curvature)) * roots[None, :]
        change = -roots * tf.linalg.solve(hessian, (roots * gap)[:, None])[:, 0]
        length = self._step_length(x, gap, change)
        moved = tf.reduce_max(tf.abs(length * change / y))
        return x + length * change / self.scales, moved

    def _step_length(self, x, gap, change):
        """The longest of some steps that stays positive and does not climb again."""
        dx = change / self.scales
        shrink = tf.reduce_max(tf.nn.relu(-dx / x))
        longest = tf.minimum(tf.ones_like(shrink), 0.99 / tf.maximum(shrink, 1e-300))
        lengths = longest * tf.pow(
            tf.constant(0.5, tf.float64), tf.range(_HALVINGS, dtype="float64")
        )
        points = x + lengths[:, None] * dx
        pulls = self.scales * points ** (-1 / self.alpha)
        gaps = tf.linalg.matvec(self.cosines, self.scales * points) - pulls
        slopes = tf.reduce_sum(gaps * change, axis=1)
        start = tf.reduce_sum(gap * change)  # below 0
        allowed = tf.where(slopes <= -0.25 * start, lengths, tf.zeros_like(lengths))
        return tf.reduce_max(allowed)


def equalize(split: Cosines, alpha: float) -> tf.Tensor:
    """The positive a with (G a)_i = a_i^(-1/alpha), where G = `split` with a trace of 1.

    It exists unless a convex combination of the gradients is zero. Then the least eigenvalues are
    lifted to rounding, so that a stays finite, with G a not below zero; if such a combination is
    most of a, it is divided by its sum, and the direction is about zero.

    Args:
      split: of the Gramian; zero rows get 0.
      alpha: float > 0.
    Returns:
      float64 [m].
    """
    # For orthogonal gradients a = norms^(-2 alpha / (1 + alpha)). The unknowns x are the ratios to
    # it: with y = scales * x, the equation reads C y = scales * x^(-1/alpha).
    ones = tf.ones_like(split.norms)
    norms = tf.where(split.alive, split.norms, ones)
    scales = norms ** ((1 - alpha) / (1 + alpha))
    equation = _Equation(raise_eigenvalues(split.cosines, split.rounding), scales, alpha)
    x, _ = tf.while_loop(
        lambda x, moved: moved > _ENOUGH,
        lambda x, moved: equation.newton_step(x),
        (ones, tf.constant(1.0, tf.float64)),
        maximum_iterations=_MOST_STEPS,
    )
    y = scales * x
    raw = tf.reduce_sum(y * tf.linalg.matvec(split.cosines, y))
    lifted = tf.reduce_sum(y * tf.linalg.matvec(equation.cosines, y))
    weights = tf.where(split.alive, y / norms, tf.zeros_like(y))
    # At a stationary point only the lift of the least eigenvalues keeps y finite.
    total = tf.reduce_sum(weights)
    total = tf.where((raw < 0.5 * lifted) & (total > 0), total, tf.ones_like(total))
    return weights / total
