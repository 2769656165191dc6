"""CAGrad: the direction near the mean gradient that helps the worst term most."""

from __future__ import annotations

import tensorflow as tf

from losses.balancing.balancer import GramianBalancer
from losses.balancing.numerics.eigen import eigen, raise_eigenvalues, solve_where
from losses.balancing.numerics.gramian import split_gramian
from losses.balancing.numerics.quadratic_program import MOST_TERMS, solve_all_bases
from losses.checks import number
from losses.errors import TermwiseError


class CAGrad(GramianBalancer):
    """Conflict-averse gradient descent.

        d = argmax min_i g_i . d   subject to  |d - g0| <= c |g0|,   g0 = J^T p

    with J [m, n] the gradients, p [m] the preference, 1/m each by default. Its solution is
    d = g0 + c |g0| g_w / |g_w|, with w on the simplex and g_w = J^T w minimising
    g_w . g0 + c |g0| |g_w|. From c = 1 on, no term gets worse: g_i . d >= 0.

    Args:
      c: float >= 0; 0 is the mean gradient.
      preference: None, or m positive numbers that weigh g0.
      every, seed, at, terms: as in `Balancer`; the method draws nothing.
    Raises:
      ValueError: `c` is negative or not finite; in `weights`, there are more than 12 terms.
    Source: Liu et al. 2021, eq. 3 and algorithm 1, without its optional rescaling. The optimum is
      exact. Unlike in TorchJD: zero rows take no part in the minimum, where TorchJD would stop; at
      a Pareto-stationary point, where g_w can be zero, d keeps to the formula above (d = 0 is
      further than c |g0| from g0 for c < 1); and one term gives its own gradient, not 1 + c times.

    Example: the mean (0, 1) leaves the first term where it is
      >>> CAGrad(c=0.5).direction(tf.constant([[1.0, 0.0], [-1.0, 2.0]])).numpy()
      array([0.5, 1. ], dtype=float32)
    """

    def __init__(
        self,
        c: float = 0.5,
        *,
        preference=None,
        every: int = 1,
        seed: int = 0,
        at=None,
        terms=None,
    ):
        super().__init__(preference=preference, every=every, seed=seed, at=at, terms=terms)
        self.c = number("c", c, least=0.0, owner=self)

    def get_config(self) -> dict:
        return {"c": self.c, **super().get_config()}

    def weights(self, gramian, state=None, *, values=None, step=0) -> tf.Tensor:
        """[m], each at least the preference but where rows cancel."""
        gramian = tf.convert_to_tensor(gramian)
        split = split_gramian(gramian)
        terms = gramian.shape[0]
        if terms > MOST_TERMS:
            raise TermwiseError(
                f"{self!r} was given {terms} terms; it solves for every subset of them, and takes "
                f"at most {MOST_TERMS}. Add terms that belong together into one, or take another "
                "balancer."
            )
        preferred = self.preferred(terms)
        if terms == 1 or self.c == 0:
            return tf.cast(tf.ones_like(preferred) if terms == 1 else preferred, gramian.dtype)
        along = tf.linalg.matvec(split.cosines, split.norms * preferred)  # |g0| cos(g_i, g0)
        mean_square = tf.reduce_sum(split.norms * preferred * along)
        mean_norm = tf.sqrt(tf.maximum(mean_square, 0))
        safe = tf.where(mean_norm > 0, mean_norm, tf.ones_like(mean_norm))
        y = self._worst_case(split, along / safe)
        return tf.cast(preferred + self.c * mean_norm * y * split.inverse_norms, gramian.dtype)

    def _worst_case(self, split, along):
        """[m], y = norms * w / |g_w|, so that y.(C y) = 1; `along` is [m], cos(g_i, g0)."""
        # On the support of w: norms * (along + c C y) = a common value u, above it elsewhere.
        # So y = (u C^-1 e - C^-1 along) / c with e = 1 / norms, and y.(C y) = 1 gives u:
        #   A u^2 - 2 B u + D = c^2,  A = e.C^-1 e,  B = e.C^-1 along,  D = along.C^-1 along,
        # of which w >= 0 takes the larger root.
        largest = tf.reduce_max(split.inverse_norms)
        e = split.inverse_norms / tf.where(largest > 0, largest, tf.ones_like(largest))
        offsets = tf.stack([-e, along], axis=1)
        cosines = raise_eigenvalues(split.cosines, 0.0)
        bases = solve_all_bases(cosines, offsets, split.rounding)
        usable = tf.reduce_all(split.alive | ~bases.members, axis=1)
        members = tf.cast(bases.members, tf.float64)
        of_e, of_along = bases.solutions[..., 0], bases.solutions[..., 1]
        a = tf.reduce_sum(members * e * of_e, axis=1)
        b = -tf.reduce_sum(members * e * of_along, axis=1)
        d = -tf.reduce_sum(members * along * of_along, axis=1) - self.c**2
        discriminant = b**2 - a * d
        usable &= (discriminant >= 0) & (a > 0)
        root = tf.sqrt(tf.maximum(discriminant, 0))
        a = tf.where(a > 0, a, tf.ones_like(a))
        far = b - root
        far = tf.where(far < 0, far, -tf.ones_like(far))
        common = tf.where(b < 0, d / far, (b + root) / a)  # the two forms of the larger root
        solutions = (common[:, None] * of_e + of_along) / self.c
        checked = tf.where(split.alive, solutions, tf.zeros_like(solutions))
        worst = tf.reduce_min(checked, axis=1)
        worst = tf.where(usable, worst, tf.fill(tf.shape(worst), tf.float64.min))
        best = tf.argmax(worst)
        y = tf.nn.relu(solutions[best] * members[best])
        # Where gradients cancel, |g_w| can be 0 and y without bound. The common value u is then 0,
        # which leaves C y = -along / c, of which the shortest solution will do.
        cancelling = split.rounding * tf.reduce_sum(y**2) > 0.5
        among = cosines * members[best][:, None] * members[best][None, :]
        values, vectors = eigen(among)
        shortest = solve_where(values > 100 * split.rounding, values, vectors, along)
        return tf.where(cancelling, -shortest / self.c, y)
