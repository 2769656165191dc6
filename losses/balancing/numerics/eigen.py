"""Eigenvalues and eigenvectors of a small symmetric matrix, to rounding under XLA too."""

from __future__ import annotations

import tensorflow as tf


def eigen(matrix) -> tuple[tf.Tensor, tf.Tensor]:
    """As `tf.linalg.eigh`, which under XLA stops at about 1e-8; two steps of Newton add the rest.

    Args:
      matrix: float64 [m, m], symmetric.
    Returns:
      float64 [m], about ascending, and [m, m], with the eigenvectors as columns.

    Example:
      >>> values, _ = eigen(tf.constant([[2.0, 1.0], [1.0, 2.0]], tf.float64))
      >>> values.numpy().round(12)
      array([1., 3.])
    """
    _, vectors = tf.linalg.eigh(matrix)
    for _ in range(2):
        vectors = _orthonormal(vectors)
        rotated = tf.matmul(vectors, tf.matmul(matrix, vectors), transpose_a=True)
        diagonal = tf.linalg.diag_part(rotated)
        rest = tf.linalg.set_diag(rotated, tf.zeros_like(diagonal))
        gaps = diagonal[None, :] - diagonal[:, None]
        # Vectors of eigenvalues this close may mix: functions of the matrix do not see it.
        distinct = tf.abs(gaps) > 1e3 * tf.reduce_max(tf.abs(rest))
        turns = tf.where(distinct, rest / tf.where(distinct, gaps, tf.ones_like(gaps)), 0 * rest)
        vectors = _orthonormal(vectors + tf.matmul(vectors, turns))
    values = tf.reduce_sum(vectors * tf.matmul(matrix, vectors), axis=0)
    return values, vectors


def raise_eigenvalues(matrix, least: float) -> tf.Tensor:
    """The symmetric matrix [m, m] with its eigenvalues below `least` raised to it.

    A Gramian that was computed in float32 may have eigenvalues as low as -1e-6, whatever its dtype
    is now, along which a quadratic program has no minimum.
    """
    values, vectors = eigen(matrix)
    # Added to the matrix, so that nothing is lost where nothing is to be raised.
    return matrix + tf.matmul(vectors * tf.nn.relu(least - values), vectors, transpose_b=True)


def solve_where(counts, values, vectors, right) -> tf.Tensor:
    """The pseudo-inverse of a symmetric matrix times a vector, of the eigenvalues that count.

    Args:
      counts: bool [m]; an eigenvalue that does not count is taken as 0.
      values, vectors: of `eigen`.
      right: float64 [m].
    Returns:
      float64 [m].
    """
    inverses = tf.where(counts, 1 / tf.where(counts, values, tf.ones_like(values)), 0 * values)
    return tf.linalg.matvec(vectors, inverses * tf.linalg.matvec(vectors, right, transpose_a=True))


def _orthonormal(vectors):
    """The nearest orthogonal matrix to one that nearly is (Newton and Schulz)."""
    square = tf.matmul(vectors, vectors, transpose_a=True)
    return 1.5 * vectors - 0.5 * tf.matmul(vectors, square)
