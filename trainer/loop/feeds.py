"""Where a compiled loop gets its batches: one protocol for pipelines, arrays, accumulated steps."""

from __future__ import annotations

import abc
from collections.abc import Callable
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
    """

    in_one_program = False

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
    def next(self, inputs, segment, changing, done, whole: bool = False):
        """The batch of a step.

        Args:
          inputs: as `Feed.inputs`.
          segment: of `enter`.
          changing: as the step before left it.
          done: int32 [], the steps of the segment before this one.
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

    def next(self, inputs, segment, changing, done, whole=False):
        batch = next(inputs)
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

    def next(self, inputs, segment, changing, done, whole=False):
        start, first, epoch_arrays = segment
        index = first + done
        position = start + tf.cast(index, tf.int64)
        batch = self.source.batch_of_epoch(inputs, epoch_arrays, position, index, whole, self._xla)
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


class AccumulatingFeed(Feed):
    """Batches of accumulated steps, with what they count together.

    Gradients of accumulated steps add up to that of one large batch only where each counts by its
    share of their denominators. These depend on labels, weights and masks, not on weights of the
    model: a pass over the batches finds them before the first is trained. Arrays are read twice;
    the batches of a pipeline wait in a queue on the host.

    Args:
      source: the data.
      every: int, the accumulated steps of one update.
      counter: int64 variable, the global step.
      count_terms: batch -> float32 [T], the terms' denominators of a global batch.
      terms: int, T.
      keeps_batch: as in `IteratorFeed`.
      xla: as in `ArrayFeed`.
    """

    def __init__(
        self,
        source,
        every: int,
        counter,
        count_terms: Callable,
        terms: int,
        keeps_batch: bool,
        xla: bool,
    ):
        super().__init__(source)
        self._xla = xla
        self._every, self._counter, self._terms = every, counter, terms
        self._count_terms = count_terms
        self._queue = None
        self._keeping = None
        if not source.indexed:
            self._keeping = IteratorFeed(source, keeps_batch)
            specs = tf.nest.flatten(source.element_spec, expand_composites=True)
            with tf.device("cpu:0"):
                self._queue = tf.queue.FIFOQueue(every, [spec.dtype for spec in specs])

    def start(self, position, step):
        done = step % self._every
        ahead = min(position, done)  # the batches of the present window that are trained already
        carry = self._start(position - ahead, step)
        if not done:
            return carry._replace(accumulation=tf.zeros([self._terms]))
        count = self._every - done + ahead
        fill = tf.function(self._fill, autograph=False)
        means = fill(tf.constant(position - ahead, tf.int64), tf.constant(count, tf.int64))
        if self._queue is not None:
            for _ in range(ahead):
                self._queue.dequeue()
        return carry._replace(accumulation=means)

    def _start(self, position, step) -> LoopCarry:
        if self._keeping is None:
            return LoopCarry()
        # a batch that is read ahead waits on the host: not fetched onto a GPU first
        self.source.start(position, on_gpu=False)
        return LoopCarry(batch=self._keeping.empty_batch())

    @property
    def key(self):
        return self  # a loop reads its queue

    @property
    def inputs(self):
        return ()

    def shapes(self, carry):
        return super().shapes(carry) if self._keeping is None else self._keeping.shapes(carry)

    def enter(self, inputs, carry, position):
        return carry, position

    def changing(self, carry):
        return carry.accumulation, carry.batch

    def changed(self, carry, changing):
        accumulation, batch = changing
        return carry._replace(accumulation=accumulation, batch=batch)

    def next(self, inputs, segment, changing, done, whole=False):
        position = segment + tf.cast(done, tf.int64)
        accumulation, kept = changing
        accumulation = self._means(position, accumulation)
        batch = self._dequeue(position)
        return batch, (accumulation,), (accumulation, batch if tf.nest.flatten(kept) else ())

    def batch_at(self, carry, position):
        self._means(position, carry.accumulation)
        return self._dequeue(position)

    def _means(self, position, current):
        """float32 [T], the mean denominators at a step: new ones where an update's steps begin."""
        begins = tf.equal(tf.convert_to_tensor(self._counter) % self._every, 0)
        count = tf.constant(self._every, tf.int64)
        return tf.cond(begins, lambda: self._fill(position, count), lambda: current)

    def _dequeue(self, position):
        """The batch at a position of arrays, or the first that waits."""
        if self._queue is None:
            return self.source.batch_at(position, self._xla)
        specs = tf.nest.flatten(self.source.element_spec, expand_composites=True)
        with tf.device("cpu:0"):
            parts = self._queue.dequeue()
        parts = parts if isinstance(parts, list) else [parts]
        for part, spec in zip(parts, specs, strict=True):
            part.set_shape(spec.shape)
        return tf.nest.pack_sequence_as(self.source.element_spec, parts, expand_composites=True)

    def _fill(self, position, count):
        """The mean denominators of `count` batches from a position on; a pipeline's then wait."""

        def body(index, total):
            if self._queue is None:
                batch = self.source.batch_at(position + index, self._xla)
            else:
                batch = next(self.source.iterator)
                with tf.device("cpu:0"):
                    self._queue.enqueue(tf.nest.flatten(batch, expand_composites=True))
            return index + 1, total + self._count_terms(batch)

        _, total = tf.while_loop(
            lambda index, _: index < count,
            body,
            (tf.zeros([], tf.int64), tf.zeros([self._terms])),
            parallel_iterations=1,
        )
        return total / tf.cast(count, tf.float32)
