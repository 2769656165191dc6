"""Aligned-MTL: the gradients' principal components, all made equally long."""

from __future__ import annotations

import tensorflow as tf

from losses.balancing.balancer import GramianBalancer
from losses.balancing.numerics.eigen import eigen
from losses.balancing.numerics.gramian import split_gramian
from losses.errors import TermwiseError

_SCALES = ("min", "median", "rmse")


class AlignedMTL(GramianBalancer):
    """Independent component alignment.

        w = sqrt(s) V diag(lambda)^(-1/2) V^T p,   G = V diag(lambda) V^T

    over the eigenvalues lambda of the Gramian G [m, m] that are above rounding; p [m] is the
    preference, 1/m each by default. The new gradients, of which J^T w is the preferred mean, are
    the orthogonal ones of length sqrt(s) that are nearest to the old ones.

    Args:
      scale: "min", the least of these eigenvalues, as in the paper; "median", the lower one
        of the two in the middle; "rmse", the mean, as in the authors' code.
      preference: None, or m positive numbers, taken as they are.
      every, seed, at, terms: as in `Balancer`; the method draws nothing.
    Raises:
      ValueError: another scale.
    Source: Senushkin et al. 2023, algorithm 1; modes as in TorchJD. Eigenvalues below 1e-12 of the
      largest (4e-6 for a float32 Gramian, whose rounding is as large) count as zero. Rows shorter
      than that are lost in it.

    Example: both gradients as long as the shorter one
      >>> AlignedMTL().weights(tf.constant([[4.0, 0.0], [0.0, 1.0]])).numpy()
      array([0.25, 0.5 ], dtype=float32)
    """

    def __init__(
        self,
        scale: str = "min",
        *,
        preference=None,
        every: int = 1,
        seed: int = 0,
        at=None,
        terms=None,
    ):
        super().__init__(preference=preference, every=every, seed=seed, at=at, terms=terms)
        if scale not in _SCALES:
            raise TermwiseError(
                f"AlignedMTL(scale={scale!r}): give one of {', '.join(map(repr, _SCALES))}."
            )
        self.scale = scale

    def get_config(self) -> dict:
        return {"scale": self.scale, **super().get_config()}

    def weights(self, gramian, state=None, *, values=None, step=0) -> tf.Tensor:
        """[m]; may be negative."""
        gramian = tf.convert_to_tensor(gramian)
        split = split_gramian(gramian)
        preferred = self.preferred(gramian.shape[0])
        relative = split.norms[:, None] * split.cosines * split.norms[None, :]
        eigenvalues, vectors = eigen(relative)
        counts = eigenvalues > split.rounding * tf.reduce_max(eigenvalues)
        scale = self._scale_of(eigenvalues, counts)
        # All zero: no eigenvalue counts, and nothing matters.
        factors = tf.sqrt(scale / tf.where(counts, eigenvalues, tf.ones_like(eigenvalues)))
        factors = tf.where(counts, factors, tf.zeros_like(factors))
        parts = factors * tf.linalg.matvec(vectors, preferred, transpose_a=True)
        weights = tf.linalg.matvec(vectors, parts)
        weights = tf.where(tf.reduce_any(split.alive), weights, preferred)
        return tf.cast(weights, gramian.dtype)

    def _scale_of(self, eigenvalues, counts):
        """[], of those that count among ascending eigenvalues [m]."""
        terms = eigenvalues.shape[0]
        rank = tf.reduce_sum(tf.cast(counts, tf.int32))
        if self.scale == "rmse":
            total = tf.reduce_sum(tf.where(counts, eigenvalues, tf.zeros_like(eigenvalues)))
            return total / tf.cast(tf.maximum(rank, 1), tf.float64)
        above = (rank - 1) // 2 if self.scale == "median" else 0
        place = tf.minimum(terms - rank + above, terms - 1)
        return tf.nn.relu(tf.gather(tf.sort(eigenvalues), place))
