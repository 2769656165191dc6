"""UPGrad and dual projection: gradients projected onto the cone where no term gets worse."""

from __future__ import annotations

import tensorflow as tf

from losses.balancing.balancer import GramianBalancer
from losses.balancing.numerics.gramian import Cosines, split_gramian
from losses.balancing.numerics.quadratic_program import solve_complementarity


class UPGrad(GramianBalancer):
    """Each gradient projected so that it harms no term, then the projections summed.

        d = sum_i p_i proj(g_i),   proj(x) = argmin |d - x|  subject to  g_j . d >= 0 for all j

    with the preference p [m]. Every projection, hence d, has g_j . d >= 0; without conflict d is
    the preferred mean. Among the ways to get there it is the one that is linear in the scale of
    every gradient.

    Args:
      preference: None (1/m each), or m positive numbers, taken as they are.
      every, seed, at, terms: as in `Balancer`; the method draws nothing.
    Source: Quinton and Rey 2024, eq. 5. TorchJD adds 1e-4 to the diagonal of the Gramian, which is
      seen in small or nearly opposite gradients; here the projections are exact.

    Example: the second gradient is turned until it is orthogonal to the first, and vice versa
      >>> UPGrad().direction(tf.constant([[1.0, 0.0], [-1.0, 2.0]])).numpy()
      array([0.4, 1.2], dtype=float32)
    """

    def __init__(self, *, preference=None, every: int = 1, seed: int = 0, at=None, terms=None):
        super().__init__(preference=preference, every=every, seed=seed, at=at, terms=terms)

    def weights(self, gramian, state=None, *, values=None, step=0) -> tf.Tensor:
        """[m], each at least the preference."""
        gramian = tf.convert_to_tensor(gramian)
        split = split_gramian(gramian)
        points = tf.linalg.diag(self.preferred(gramian.shape[0]))
        return tf.cast(tf.reduce_sum(project(split, points), axis=0), gramian.dtype)


class DualProjection(GramianBalancer):
    """The preferred mean of the gradients, projected so that it harms no term.

        d = argmin |d - J^T p|^2   subject to  g_i . d >= 0 for all i

    with J [m, n] the gradients and the preference p [m]. Without conflict d is the mean.

    Args:
      preference: None (1/m each), or m positive numbers, taken as they are.
      every, seed, at, terms: as in `Balancer`; the method draws nothing.
    Source: Lopez-Paz and Ranzato 2017 (GEM), eq. 11; `DualProj` in TorchJD, which adds 1e-4 to the
      diagonal of the Gramian; here the projection is exact.

    Example: the mean (0, 1) already helps both
      >>> DualProjection().direction(tf.constant([[1.0, 0.0], [-1.0, 2.0]])).numpy()
      array([0., 1.], dtype=float32)
    """

    def __init__(self, *, preference=None, every: int = 1, seed: int = 0, at=None, terms=None):
        super().__init__(preference=preference, every=every, seed=seed, at=at, terms=terms)

    def weights(self, gramian, state=None, *, values=None, step=0) -> tf.Tensor:
        """[m], each at least the preference."""
        gramian = tf.convert_to_tensor(gramian)
        split = split_gramian(gramian)
        points = self.preferred(gramian.shape[0])[None]
        return tf.cast(project(split, points)[0], gramian.dtype)


def project(split: Cosines, points) -> tf.Tensor:
    """The weights of the projections of J^T u onto the cone {d: J d >= 0}.

    By duality they are the v of least v.(G v) with v >= u.

    Args:
      split: of the Gramian.
      points: float64 [r, m], weights u, one vector to project per row.
    Returns:
      float64 [r, m], v.
    """
    # v = u + y / norms: min y.(C y) / 2 + y.(C (norms * u)), y >= 0.
    offsets = tf.matmul(split.cosines, points * split.norms, transpose_b=True)
    y = solve_complementarity(split.cosines, offsets, split.rounding)
    return points + tf.transpose(y) * split.inverse_norms
