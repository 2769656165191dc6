"""The feed of accumulated steps: their batches, and what these count together."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from trainer.loop.feeds.feed import ArrayFeed, Feed, IteratorFeed, LoopCarry
from trainer.loop.feeds.joint import JointArrayFeed
from trainer.loop.traced_step import TracedStep


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

    keeps_place = False  # the means of the present window are in the carry

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
        shuffled = [part for part in source.each() if part.shuffle and source.indexed]
        self._orders = {part.name: _EpochOrder(part) for part in shuffled}
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

    def next(self, inputs, segment, changing, number, whole=False):
        position = segment + tf.cast(number, tf.int64)
        accumulation, first = changing
        accumulation = self._means(position, accumulation)
        batch = self._dequeue(position)
        return batch, (accumulation,), (accumulation, batch if tf.nest.flatten(first) else ())

    def batch_at(self, carry, position):
        self._means(position, carry.accumulation)
        return self._dequeue(position)

    def _means(self, position, current):
        """float32 [T], the mean denominators at a step: new ones where an update's steps begin."""
        begins = tf.equal(tf.convert_to_tensor(self._counter) % self._every, 0)
        count = tf.constant(self._every, tf.int64)
        return tf.cond(begins, lambda: self._fill(position, count), lambda: current)

    def _array_batch(self, position):
        orders = {name: order.at(position) for name, order in self._orders.items()}
        return self.source.batch_at(
            position, self._xla, orders if self.source.names else orders.get(None)
        )

    def _dequeue(self, position):
        """The batch at a position of arrays, or the first that waits."""
        if self._queue is None:
            return self._array_batch(position)
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
                batch = self._array_batch(position + index)
            else:
                batch = self.source.structured(next(self.source.iterator))
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


class _EpochOrder:
    """The order of the last epoch of arrays that was asked for, kept from step to step."""

    def __init__(self, source):
        self._source = source
        with tf.device("cpu:0"):
            self._epoch = tf.Variable(-1, dtype=tf.int64, trainable=False)
            self._order = tf.Variable(tf.range(source.examples), trainable=False)

    def at(self, position) -> tf.Tensor:
        """int32 [examples], the order of the epoch that a position, int64 [], falls into."""
        epoch = position // self._source.steps_per_epoch

        def draw():
            order = self._source.order(epoch)
            self._order.assign(order)
            self._epoch.assign(epoch)
            return order

        return tf.cond(tf.equal(self._epoch, epoch), lambda: tf.identity(self._order), draw)


def make_feed(step: TracedStep, source, keeps_batch: bool) -> Feed:
    """The feed of a step: of accumulated steps, a pipeline, or arrays.

    Args:
      keeps_batch: whether a pipeline's last batch stays, to be looked at.
    """
    program, passes = step.program, step.passes
    every = program.optimizers.accumulation
    if every > 1:
        layout = program.layout

        def count_terms(batch):
            return layout.by_term(passes.counts(batch)[layout.size : 2 * layout.size])

        terms, xla = len(layout.names), program.placement.xla
        arguments = program.counter, count_terms, terms, keeps_batch, xla
        return AccumulatingFeed(source, every, *arguments)
    if source.indexed and source.names:
        return JointArrayFeed(source, program.placement.xla)
    if source.indexed:
        return ArrayFeed(source, program.placement.xla)
    return IteratorFeed(source, keeps_batch)
