"""A line search for the strong Wolfe conditions, in a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from trainer.second_order.method import Point


class Wolfe(NamedTuple):
    """The strong Wolfe conditions on a step length a along a direction p.

        f(a) <= f(0) + decrease * a * f'(0)         f'(a) = gradient(theta + a p)^T p
        |f'(a)| <= slope * |f'(0)|

    decrease, slope: 0 < decrease < slope < 1.
    evaluations: the most that one search takes.
    """

    decrease: float = 1e-4
    slope: float = 0.9
    evaluations: int = 25


class _End(NamedTuple):
    """An end of the interval: step length, value and slope there, each floating []."""

    length: tf.Tensor
    value: tf.Tensor
    slope: tf.Tensor

    def where(self, condition, other: _End) -> _End:
        return _End(*(tf.where(condition, a, b) for a, b in zip(self, other, strict=True)))


class _State(NamedTuple):
    """Where a search stands.

    low: the best end, which meets the first condition; high: the other, infinitely far at first.
    best: the point at `low`; trial: the length to try next; done: whether `low` is the answer.
    """

    count: tf.Tensor
    low: _End
    high: _End
    best: Point
    trial: tf.Tensor
    done: tf.Tensor


class Searched(NamedTuple):
    """What a search has found.

    point: where it ends; the start where no decrease was found.
    length: floating [], the step length, 0 then; evaluations: int32 [].
    """

    point: Point
    length: tf.Tensor
    evaluations: tf.Tensor


def search(
    at: Callable[[tf.Tensor], Point], start: Point, direction, first, wolfe: Wolfe
) -> Searched:
    """A step along a direction that meets the strong Wolfe conditions.

    The interval is widened until it holds such a step, then narrowed by the minimum of the cubic
    through its ends. Where values differ by rounding alone, the slope decides.

    Args:
      at: theta -> Point.
      start: where it begins.
      direction: floating [n], of descent.
      first: floating [], the length that is tried first.
      wolfe: the conditions.
    Source: Nocedal and Wright 2006, algorithms 3.5 and 3.6; the condition at rounding level:
      Hager and Zhang 2005, eq. 4.
    """
    dtype = start.theta.dtype
    zero, far = tf.zeros([], dtype), tf.constant(float("inf"), dtype)
    slope = tf.tensordot(start.gradient, direction, 1)
    origin = _End(zero, start.value, slope)
    beyond = _End(far, far, far)
    searching = (slope < 0) & tf.math.is_finite(slope)
    state = _State(tf.zeros([], tf.int32), origin, beyond, start, first, ~searching)

    def body(*state):
        now = _State(*state)
        point = at(start.theta + now.trial * direction)
        end = _End(now.trial, point.value, tf.tensordot(point.gradient, direction, 1))
        return tuple(_narrowed(now, end, point, origin, wolfe))

    def going(*state):
        now = _State(*state)
        return ~now.done & (now.count < wolfe.evaluations)

    ended = _State(*tf.while_loop(going, body, tuple(state), parallel_iterations=1))
    return Searched(ended.best, ended.low.length, ended.count)


def _narrowed(now: _State, end: _End, point: Point, origin: _End, wolfe: Wolfe) -> _State:
    """The state after a trial."""
    finite = tf.math.is_finite(end.value) & tf.math.is_finite(end.slope)
    falls = end.value <= origin.value + wolfe.decrease * end.length * origin.slope
    falls |= _at_rounding(end, origin, wolfe)
    better = finite & falls & ((end.value < now.low.value) | _at_rounding(end, origin, wolfe))
    flat = tf.abs(end.slope) <= wolfe.slope * tf.abs(origin.slope)
    turned = end.slope * (now.high.length - now.low.length) >= 0
    high = end.where(~better, now.low.where(turned, now.high))
    low, best = end.where(better, now.low), point.where(better, now.best)
    trial = tf.where(tf.math.is_inf(high.length), _beyond(now.low, low), _inside(low, high))
    least = 4 * _epsilon(trial.dtype) * tf.abs(low.length)
    narrow = tf.abs(high.length - low.length) <= least
    return _State(now.count + 1, low, high, best, trial, (better & flat) | narrow)


def _at_rounding(end: _End, origin: _End, wolfe: Wolfe):
    """Whether a decrease is within rounding of the values, and the slope says that it is one."""
    close = tf.abs(end.value - origin.value) <= 8 * _epsilon(end.value.dtype) * tf.abs(origin.value)
    return close & (end.slope <= (2 * wolfe.decrease - 1) * origin.slope)


def _beyond(before: _End, low: _End):
    """A length beyond the best end: where the cubic falls to, two to ten times as far."""
    guess = _cubic(before, low)
    nearest, farthest = low.length * 2, low.length * 10
    return tf.where(tf.math.is_finite(guess), tf.clip_by_value(guess, nearest, farthest), nearest)


def _inside(low: _End, high: _End):
    """A length inside the interval: the minimum of the cubic, a tenth of it from either end."""
    width = high.length - low.length
    guess = _cubic(low, high)
    share = (guess - low.length) / width
    share = tf.where(tf.math.is_finite(share), tf.clip_by_value(share, 0.1, 0.9), 0.5)
    # beyond a value that is not finite nothing is known
    share = tf.where(tf.math.is_finite(high.value) & tf.math.is_finite(high.slope), share, 0.1)
    return low.length + share * width


def _cubic(a: _End, b: _End):
    """The minimum of the cubic through two ends with their slopes; not finite where it has none."""
    d1 = a.slope + b.slope - 3 * (a.value - b.value) / (a.length - b.length)
    root = tf.sqrt(tf.square(d1) - a.slope * b.slope)
    d2 = tf.sign(b.length - a.length) * root
    return b.length - (b.length - a.length) * (b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2)


def _epsilon(dtype):
    return dtype.as_numpy_dtype(2.0 ** (-52 if dtype == tf.float64 else -23))
