"""Gauss-Newton with Levenberg's damping, over terms that are means of squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from trainer.second_order.method import (
    Function,
    LeastSquares,
    Point,
    SecondOrder,
    checked_count,
    checked_within,
)

ENOUGH, POOR = 0.75, 0.25  # of the fall that the linear model says
LEAST, MOST = 1e-15, 1e15  # damping, relative to the mean of the diagonal


@dataclass(frozen=True, kw_only=True)
class GaussNewton(SecondOrder):
    """Levenberg and Marquardt's method, for an objective that is a sum of squares.

        total = r^T r,   (J^T J + damping * scale * I) step = -J^T r

    with the residuals r, [m], of all terms and their Jacobian J, [m, n]; scale is the mean of the
    diagonal of J^T J. A step that lowers the total is taken. The damping falls where the total
    falls as the linear model says, and rises where it does not. With fewer residuals than variables
    the same step is had from the smaller J J^T.

    Every term has to be a `losses.Squares`. Memory m * n numbers.

    Args:
      damping: at the start.
      tries: the most steps that are tried in one iteration, each with more damping.
    Raises:
      ValueError: something that cannot be one.
    Source: Nocedal and Wright 2006, section 10.3.

    Example:
      >>> GaussNewton().damping
      0.001
    """

    damping: float = 1e-3
    tries: int = 12

    needs_squares = True

    def __post_init__(self):
        checked_within(self, "damping", self.damping, 0.0, 1e15)
        checked_count(self, "tries", self.tries)

    @property
    def told(self):
        return ("damping", "evaluations")

    def start(self, size, dtype):
        return {
            "damping": tf.constant(self.damping, tf.float64),
            "evaluations": tf.zeros([], tf.float64),
            "stalled": tf.zeros([], tf.bool),
        }

    def iterate(self, memory, point, function: Function):
        if function.squares is None:
            raise ValueError("GaussNewton needs function.squares.")
        solve = _Normal.of(function.squares(point.theta))
        damping = tf.cast(memory["damping"], point.theta.dtype)
        state = _Tries(tf.zeros([], tf.int32), damping, point, tf.zeros([], tf.bool))

        def body(*state):
            return tuple(_tried(_Tries(*state), point, solve, function))

        def going(*state):
            now = _Tries(*state)
            return ~now.found & (now.count < self.tries)

        ended = _Tries(*tf.while_loop(going, body, tuple(state), parallel_iterations=1))
        after = {
            "damping": tf.cast(ended.damping, tf.float64),
            "evaluations": tf.cast(ended.count, tf.float64),
            "stalled": ~ended.found & (ended.damping >= MOST),
        }
        return ended.point, after


class _Tries(NamedTuple):
    """Where an iteration stands: the steps tried, the damping, the point, whether it is lower."""

    count: tf.Tensor
    damping: tf.Tensor
    point: Point
    found: tf.Tensor


class _Normal(NamedTuple):
    """The normal equations of a linear model, in the smaller of their two forms.

    jacobian: floating [m, n]; product: J^T J, [n, n], or J J^T, [m, m]; right: J^T r, [n];
    residuals: [m]; scale: floating [], the mean of the diagonal of J^T J.
    """

    jacobian: tf.Tensor
    product: tf.Tensor
    right: tf.Tensor
    residuals: tf.Tensor
    scale: tf.Tensor

    @classmethod
    def of(cls, squares: LeastSquares) -> _Normal:
        residuals, jacobian = squares
        m, n = jacobian.shape
        wide = m is not None and m < n
        product = tf.matmul(jacobian, jacobian, transpose_a=not wide, transpose_b=wide)
        right = tf.linalg.matvec(jacobian, residuals, transpose_a=True)
        scale = tf.linalg.trace(product) / n
        return cls(jacobian, product, right, residuals, scale)

    def step(self, damping):
        """floating [n], the step under a damping, relative to the scale; and its fall.

        The fall is that of the linear model, r^T r - |r + J step|^2.
        """
        wide = self.product.shape[0] != self.right.shape[0]
        # what is less than rounding leaves no positive definite matrix
        rounding = 4 * self.product.dtype.as_numpy_dtype(_EPSILON[self.product.dtype])
        least = rounding * self.right.shape[0]
        shift = self.scale * tf.maximum(damping, least)
        matrix = tf.linalg.set_diag(self.product, tf.linalg.diag_part(self.product) + shift)
        factor = tf.linalg.cholesky(matrix)
        right = self.residuals if wide else self.right
        solved = tf.linalg.cholesky_solve(factor, right[:, None])[:, 0]
        if wide:
            solved = tf.linalg.matvec(self.jacobian, solved, transpose_a=True)
        step = -solved
        fall = shift * tf.reduce_sum(tf.square(step)) - tf.tensordot(step, self.right, 1)
        return step, fall


_EPSILON = {tf.float64: 2.0**-52, tf.float32: 2.0**-23}


def _tried(now: _Tries, start: Point, normal: _Normal, function: Function) -> _Tries:
    """The state after one more step was tried."""
    step, fall = normal.step(now.damping)
    point = function.at(start.theta + step)
    ratio = (start.value - point.value) / fall
    found = tf.math.is_finite(point.value) & (point.value < start.value)
    factor = tf.where(ratio > ENOUGH, 1 / 3.0, tf.where(ratio > POOR, 1.0, 2.0))
    factor = tf.cast(tf.where(found, factor, 4.0), now.damping.dtype)
    damping = tf.clip_by_value(now.damping * factor, LEAST, MOST)
    return _Tries(now.count + 1, damping, point.where(found, now.point), found)
