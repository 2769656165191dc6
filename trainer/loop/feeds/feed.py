"""Where a compiled loop gets its batches: one protocol for pipelines, arrays, accumulated steps."""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import tensorflow as tf


class LoopCarry(NamedTuple):
    """What goes on from one call of a loop to the next, beside the log window.

    accumulation: float32 [T], the mean denominators of the accumulated steps, or ().
    batch: the last batch of a pipeline, where it is kept; or ().
    epoch: int64 [], the epoch of `epoch_arrays`, or ().
    epoch_arrays: arrays in the order of that epoch, or int32 [examples], the order; or ().
    next_epoch: the same of the epoch after, drawn while this one trains; or ().
    """

    accumulation: Any = ()
    batch: Any = ()
    epoch: Any = ()
    epoch_arrays: Any = ()
    next_epoch: Any = ()


class Feed(abc.ABC):
    """The batches of a loop.

    A loop runs in segments, each within one log window. `start` is called on the host; in a graph
    `enter` opens a segment at a position, `limit` says how far it may go, and `next` gives the
    batch of each of its steps. What `next` changes from step to step is `changing(carry)`, and
    `changed` puts it back: every value that goes around a loop costs a small model's step
    something.

    Attributes:
      source: the data.
      in_one_program: whether a segment may be one XLA program: batches are functions of tensors.
      keeps_place: whether its place in the data is right where a call's carry was lost.
    """

    in_one_program = False
    keeps_place = True

    def __init__(self, source):
        self.source = source

    @abc.abstractmethod
    def start(self, position: int, step: int) -> LoopCarry:
        """Opens the data at batch `position`, at the global step `step`; on the host."""

    @property
    def key(self):
        """What a traced loop depends on beside the source: nothing, or the feed itself."""
        return None

    @property
    @abc.abstractmethod
    def inputs(self):
        """What a loop is given at each call: an iterator, or arrays."""

    def shapes(self, carry: LoopCarry) -> LoopCarry:
        """The shapes of a carry that hold at every call."""
        return tf.nest.map_structure(lambda tensor: tensor.shape, carry)

    def enter(self, inputs, carry: LoopCarry, position) -> tuple[LoopCarry, Any]:
        """The carry at a segment that begins at `position`, int64 []; and what `next` is given."""
        return carry, ()

    def first(self, segment):
        """int32 [], the number of a segment's first step, from which `next` counts on."""
        return tf.zeros([], tf.int32)

    def limit(self, position, count, in_one_program: bool):
        """int32 [], how many of `count` steps a segment may take; at least 1."""
        return count

    def is_whole(self, position):
        """Whether the batch at a position has the full size: True, or bool [] in a graph."""
        return True

    def changing(self, carry: LoopCarry):
        """The part of a carry that each step changes."""
        return ()

    def changed(self, carry: LoopCarry, changing) -> LoopCarry:
        """The carry with that part as the last step left it."""
        return carry

    @abc.abstractmethod
    def next(self, inputs, segment, changing, number, whole: bool = False):
        """The batch of a step.

        Args:
          inputs: as `Feed.inputs`.
          segment: of `enter`.
          changing: as the step before left it.
          number: int32 [], of the step; the segment's first one has that of `first`.
          whole: whether the batch is known to have the full size.
        Returns:
          the batch; further arguments of the step, a tuple; what has changed.
        """

    @abc.abstractmethod
    def batch_at(self, carry: LoopCarry, position):
        """The batch at a position, or the next one of a pipeline, outside a loop."""


