"""Exact solutions of small quadratic programs: every choice of active constraints at once.

With m terms there are 2^m choices; m principal pivots, each of the whole batch, solve them all. It
is a fixed amount of work without a branch, which XLA compiles, and has no tolerance to stop at.
With more than twelve terms the choices are too many, and one leads to the next (`pivoting.py`).
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from losses.balancing.numerics.eigen import raise_eigenvalues
from losses.balancing.numerics.pivoting import find_subsets, solve_on

MOST_TERMS = 12  # of which all are tried: 2^12 subsets of 12 x 12 take some ten megabytes
_SAME_COST = 1e-13  # relative; costs of two subsets that differ by rounding
_DOUBLE = 1e-12  # regularization of a matrix that was computed in float64


class Bases(NamedTuple):
    """The solutions of all choices of active constraints.

    For a subset S of the terms: y = 0 off S, slack = 0 on S, where slack = q + M y.

    Attributes:
      members: bool [2^m, m], the subsets.
      solutions: float64 [2^m, m, r], y on S and the slack off S.
      inverses: float64 [2^m, m, m], the inverse of M_SS in the rows and columns of S, else 0.
      least: float64 [], the smallest pivot of all subsets; negative where M has a negative
        eigenvalue.
    """

    members: tf.Tensor
    solutions: tf.Tensor
    inverses: tf.Tensor
    least: tf.Tensor


def solve_all_bases(matrix, offsets, regularization: float) -> Bases:
    """Solves M y + q = slack for every subset, with M = matrix + regularization * I.

    Args:
      matrix: float64 [m, m], positive semidefinite to rounding; m at most MOST_TERMS.
      offsets: float64 [m, r], r vectors q.
      regularization: float > 0; also the least pivot.
    """
    terms, width = matrix.shape[0], matrix.shape[0] + offsets.shape[1]
    regular = matrix + regularization * tf.eye(terms, dtype=matrix.dtype)
    start = tf.tile(tf.concat([regular, offsets], axis=1)[None], [2**terms, 1, 1])
    # Computed, as XLA takes long to fold what would follow from a constant.
    places = tf.range(2**terms)[:, None] // (2 ** tf.range(terms))[None, :]
    members = places % 2 == 1

    def exchange(k, tableaus, least):
        """Swaps y_k and slack_k in slack = q + M y, where k is in the subset."""
        row = tf.gather(tableaus, k, axis=1)[:, None, :]
        column = tf.gather(tableaus, k, axis=2)[:, :, None]
        diagonal = tf.gather(row, k, axis=2)[:, :, None]
        pivot = tf.maximum(diagonal, regularization)
        in_row = (tf.range(terms) == k)[None, :, None]
        in_column = (tf.range(width) == k)[None, None, :]
        others = tf.where(in_column, column / pivot, tableaus - column * (row / pivot))
        pivot_row = tf.where(in_column, 1 / pivot, -row / pivot)
        chosen = tf.gather(members, k, axis=1)[:, None, None]
        least = tf.minimum(least, tf.reduce_min(tf.where(chosen, diagonal, least)))
        return k + 1, tf.where(chosen, tf.where(in_row, pivot_row, others), tableaus), least

    # A loop, as unrolled pivots take XLA up to a minute to compile.
    least = tf.reduce_max(tf.abs(regular))
    _, tableaus, least = tf.while_loop(
        lambda k, *_: k < terms, exchange, (tf.constant(0), start, least)
    )
    both = members[:, :, None] & members[:, None, :]
    inverses = tf.where(both, tableaus[:, :, :terms], tf.zeros([], matrix.dtype))
    return Bases(members, tableaus[:, :, terms:], inverses, least)


def solve_complementarity(matrix, offsets, regularization: float) -> tf.Tensor:
    """The y of min y.(M y) / 2 + q.y over y >= 0, for several q.

    Its conditions: y >= 0, q + M y >= 0, y.(q + M y) = 0. One subset of the terms meets them: of
    those that cost least, the one whose worst number is largest.

    Args:
      matrix: float64 [m, m], positive semidefinite to rounding, with a diagonal of about 1.
      offsets: float64 [m, r].
      regularization: float > 0, added to the diagonal so that the solution is unique; of the
        solutions of a singular program it picks the shortest, and one step of refinement takes its
        effect back to second order elsewhere.
    Returns:
      float64 [m, r], non-negative.

    Example: the middle term costs what it gains
      >>> solve_complementarity(tf.eye(3, dtype=tf.float64),
      ...     tf.constant([[-2.0], [0.0], [1.0]], tf.float64), 1e-12).numpy().round(6)[:, 0]
      array([2., 0., 0.])
    """
    size = tf.reduce_max(tf.abs(offsets), axis=0, keepdims=True)
    size = tf.where(size > 0, size, tf.ones_like(size))
    offsets = offsets / size
    if matrix.shape[0] > MOST_TERMS:
        return _by_pivoting(raise_eigenvalues(matrix, 0.0), offsets, regularization) * size
    matrix, bases = _semidefinite_bases(matrix, offsets, regularization)
    solutions = tf.transpose(bases.solutions, [2, 0, 1])  # [r, 2^m, m]
    candidates = tf.nn.relu(tf.where(bases.members, solutions, tf.zeros_like(solutions)))
    best = _best_basis(matrix, offsets, regularization, solutions, candidates)  # [r]
    y = tf.gather(candidates, best, axis=1, batch_dims=1)  # [r, m]
    gaps = tf.transpose(offsets) + tf.matmul(y, matrix)  # of the unregularized program
    y -= tf.linalg.matvec(tf.gather(bases.inverses, best), gaps)
    return tf.transpose(tf.nn.relu(y)) * size


def _by_pivoting(matrix, offsets, regularization: float) -> tf.Tensor:
    """What `solve_complementarity` returns, of a program of many terms."""
    offsets = tf.transpose(offsets)
    regular = matrix + regularization * tf.eye(matrix.shape[0], dtype=matrix.dtype)
    members = find_subsets(regular, offsets)
    y = tf.nn.relu(solve_on(members, regular, -offsets))
    gaps = offsets + tf.matmul(y, matrix)  # of the unregularized program
    return tf.transpose(tf.nn.relu(y - solve_on(members, regular, gaps)))


def _semidefinite_bases(matrix, offsets, regularization):
    """The bases of a matrix whose negative eigenvalues are raised to 0, and that matrix."""

    def raised():
        nearest = raise_eigenvalues(matrix, 0.0)
        return nearest, solve_all_bases(nearest, offsets, regularization)

    if regularization > _DOUBLE:
        return raised()
    # All pivots are positive but where M has a negative eigenvalue: then alone it is worth the
    # time, most of the solver's, to find it.
    bases = solve_all_bases(matrix, offsets, regularization)
    return tf.cond(bases.least > regularization / 2, lambda: (matrix, bases), raised)


def _best_basis(matrix, offsets, regularization, solutions, candidates):
    """[r], the place of the subset that meets the conditions, among [r, 2^m, m]."""
    # In a nearly singular program rounding moves y along what costs nothing, so that the right
    # subset need not have the largest worst number. Its cost is as good as the best, though.
    images = tf.matmul(candidates, matrix) + regularization * candidates
    costs = tf.reduce_sum(candidates * (images / 2 + tf.transpose(offsets)[:, None, :]), axis=2)
    least = tf.reduce_min(costs, axis=1, keepdims=True)
    good = costs <= least + _SAME_COST * tf.abs(least)
    worst = tf.reduce_min(solutions, axis=2)
    return tf.argmax(tf.where(good, worst, tf.fill(tf.shape(worst), worst.dtype.min)), axis=1)
