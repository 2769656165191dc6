"""What a second-order method is: functions of a flat vector of everything that trains."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from losses.errors import TermwiseError
from trainer.data.batch import is_whole


class Point(NamedTuple):
    """A point, and the objective there.

    theta: floating [n]; value: floating [], the total; gradient: floating [n].
    beside: what else was computed there, tensors; it goes wherever the point goes.
    """

    theta: tf.Tensor
    value: tf.Tensor
    gradient: tf.Tensor
    beside: Any = ()

    def where(self, condition, other: Point) -> Point:
        """This point where a condition, bool [], holds; else another."""
        return tf.nest.map_structure(lambda a, b: tf.where(condition, a, b), self, other)


class LeastSquares(NamedTuple):
    """The total as a sum of squares: value = residuals^T residuals, [m].

    residuals: floating [m]; jacobian: floating [m, n].
    """

    residuals: tf.Tensor
    jacobian: tf.Tensor


class Function(NamedTuple):
    """What is minimised.

    at: (theta, floating [n]) -> Point.
    squares: (theta) -> LeastSquares; None where the objective is no sum of squares.
    """

    at: Callable[[tf.Tensor], Point]
    squares: Callable[[tf.Tensor], LeastSquares] | None = None


class SecondOrder(abc.ABC):
    """A second-order method, of which one iteration over the whole data is one training step.

    Attributes:
      needs_squares: whether it needs the residuals of every term and their Jacobian.
    """

    needs_squares = False

    @abc.abstractmethod
    def start(self, size: int, dtype) -> dict[str, tf.Tensor]:
        """What it remembers before its first iteration, by name; `told` is among it.

        Args:
          size: n, the numbers that train.
          dtype: of theirs.
        """

    @abc.abstractmethod
    def iterate(self, memory: dict, point: Point, function: Function) -> tuple[Point, dict]:
        """One iteration; in a graph.

        Args:
          memory: as `start` or the last iteration has left it.
          point: where it begins.
          function: what is minimised.
        Returns:
          the point it ends at, which is no higher; the memory.
        """

    @property
    @abc.abstractmethod
    def told(self) -> tuple[str, ...]:
        """The scalars of the memory that rows of the ledger show."""


def checked_count(owner, name: str, value, least: int = 1) -> int:
    """A whole number. ValueError: it is none, or too small."""
    if is_whole(value) and value >= least:
        return int(value)
    raise TermwiseError(
        f"{type(owner).__name__}({name}={value!r}): give a whole number of at least {least}."
    )


def checked_within(owner, name: str, value, low: float, high: float) -> float:
    """A number between two others. ValueError: it is none, or outside."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and math.isfinite(value) and low < value < high:
        return float(value)
    raise TermwiseError(
        f"{type(owner).__name__}({name}={value!r}): give a number above {low:g} and below {high:g}."
    )
