"""Accumulated steps: what their batches count together, known before the first of them.

Gradients of a window of steps add up to that of one large batch only where each counts by its
share of the window's denominators. They depend on labels, weights and masks, not on weights of
the model, so a pass over the window's batches finds them before the window is trained.
"""

from __future__ import annotations

import tensorflow as tf


class Lookahead:
    """Reads the batches of each window ahead of its first step.

    Arrays are indexed twice; the batches of a pipeline wait in a queue on the host.

    Args:
      loops: the run's `Loops`.
      source: where the batches come from.
    """

    def __init__(self, loops, source):
        self._loops = loops
        self._source = source
        self._every = loops.replica.optimizers.accumulation
        self._queue = None
        if not source.indexed:
            specs = tf.nest.flatten(source.element_spec, expand_composites=True)
            with tf.device("cpu:0"):
                self._queue = tf.queue.FIFOQueue(self._every, [spec.dtype for spec in specs])

    def open(self, position: int, step: int) -> tf.Tensor:
        """Opens the data at a batch, in the midst of a window where `step` stands in one.

        Returns:
          float32 [terms], the window's mean denominators.
        """
        ahead = min(position, step % self._every)  # those of the window that are done
        self._source.start(position - ahead)
        if step % self._every == 0:
            return tf.zeros([len(self._loops.replica.layout.names)])
        count = self._every - step % self._every + ahead
        fill = tf.function(self._fill, autograph=False)
        means = fill(tf.constant(position - ahead, tf.int64), tf.constant(count, tf.int64))
        if self._queue is not None:
            for _ in range(ahead):
                self._queue.dequeue()
        return means

    def denominators(self, position, current):
        """The window's mean denominators at this step: new ones where a window begins."""
        begins = tf.equal(tf.convert_to_tensor(self._loops.trainer.step) % self._every, 0)
        count = tf.constant(self._every, tf.int64)
        return tf.cond(begins, lambda: self._fill(position, count), lambda: current)

    def next(self, position):
        """The batch at a position."""
        if self._queue is None:
            return self._source.next(position)
        specs = tf.nest.flatten(self._source.element_spec, expand_composites=True)
        with tf.device("cpu:0"):
            parts = self._queue.dequeue()
        parts = parts if isinstance(parts, list) else [parts]
        for part, spec in zip(parts, specs, strict=True):
            part.set_shape(spec.shape)
        return tf.nest.pack_sequence_as(self._source.element_spec, parts, expand_composites=True)

    def _fill(self, position, count):
        layout = self._loops.replica.layout

        def body(index, total):
            batch = self._source.next(position + index)
            if self._queue is not None:
                with tf.device("cpu:0"):
                    self._queue.enqueue(tf.nest.flatten(batch, expand_composites=True))
            sums = self._loops.sums(batch)
            return index + 1, total + layout.by_term(sums[layout.size : 2 * layout.size])

        zero = tf.zeros([len(layout.names)])
        _, total = tf.while_loop(
            lambda index, _: index < count,
            body,
            (tf.zeros([], tf.int64), zero),
            parallel_iterations=1,
        )
        return total / tf.cast(count, tf.float32)
