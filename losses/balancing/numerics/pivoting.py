"""Quadratic programs of many terms: from one subset of active constraints to the next."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

_TRIES = 3  # of all wrong terms at once, before one is exchanged at a time
_ROUNDING = 1e-11  # relative; a number that is that little below zero is not wrong
_SUBSETS_PER_TERM = 30  # of these one by one an adversary's program may need more


class _State(NamedTuple):
    """Where the search stands, for each of r programs.

    count: int [], the subsets tried.
    members: bool [r, m], the subset S to try next: y = 0 off S, slack = 0 on S.
    fewest, tries: int [r], the fewest terms that were wrong, and what is left of `_TRIES`.
    found: bool [r, m], the subset whose y, cut off at 0, costs least; cost: float64 [r], of that.
    going: bool [r], whether some term was wrong.
    """

    count: tf.Tensor
    members: tf.Tensor
    fewest: tf.Tensor
    tries: tf.Tensor
    found: tf.Tensor
    cost: tf.Tensor
    going: tf.Tensor


def find_subsets(matrix, offsets) -> tf.Tensor:
    """The terms at which y is not 0, of min y.(M y) / 2 + q.y over y >= 0, for several q.

    Of a subset all terms that are wrong (y below 0 on it, slack below 0 off it) change sides at
    once; where that does not make them fewer for some tries, the last of them alone does, until it
    has: so it ends, as M is positive definite.

    Args:
      matrix: float64 [m, m], positive definite.
      offsets: float64 [r, m], the vectors q.
    Returns:
      bool [r, m].
    Source: Júdice and Pires 1994 (block principal pivoting); Murty 1974 (one at a time).
    """
    terms, nothing = matrix.shape[0], tf.zeros_like(offsets, tf.bool)
    most = tf.fill(tf.shape(offsets)[:1], terms + 1)
    cost = tf.fill(tf.shape(offsets)[:1], tf.constant(float("inf"), tf.float64))
    start = _State(
        tf.constant(0), nothing, most, tf.fill(tf.shape(most), _TRIES), nothing, cost, most > 0
    )
    end = tf.while_loop(
        lambda *state: tf.reduce_any(_State(*state).going),
        lambda *state: _next(_State(*state), matrix, offsets),
        start,
        maximum_iterations=_SUBSETS_PER_TERM * terms,
    )
    return _State(*end).found


def solve_on(members, matrix, right) -> tf.Tensor:
    """float64 [r, m], y of M_SS y_S = right_S, 0 off S.

    Args:
      members: bool [r, m], the subsets S.
      matrix: float64 [m, m].
      right: float64 [r, m].
    """
    both = members[:, :, None] & members[:, None, :]
    systems = tf.where(both, matrix, tf.eye(matrix.shape[0], dtype=matrix.dtype))
    right = tf.where(members, right, tf.zeros_like(right))
    return tf.linalg.solve(systems, right[:, :, None])[:, :, 0]


def _next(state: _State, matrix, offsets) -> _State:
    """One subset more of each program."""
    y = solve_on(state.members, matrix, -offsets)
    images = tf.matmul(y, matrix)
    slack = offsets + images
    kept = tf.nn.relu(y)
    cost = tf.reduce_sum(kept * (tf.matmul(kept, matrix) / 2 + offsets), axis=1)
    sizes = tf.reduce_max(tf.abs(y), axis=1, keepdims=True)
    off = slack < -_ROUNDING * (tf.abs(offsets) + tf.matmul(tf.abs(y), tf.abs(matrix)))
    wrong = tf.where(state.members, y < -_ROUNDING * sizes, off)
    number = tf.reduce_sum(tf.cast(wrong, tf.int32), axis=1)

    fewer = number < state.fewest
    tries = tf.where(fewer, _TRIES, state.tries - 1)
    last = tf.range(matrix.shape[0]) == _last(wrong)[:, None]
    exchanged = tf.where((tries >= 0)[:, None], wrong, wrong & last)
    better = (cost < state.cost) | ((number == 0) & state.going)
    return _State(
        state.count + 1,
        state.members ^ exchanged,
        tf.minimum(number, state.fewest),
        tries,
        tf.where(better[:, None], state.members, state.found),
        tf.where(better, cost, state.cost),
        state.going & (number > 0),
    )


def _last(wrong) -> tf.Tensor:
    """int [r], the last place that is wrong."""
    places = tf.range(wrong.shape[1])
    return tf.reduce_max(tf.where(wrong, places, -tf.ones_like(places)), axis=1)
