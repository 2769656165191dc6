"""The steps between two ends of log windows: one inner loop, or one XLA program."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from trainer.window import Window


class Carried(NamedTuple):
    """What goes from step to step beside the window.

    accumulated: the lookahead's denominators; batch: the last one of a pipeline, or ();
    epoch, order: int64 [] and int32 [examples], the order in which arrays are drawn, or ().
    """

    accumulated: tf.Tensor
    batch: Any
    epoch: Any
    order: Any


class Segments:
    """Runs the traced step many times.

    Where no GPU is in use, each step is checked: the one that is not finite is the last. On a GPU
    that would cost a transfer to the host in every step, so there the steps go on to the end of the
    segment, and the window stays as it was after the first that is not finite.

    Args:
      loops: the run's `Loops`.
      source: where the batches come from.
      lookahead: of accumulated steps, or None.
      step: the traced step: batch -> Record.
    """

    def __init__(self, loops, source, lookahead, step):
        self._loops = loops
        self._source, self._lookahead, self._step = source, lookahead, step
        self._counter = loops.trainer.step
        self._checks = loops.checks and not loops.skipping
        self._freezes = not loops.checks and not loops.skipping
        self._drawn = source.indexed and lookahead is None
        compiled = loops.jit_compile and not loops.first_pass
        self._program = None
        if self._drawn and compiled:
            self._program = tf.function(self._drawn_steps, jit_compile=True, autograph=False)
        self._keeps = self._checks and not source.indexed and _dense(source.element_spec)

    def start(self, accumulated) -> Carried:
        """What the first step is given."""
        batch, epoch, order = (), (), ()
        if self._keeps:
            batch = tf.nest.map_structure(
                lambda one: tf.zeros([d or 0 for d in one.shape], one.dtype),
                self._source.element_spec,
            )
        if self._drawn and self._source.shuffle:
            epoch = tf.constant(-1, tf.int64)
            order = tf.zeros([self._source.examples], tf.int32)
        return Carried(accumulated, batch, epoch, order)

    def invariants(self, carried: Carried) -> Carried:
        """The shapes that stay: of a pipeline's batches, those of its element_spec."""
        shapes = tf.nest.map_structure(lambda tensor: tensor.shape, carried)
        if self._keeps:
            spec = tf.nest.map_structure(lambda one: one.shape, self._source.element_spec)
            shapes = shapes._replace(batch=spec)
        return shapes

    def run(self, feed, window: Window, carried: Carried, position, count):
        """Up to `count` steps, int32 [], from `position` of the data, int64 []; in a graph.

        Returns:
          the window, what is carried on, and how many steps these were: fewer where an epoch of
          arrays ends.
        """
        if self._drawn:
            return self._run_drawn(feed, window, carried, position, count)

        def body(index, window, accumulated, _):
            at = position + tf.cast(index, tf.int64)
            if self._lookahead is None:
                batch = self._source.next(at, feed)
                given: tuple = ()
            else:
                accumulated = self._lookahead.denominators(at, accumulated)
                batch = self._lookahead.next(at)
                given = (accumulated,)
            window = self._take(window, batch, *given)
            return index + 1, window, accumulated, batch if self._keeps else ()

        start = tf.zeros([], tf.int32), window, carried.accumulated, carried.batch
        shapes = tf.nest.map_structure(lambda tensor: tensor.shape, start)
        shapes = (*shapes[:3], self.invariants(carried).batch)
        _, window, accumulated, batch = tf.while_loop(
            lambda index, window, *_: self._going(index < count, window),
            body,
            start,
            shape_invariants=shapes,
            parallel_iterations=1,
        )
        return window, carried._replace(accumulated=accumulated, batch=batch), count

    def _going(self, more, window):
        return more & window.finite() if self._checks else more

    def _take(self, window, batch, *given):
        record = self._step(*tf.nest.flatten(batch, expand_composites=True), *given)
        self._counter.assign_add(1)
        following = window.add(record, self._loops.skipping)
        return window.frozen(following) if self._freezes else following

    def _run_drawn(self, feed, window, carried, position, count):
        source = self._source
        epoch = position // source.steps_per_epoch
        first = tf.cast(position - epoch * source.steps_per_epoch, tf.int32)
        if source.shuffle:
            order = tf.cond(
                tf.equal(carried.epoch, epoch),
                lambda: carried.order,
                lambda: source.order(epoch),
            )
            carried = carried._replace(epoch=epoch, order=order)
        whole, start = source.examples // source.batch_size, position - tf.cast(first, tf.int64)
        left = source.steps_per_epoch - first
        if self._program is None or whole == source.steps_per_epoch:
            count = tf.minimum(count, left)
            run = self._program or self._drawn_steps
            return run(feed, window, carried.order, start, first, first + count), carried, count
        # in a program all batches have one size: the short one at an epoch's end comes by itself
        count = tf.where(left > 1, tf.minimum(count, left - 1), 1)
        last = source.drawn(feed, carried.order, position, first)
        window = tf.cond(
            left > 1,
            lambda: self._program(feed, window, carried.order, start, first, first + count),
            lambda: self._take(window, last),
        )
        return window, carried, count

    def _drawn_steps(self, feed, window, order, start, first, end):
        """The steps `first` to `end` of an epoch that began at position `start`."""

        def body(index, window):
            position = start + tf.cast(index, tf.int64)
            batch = self._source.drawn(feed, order, position, index, self._program is not None)
            return index + 1, self._take(window, batch)

        return tf.while_loop(
            lambda index, window: self._going(index < end, window),
            body,
            (first, window),
            parallel_iterations=1,
        )[1]


def _dense(spec) -> bool:
    return all(isinstance(one, tf.TensorSpec) for one in tf.nest.flatten(spec))