class IteratorFeed(Feed):
    """A pipeline, which keeps its own place.

    Args:
      source: a `DatasetSource`.
      keeps_batch: whether the last batch is kept, to be looked at when its step fails.
    """

    def __init__(self, source, keeps_batch: bool):
        super().__init__(source)
        dense = all(isinstance(s, tf.TensorSpec) for s in tf.nest.flatten(source.element_spec))
        self._keeps_batch = keeps_batch and dense

    def start(self, position, step):
        self.source.start(position)
        return LoopCarry(batch=self.empty_batch())

    def empty_batch(self):
        if not self._keeps_batch:
            return ()
        return tf.nest.map_structure(
            lambda spec: tf.zeros([size or 0 for size in spec.shape], spec.dtype),
            self.source.element_spec,
        )

    @property
    def inputs(self):
        return self.source.iterator

    def shapes(self, carry):
        shapes = super().shapes(carry)
        if not self._keeps_batch:
            return shapes
        spec = tf.nest.map_structure(lambda s: s.shape, self.source.element_spec)
        return shapes._replace(batch=spec)

    def changing(self, carry):
        return carry.batch

    def changed(self, carry, changing):
        return carry._replace(batch=changing)

    def next(self, inputs, segment, changing, number, whole=False):
        batch = self.source.structured(next(inputs))
        return batch, (), batch if self._keeps_batch else ()

    def batch_at(self, carry, position):
        return next(self.source.iterator)


class ArrayFeed(Feed):
    """Arrays: a batch is a function of its position; each epoch is laid out in its order.

    Args:
      source: an `ArraySource`.
      xla: whether XLA compiles the step: what is augmented is then drawn by XLA too.
    """

    in_one_program = True

    def __init__(self, source, xla: bool):
        super().__init__(source)
        self._xla = xla

    def start(self, position, step):
        source = self.source
        if not source.shuffle:
            return LoopCarry()
        order = tf.range(source.examples)
        return LoopCarry(
            epoch=tf.constant(-2, tf.int64),  # neither the first one nor the one before
            epoch_arrays=source.arrays if source.copied else order,
            next_epoch=source.arrays if source.ahead else order,
        )

    @property
    def inputs(self):
        return self.source.arrays

    def enter(self, inputs, carry, position):
        steps = self.source.steps_per_epoch
        epoch = position // steps
        first = tf.cast(position - epoch * steps, tf.int32)
        if self.source.shuffle:
            carry = self._lay_out(inputs, carry, epoch)
        start = position - tf.cast(first, tf.int64)
        return carry, (start, first, carry.epoch_arrays)

    def _left(self, position):
        """int32 [], the batches from a position to its epoch's end."""
        steps = self.source.steps_per_epoch
        return steps - tf.cast(position % steps, tf.int32)

    @property
    def _all_whole(self) -> bool:
        return self.source.examples % self.source.batch_size == 0

    def limit(self, position, count, in_one_program):
        left = self._left(position)
        if not in_one_program or self._all_whole:
            return tf.minimum(count, left)
        # in a program all batches have one size: the short one at an epoch's end comes by itself
        return tf.where(left > 1, tf.minimum(count, left - 1), 1)

    def is_whole(self, position):
        return self._all_whole or self._left(position) > 1

    def first(self, segment):
        return segment[1]

    def next(self, inputs, segment, changing, number, whole=False):
        start, _, epoch_arrays = segment
        position = start + tf.cast(number, tf.int64)
        batch = self.source.batch_of_epoch(inputs, epoch_arrays, position, number, whole, self._xla)
        return batch, (), ()

    def batch_at(self, carry, position):
        return self.source.batch_at(position, self._xla)

    def _lay_out(self, arrays, carry: LoopCarry, epoch) -> LoopCarry:
        """The arrays in the order of an epoch, int64 []; and the order of the next one."""
        source, current = self.source, tf.equal(carry.epoch, epoch)
        follows = tf.equal(carry.epoch + 1, epoch)

        def draw(epoch):
            order = source.order(epoch)
            return source.laid_out(arrays, order) if source.ahead else order

        def lay_out():
            drawn = tf.cond(follows, lambda: carry.next_epoch, lambda: draw(epoch))
            return drawn if source.ahead else source.laid_out(arrays, drawn)

        # two conditions: what is drawn for later is not waited for
        return carry._replace(
            epoch=epoch,
            epoch_arrays=tf.cond(current, lambda: carry.epoch_arrays, lay_out),
            next_epoch=tf.cond(current, lambda: carry.next_epoch, lambda: draw(epoch + 1)),
        )
