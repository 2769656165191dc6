"""The steps between two ends of log windows: one inner loop, or one XLA program."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from trainer.loop.first_trace import operations
from trainer.loop.window import Window


class Carried(NamedTuple):
    """What goes from step to step beside the window.

    accumulated: the lookahead's denominators; batch: the last one of a pipeline, or ();
    epoch: int64 [], that of `laid_out`, from which arrays are drawn; following: the next one's
    order, or arrays laid out in it, drawn while this one trains.
    """

    accumulated: tf.Tensor
    batch: Any
    epoch: Any
    laid_out: Any
    following: Any


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
        if self._drawn and compiled and not _slow_in_a_program(step):
            self._program = tf.function(self._drawn_steps, jit_compile=True, autograph=False)
        self._keeps = self._checks and not source.indexed and _dense(source.element_spec)

    def first(self, feed, accumulated) -> Carried:
        """What the first step of a fit is given; the steps that follow, what the last one left."""
        batch, epoch, laid_out, following = (), (), (), ()
        if self._keeps:
            batch = tf.nest.map_structure(
                lambda one: tf.zeros([d or 0 for d in one.shape], one.dtype),
                self._source.element_spec,
            )
        if self._drawn and self._source.shuffle:
            epoch = tf.constant(-2, tf.int64)  # neither the first one nor the one before
            order = tf.range(self._source.examples)
            laid_out = feed if self._source.copied else order
            following = feed if self._source.ahead else order
        return Carried(accumulated, batch, epoch, laid_out, following)

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

        lookahead = self._lookahead

        def body(left, window, accumulated, _):
            given: tuple = ()
            if lookahead is None:  # a pipeline, which keeps its own place
                batch = self._source.next(feed=feed)
            else:
                at = position + tf.cast(count - left, tf.int64)
                accumulated = lookahead.denominators(at, accumulated)
                batch = lookahead.next(at)
                given = (accumulated,)
            window = self._take(window, batch, *given)
            return left - 1, window, accumulated, batch if self._keeps else ()

        # every value that goes around costs a small model's step something: no more than needed
        start = count, window, () if lookahead is None else carried.accumulated, carried.batch
        shapes = tf.nest.map_structure(lambda tensor: tensor.shape, start)
        shapes = (*shapes[:3], self.invariants(carried).batch)
        _, window, accumulated, batch = tf.while_loop(
            lambda left, window, *_: self._going(left > 0, window),
            body,
            start,
            shape_invariants=shapes,
            parallel_iterations=1,
        )
        if lookahead is not None:
            carried = carried._replace(accumulated=accumulated)
        return window, carried._replace(batch=batch), count

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
            carried = self._lay_out(feed, carried, epoch)
        whole, start = source.examples // source.batch_size, position - tf.cast(first, tf.int64)
        left = source.steps_per_epoch - first
        if self._program is None or whole == source.steps_per_epoch:
            count = tf.minimum(count, left)
            run = self._program or self._drawn_steps
            return run(feed, window, carried.laid_out, start, first, first + count), carried, count
        # in a program all batches have one size: the short one at an epoch's end comes by itself
        count = tf.where(left > 1, tf.minimum(count, left - 1), 1)
        last = source.drawn(feed, carried.laid_out, position, first)
        window = tf.cond(
            left > 1,
            lambda: self._program(feed, window, carried.laid_out, start, first, first + count),
            lambda: self._take(window, last),
        )
        return window, carried, count

    def _lay_out(self, feed, carried, epoch):
        """The arrays in the order of an epoch, int64 []; the order of the next one."""
        source, laid = self._source, tf.equal(carried.epoch, epoch)
        known = tf.equal(carried.epoch + 1, epoch)

        def drawn(epoch):
            order = source.order(epoch)
            return source.laid_out(feed, order) if source.ahead else order

        def lay_out():
            found = tf.cond(known, lambda: carried.following, lambda: drawn(epoch))
            return found if source.ahead else source.laid_out(feed, found)

        # two conditions: what is drawn for later is not waited for
        return carried._replace(
            epoch=epoch,
            laid_out=tf.cond(laid, lambda: carried.laid_out, lay_out),
            following=tf.cond(laid, lambda: carried.following, lambda: drawn(epoch + 1)),
        )

    def _drawn_steps(self, feed, window, laid_out, start, first, end):
        """The steps `first` to `end` of an epoch that began at position `start`."""

        def body(index, window):
            position = start + tf.cast(index, tf.int64)
            batch = self._source.drawn(feed, laid_out, position, index, self._program is not None)
            return index + 1, self._take(window, batch)

        return tf.while_loop(
            lambda index, window: self._going(index < end, window),
            body,
            (first, window),
            parallel_iterations=1,
        )[1]


def _slow_in_a_program(step) -> bool:
    """Whether XLA is known to run the step faster by itself than inside a loop.

    On a CPU a step with convolutions is: 29 ms inside a loop, 2.5 ms alone, for a small network.
    """
    on_cpu = not tf.config.list_logical_devices("GPU")
    return on_cpu and any("Conv" in name for name in operations(step.graph))


def _dense(spec) -> bool:
    return all(isinstance(one, tf.TensorSpec) for one in tf.nest.flatten(spec))
