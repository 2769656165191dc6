"""Many steps inside one tf.function: the traced step, and the loops around it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from trainer.loop.accumulation import Lookahead
from trainer.loop.passes import Passes
from trainer.loop.segments import Carried, Segments
from trainer.loop.window import Ended, Row, Window

FAR = 2**31 - 1  # steps: no log window ends within a call
KEPT = 4  # traced loops, for data of other structures


class Called(NamedTuple):
    """What a call of the loop leaves.

    window: to go on with; ended: float64 [W, ...], the log windows that ended, as the loop packed
    them; packed: float64 [...], the window that has not, as it stands; row: reads one of these.
    """

    window: Window
    ended: np.ndarray
    packed: np.ndarray
    row: Row

    @property
    def now(self) -> Ended:
        """The window that has not ended."""
        return self.row.read(self.packed)


class Loops(Passes):
    """The compiled functions of a run: one trace of the step, whatever the cadences.

    The step is traced alone, once per structure of the data; the loops call that trace, so
    that other data, or another number of steps, costs no tracing of the user's code.
    """

    def __init__(self, trainer, replica, **arguments):
        self._lookahead: Lookahead | None = None
        self._accumulated = tf.zeros([0])  # the lookahead's, between calls
        self.last_batch: Any = ()
        # a condition on the device would stop it in each step: see `Segments`
        self.checks = not tf.config.list_logical_devices("GPU")
        super().__init__(trainer, replica, **arguments)

    def forget_steps(self) -> None:
        super().forget_steps()
        self._train_steps: dict = {}
        self._train_loops: dict = {}
        self._switched: dict = {}  # the traces of the other way, see `switch`

    def switch(self, jit_compile: bool) -> None:
        """Goes on compiled by XLA, or not; the traces of the other way are kept."""
        if jit_compile == self.jit_compile:
            return
        names = "_gradients", "_rows", "_sums", "_train_steps", "_train_loops"
        kept, other = {name: getattr(self, name) for name in names}, self._switched
        self.forget_steps()
        for name, value in other.items():
            setattr(self, name, value)
        self._switched, self.jit_compile = kept, jit_compile

    def traced(self, source) -> list[tf.Variable]:
        """The variables of the traced loop of a source that is open."""
        return list(self._loop(source)[0].variables)

    def _function(self, function):
        # as in Keras, users' code is traced as it stands: no AutoGraph
        compiled = self.jit_compile and not self.first_pass
        return tf.function(function, jit_compile=compiled or None, autograph=False)

    def train_step(self, source):
        """The traced step of one structure of data: batch, with `lookahead` also the mean
        denominators of the accumulated steps -> Record."""
        key = _key(source)
        if key not in self._train_steps:
            self.replica.per_host = source.per_host

            def train_step(batch, window=None):
                self._window = window
                try:
                    return self.trainer.train_step(batch)
                finally:
                    self._window = None

            function = self._function(train_step)
            given = [source.element_spec]
            if self.replica.optimizers.accumulation > 1:
                given.append(self._window_spec)
            self._train_steps[key] = function.get_concrete_function(*given)
        return self._train_steps[key]

    def _step_variables(self) -> list:
        return [v for step in self._train_steps.values() for v in step.variables]

    def open(self, source, position: int, step: int) -> None:
        """Starts the data of a fit at batch `position`, global step `step`."""
        self.replica.per_host = source.per_host
        if self.replica.optimizers.accumulation > 1:
            source.gpu = None  # what is read ahead waits in a queue on the host
            self._lookahead = Lookahead(self, source)
            self._accumulated = self._lookahead.open(position, step)
        else:
            self._lookahead, self._accumulated = None, tf.zeros([0])
            source.start(position)
        self._carried: Carried | None = None

    def following(self, source, position):
        """The batch at a position, the next one of a pipeline; in a graph."""
        if self._lookahead is None:
            return source.next(position)
        self._lookahead.denominators(position, self._accumulated)
        return self._lookahead.next(position)

    def train(self, source, window: Window, position, steps, left=FAR, every=FAR) -> Called:
        """`steps` training steps from `position` of the data, over any number of log windows.

        Stops after a step whose values or gradient are not finite, unless such steps are
        skipped; `last_batch` is then a pipeline's batch.

        Args:
          window: the log window to go on with.
          left: the steps to its end.
          every: the steps of those that follow.
        """
        loop, row, segments = self._loop(source)
        if self._carried is None:
            self._carried = segments.first(source.feed, self._accumulated)
        position = tf.constant(position, tf.int64)
        counts = [tf.constant(count, tf.int32) for count in (steps, left, every)]
        window, self._carried, rows, ended = loop(
            source.feed, window, self._carried, position, *counts
        )
        self._accumulated, self.last_batch = self._carried.accumulated, self._carried.batch
        rows, ended = rows.numpy(), int(ended)
        return Called(window, rows[:ended], rows[ended], row)

    def compile_step(self, source) -> None:
        """Has XLA compile one step of a source that is open, without running it."""
        batch = source.next(tf.zeros([], tf.int64))
        given = [*tf.nest.flatten(batch, expand_composites=True)]
        given += [self._accumulated] if self.replica.optimizers.accumulation > 1 else []
        step = tf.function(self.train_step(source), jit_compile=True, autograph=False)
        step.experimental_get_compiler_ir(*given)(stage="optimized_hlo")

    def _loop(self, source):
        key = _key(source), source.key, self._lookahead
        if key not in self._train_loops:
            for oldest in list(self._train_loops)[: 1 - KEPT]:  # each holds on to its data
                del self._train_loops[oldest]
            self._train_loops[key] = self._make_train_loop(source, self._lookahead)
        return self._train_loops[key]

    def _make_train_loop(self, source, lookahead):
        """A function of (feed, window, carried, position, steps, left, every), and its parts.

        Its outer loop goes from one end of a log window (or of an epoch of arrays) to the next,
        its inner one from step to step.
        """
        step = self.train_step(source)
        terms = len(self.replica.layout.names)
        row = Row(terms, 0 if self.diagnostics is None else self.diagnostics.size)
        segments = Segments(self, source, lookahead, step)

        @tf.function(autograph=False)
        def loop(feed, window, carried, position, steps, left, every):
            def going(done, left, index, window, *_):
                return done < steps if self.skipping else (done < steps) & window.finite()

            def body(done, left, index, window, carried, rows):
                count = tf.minimum(steps - done, left)
                at = position + tf.cast(done, tf.int64)
                window, carried, count = segments.run(feed, window, carried, at, count)
                done, left = done + count, left - count
                whole = tf.equal(left, 0)
                if not self.skipping:  # the host is to see a window that is not finite
                    whole &= window.finite()
                found = None if self.diagnostics is None else self.diagnostics.packed()
                rows = rows.write(index, row.pack(window, self.replica.values(), found))
                if self.replica.reads_metrics:
                    self.replica.train_metrics.reset_where(whole)
                both = zip(Window.empty(terms), window, strict=True)
                window = Window(*(tf.where(whole, new, old) for new, old in both))
                left, index = tf.where(whole, every, left), index + tf.cast(whole, tf.int32)
                return done, left, index, window, carried, rows

            zero = tf.zeros([], tf.int32)
            ends = 1 + tf.maximum(steps - left + every, 0) // every
            rows = tf.TensorArray(tf.float64, ends)
            _, _, index, window, carried, rows = tf.while_loop(
                going,
                body,
                (zero, left, zero, window, carried, rows),
                shape_invariants=(
                    *(zero.shape,) * 3,
                    Window(*(part.shape for part in window)),
                    segments.invariants(carried),
                    None,
                ),
                parallel_iterations=1,
            )
            return window, carried, rows.stack(), index

        count = tf.TensorSpec([], tf.int32)
        carried = segments.first(source.feed, self._accumulated)
        specs = tf.nest.map_structure(tf.TensorSpec.from_tensor, (Window.empty(terms), carried))
        loose = segments.invariants(carried).batch
        batch = tf.nest.map_structure(
            lambda one, shape: tf.TensorSpec(shape, one.dtype), carried.batch, loose
        )
        traced = loop.get_concrete_function(
            source.feed,
            specs[0],
            specs[1]._replace(batch=batch),
            tf.TensorSpec([], tf.int64),
            *(count, count, count),
        )
        return traced, row, segments


def _key(source):
    return str((source.element_spec, source.per_host))
