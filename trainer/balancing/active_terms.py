"""A balancer's answer for those of its terms that take part in a step, whichever these are.

A term of which the batch holds nothing, or whose given weight is 0, is not a task at its optimum:
it is none. The balancer is asked for the others alone, as if there were no more. It needs to know
how many they are when it is traced, so there is one branch for each number of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf


class Part(NamedTuple):
    """k of m things.

    Attributes:
      places: int32 [k], which they are, ascending.
      active: bool [m], true at these places.
    """

    places: tf.Tensor
    active: tf.Tensor

    def of(self, whole, axes) -> tf.Tensor:
        """A tensor of which some axes go over the m things, for the k of them."""
        for axis in axes:
            whole = tf.gather(whole, self.places, axis=axis)
        return whole

    def into(self, whole, part, axes) -> tf.Tensor:
        """The whole tensor with what `of` takes of it replaced by `part`."""
        part = tf.cast(part, whole.dtype)
        if not axes:
            return part
        # the rank of each thing among the k; of the others any that exists
        ranks = tf.maximum(tf.cumsum(tf.cast(self.active, tf.int32)) - 1, 0)
        among = tf.ones([], tf.bool)
        for axis in axes:
            part = tf.gather(part, ranks, axis=axis)
            shape = [1] * whole.shape.rank
            shape[axis] = -1
            among &= tf.reshape(self.active, shape)
        return tf.where(among, part, whole)


def for_active(active, answer: Callable[[Part], object], otherwise: Callable[[], object]):
    """What `answer` gives for the things that are active, of whatever number.

    Args:
      active: bool [m].
      answer: of a `Part` with k places, k known when traced; tensors of shapes without k.
      otherwise: where none is active.
    """

    def branch(count: int):
        order = tf.argsort(tf.cast(~active, tf.int32), stable=True)
        return answer(Part(order[:count], active))

    counts = range(1, active.shape[0] + 1)
    branches = [otherwise, *(functools.partial(branch, count) for count in counts)]
    return tf.switch_case(tf.reduce_sum(tf.cast(active, tf.int32)), branches)


def term_axes(initial_state: Callable[[int], dict], terms: int) -> dict[str, tuple[int, ...]]:
    """name -> the axes of a balancer's state that go over its terms: those that grow with them."""
    now, more = initial_state(terms), initial_state(terms + 1)
    return {
        name: tuple(
            axis
            for axis, (size, larger) in enumerate(zip(value.shape, more[name].shape, strict=True))
            if size != larger
        )
        for name, value in ((name, tf.convert_to_tensor(value)) for name, value in now.items())
    }
