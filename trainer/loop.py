"""Many steps inside one tf.function: the traced step, and the loops around it."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from trainer.lookahead import Lookahead
from trainer.passes import Passes
from trainer.replica import Record


class Window(NamedTuple):
    """Sums over the steps of a log window, carried through the loop.

    raw, weighted: float64 [terms]; examples, grad_norm: float64 []; weight: float32 [terms],
    of the last step; steps, skipped: int64 [].
    """

    raw: tf.Tensor
    weighted: tf.Tensor
    weight: tf.Tensor
    examples: tf.Tensor
    grad_norm: tf.Tensor
    steps: tf.Tensor
    skipped: tf.Tensor

    @classmethod
    def empty(cls, terms: int) -> Window:
        sums, zero, none = tf.zeros([terms], tf.float64), tf.zeros([], tf.float64), tf.zeros([])
        count = tf.cast(none, tf.int64)
        return cls(sums, sums, tf.zeros([terms]), zero, zero, count, count)

    def finite(self) -> tf.Tensor:
        """bool [], whether every value so far is."""
        values = tf.concat([self.weighted, [self.grad_norm]], 0)
        return tf.reduce_all(tf.math.is_finite(values))

    def add(self, record: Record, skipping: bool) -> Window:
        """The window with one more step; a skipped step leaves only its count."""
        values = [record.raw, record.weighted, record.examples, record.grad_norm]
        one = tf.ones([], tf.int64)
        skipped = self.skipped
        if skipping:
            # the record of a skipped step has a norm that is not finite
            counted = tf.math.is_finite(record.grad_norm)
            values = [tf.where(counted, value, tf.zeros_like(value)) for value in values]
            one = tf.cast(counted, tf.int64)
            skipped += 1 - one
        raw, weighted, examples, norm = (tf.cast(value, tf.float64) for value in values)
        return Window(
            self.raw + raw,
            self.weighted + weighted,
            record.weight,
            self.examples + examples,
            self.grad_norm + norm,
            self.steps + one,
            skipped,
        )


class Loops(Passes):
    """The compiled functions of a run: one trace of the step, whatever the cadences.

    The step is traced alone, once per structure of the data; the loops call that trace, so
    that other data, or another number of steps, costs no tracing of the user's code.
    """

    def __init__(self, trainer, replica, **arguments):
        self._lookahead: Lookahead | None = None
        self._accumulated = tf.zeros([0])  # the lookahead's, between calls
        self.last_batch: Any = ()
        super().__init__(trainer, replica, **arguments)

    def forget_steps(self) -> None:
        super().forget_steps()
        self._train_steps: dict = {}
        self._train_loops: dict = {}

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
            self._lookahead = Lookahead(self, source)
            self._accumulated = self._lookahead.open(position, step)
        else:
            self._lookahead, self._accumulated = None, tf.zeros([0])
            source.start(position)

    def following(self, source, position):
        """The batch at a position, the next one of a pipeline; in a graph."""
        if self._lookahead is None:
            return source.next(position)
        self._lookahead.denominators(position, self._accumulated)
        return self._lookahead.next(position)

    def train(self, source, window: Window, position, steps) -> Window:
        """`steps` training steps from `position` of the data; the window that they fill.

        Stops after a step whose values or gradient are not finite, unless such steps are
        skipped; `last_batch` is then its batch.
        """
        if source not in self._train_loops:
            self._train_loops.clear()  # one source trains at a time
            self._train_loops[source] = self._make_train_loop(source, self._lookahead)
        loop = self._train_loops[source]
        position, steps = tf.constant(position, tf.int64), tf.constant(steps, tf.int64)
        window, self._accumulated, self.last_batch = loop(
            window, self._accumulated, position, steps
        )
        return window

    def _make_train_loop(self, source, lookahead):
        step = self.train_step(source)
        counter = self.trainer.step
        spec = source.element_spec
        kept = not self.skipping and all(
            isinstance(one, tf.TensorSpec) for one in tf.nest.flatten(spec)
        )

        def none_yet():
            shapes = [[d or 0 for d in one.shape] for one in tf.nest.flatten(spec)]
            dtypes = [one.dtype for one in tf.nest.flatten(spec)]
            zeros = [tf.zeros(shape, d) for shape, d in zip(shapes, dtypes, strict=True)]
            return tf.nest.pack_sequence_as(spec, zeros)

        def body(position, window, accumulated, _):
            if lookahead is None:
                batch = source.next(position)
                record = step(*tf.nest.flatten(batch, expand_composites=True))
            else:
                accumulated = lookahead.denominators(position, accumulated)
                batch = lookahead.next(position)
                flat = tf.nest.flatten(batch, expand_composites=True)
                record = step(*flat, accumulated)
            counter.assign_add(1)
            window = window.add(record, self.skipping)
            return position + 1, window, accumulated, batch if kept else ()

        @tf.function(autograph=False)
        def loop(window, accumulated, position, steps):
            end = position + steps

            def going(position, window, *_):
                more = position < end
                return more if self.skipping else more & window.finite()

            batch = none_yet() if kept else ()
            carried = position, window, accumulated, batch
            shapes = tf.nest.map_structure(lambda tensor: tensor.shape, carried)
            if kept:
                loose = tf.nest.map_structure(lambda one: one.shape, spec)
                shapes = (*shapes[:3], loose)
            _, *rest = tf.while_loop(
                going, body, carried, shape_invariants=shapes, parallel_iterations=1
            )
            return rest

        return loop


def _key(source):
    return str((source.element_spec, source.per_host))
