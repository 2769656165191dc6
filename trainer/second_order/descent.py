"""Methods that go along a direction by a line search: what quasi-Newton methods share."""

from __future__ import annotations

import abc
from dataclasses import dataclass

import tensorflow as tf

from trainer.second_order.line_search import Wolfe, search
from trainer.second_order.method import (
    Point,
    SecondOrder,
    checked_count,
    checked_within,
)

DECREASE = 1e-4  # of the strong Wolfe conditions


@dataclass(frozen=True, kw_only=True)
class Descent(SecondOrder):
    """A quasi-Newton method; subclasses say what they learn of the curvature.

    Attributes:
      evaluations: the most passes over the data that one iteration takes.
      slope: of the strong Wolfe conditions.
    """

    evaluations: int = 25
    slope: float = 0.9

    def __post_init__(self):
        checked_count(self, "evaluations", self.evaluations, 2)
        checked_within(self, "slope", self.slope, DECREASE, 1.0)

    @property
    def told(self):
        return ("step_length", "evaluations")

    @abc.abstractmethod
    def curvature(self, size: int, dtype) -> dict[str, tf.Tensor]:
        """What is known of the curvature at the start: nothing."""

    @abc.abstractmethod
    def preconditioned(self, memory: dict, gradient) -> tf.Tensor:
        """floating [n], the inverse Hessian times a gradient; the gradient where none is known."""

    @abc.abstractmethod
    def learned(self, memory: dict, step, change, length, before: Point) -> dict[str, tf.Tensor]:
        """The curvature after a step.

        Args:
          step, change: floating [n], of theta and of the gradient; step^T change > 0.
          length: floating [], along the direction.
          before: where the step began.
        """

    def start(self, size, dtype):
        numbers = {name: tf.zeros([], tf.float64) for name in self.told}
        counts = {"known": tf.zeros([], tf.int64), "stalled": tf.zeros([], tf.bool)}
        return {**self.curvature(size, dtype), **numbers, **counts}

    def iterate(self, memory, point, function):
        """One direction, one line search; the steepest descent where that finds no decrease."""
        dtype = point.theta.dtype
        fresh = tf.equal(memory["known"], 0)
        direction = -self.preconditioned(memory, point.gradient)
        # the first direction is the gradient, whose length says nothing of the step's
        one, norm = tf.ones([], dtype), tf.norm(point.gradient)
        first = tf.where(fresh, tf.minimum(one, tf.math.divide_no_nan(one, norm)), one)
        wolfe = Wolfe(DECREASE, self.slope, self.evaluations)
        found = search(function.at, point, direction, first, wolfe)
        moved = found.length > 0
        step, change = found.point.theta - point.theta, found.point.gradient - point.gradient
        curved = moved & (tf.tensordot(step, change, 1) > 0)
        size = point.theta.shape[0]
        # where no decrease is found along it, what was learned is forgotten
        curvature = tf.case(
            [
                (curved, lambda: self.learned(memory, step, change, found.length, point)),
                (moved, lambda: {name: memory[name] for name in self.curvature(0, dtype)}),
            ],
            default=lambda: self.curvature(size, dtype),
        )
        known = tf.where(moved, memory["known"], 0) + tf.cast(curved, tf.int64)
        after = {
            "known": known,
            "step_length": tf.cast(found.length, tf.float64),
            "evaluations": tf.cast(found.evaluations, tf.float64),
            "stalled": ~moved & fresh,
        }
        return found.point, {**curvature, **after}
