"""A Gramian as norms and cosines: what the Gramian balancers compute with.

Rows of norms 1e-6 and 1e6 make a Gramian of condition 1e24, which no solver survives; their
cosines are as well conditioned as their angles allow. The constraints of the methods
(g_i . d >= 0, equal projections, shares of a bargain) can all be written in cosines.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError

_ZERO = 1e-60  # squared norm, as a share of the trace, at which a row counts as zero


class Cosines(NamedTuple):
    """G = trace * diag(norms) C diag(norms), all float64.

    Attributes:
      trace: [], the sum of the squared norms; 1 where all rows are zero.
      norms: [m], of the rows, as shares of sqrt(trace).
      inverse_norms: [m], 1 / norms, and 0 for a zero row.
      cosines: [m, m], C; symmetric, 1 on the diagonal, 0 beside it in zero rows.
      alive: bool [m], False for a zero row.
      rounding: float, how far below zero the rounding of the input may move an eigenvalue of C.
    """

    trace: tf.Tensor
    norms: tf.Tensor
    inverse_norms: tf.Tensor
    cosines: tf.Tensor
    alive: tf.Tensor
    rounding: float


def split_gramian(gramian) -> Cosines:
    """The norms and cosines of a Gramian.

    Args:
      gramian: floating [m, m], m known when traced.
    Raises:
      ValueError: it is not square, or of unknown size.

    Example:
      >>> split_gramian([[4.0, -2.0], [-2.0, 4.0]]).cosines.numpy()
      array([[ 1. , -0.5],
             [-0.5,  1. ]])
    """
    gramian = tf.convert_to_tensor(gramian)
    terms = count_terms(gramian)
    rounding = max(1e-12, 32 * float(np.finfo(gramian.dtype.as_numpy_dtype).eps))
    gramian = tf.cast(gramian, tf.float64)
    squares = tf.nn.relu(tf.linalg.diag_part(gramian))
    trace = tf.reduce_sum(squares)
    trace = tf.where(trace > 0, trace, tf.ones_like(trace))
    squares /= trace
    alive = squares > _ZERO
    norms = tf.where(alive, tf.sqrt(squares), tf.zeros_like(squares))
    inverse = tf.where(alive, 1 / tf.where(alive, norms, tf.ones_like(norms)), norms)
    cosines = inverse[:, None] * (gramian / trace) * inverse[None, :]
    cosines = tf.clip_by_value((cosines + tf.transpose(cosines)) / 2, -1.0, 1.0)
    cosines = tf.linalg.set_diag(cosines, tf.ones([terms], tf.float64))
    return Cosines(trace, norms, inverse, cosines, alive, rounding)


def count_terms(gramian: tf.Tensor) -> int:
    """The m of a Gramian [m, m]."""
    shape = gramian.shape
    if shape.rank != 2 or shape[0] is None or shape[0] != shape[1] or shape[0] < 1:
        raise TermwiseError(
            f"A Gramian of shape {shape} was given; a square one [m, m] of known size is needed, "
            "with one row per term."
        )
    return shape[0]
