"""The inner loop: many steps in one tf.function; a function of a traced step and of a feed."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from trainer.loop.feeds import Feed, LoopCarry, make_feed
from trainer.loop.graph import slow_in_a_loop
from trainer.loop.traced_step import TracedStep
from trainer.loop.window import LogWindow, OnNonfinite, StepLine, WindowCodec

FAR = 2**31 - 1  # steps: no log window ends within a call


class LoopResult(NamedTuple):
    """What a call of a loop leaves.

    window: the log window to go on with; ended: float64 [W, ...], the windows that ended, as the
    codec packed them; packed: float64 [...], the window that has not, as it stands; codec: reads
    one of these.
    """

    window: LogWindow
    ended: np.ndarray
    packed: np.ndarray
    codec: WindowCodec

    @property
    def now(self):
        """The `WindowSnapshot` of the window that has not ended."""
        return self.codec.read(self.packed)


@dataclass(frozen=True)
class Segments:
    """The steps between two ends of log windows: one inner loop, or one XLA program.

    Attributes:
      step: the traced step.
      feed: its batches.
      on_nonfinite: what follows a step that is not finite.
      program: (inputs, segment, window, changing, count, position) -> window, changing, compiled
        by XLA; or None.
      single: whether a segment is one step, for which no loop is entered.
    """

    step: TracedStep
    feed: Feed
    on_nonfinite: OnNonfinite
    program: Any = None
    single: bool = False

    def run(self, inputs, window: LogWindow, carry: LoopCarry, position, count):
        """Up to `count` steps, int32 [], from `position` of the data, int64 []; in a graph.

        Returns:
          the window; the carry; int32 [], how many steps these were.
        """
        feed = self.feed
        carry, segment = feed.enter(inputs, carry, position)
        count = feed.limit(position, count, self.program is not None)
        count = tf.ones_like(count) if self.single else count
        whole, changing = feed.is_whole(position), feed.changing(carry)
        if self.program is None or whole is True:
            take = self.program or (self.one if self.single else self.steps)
            window, changing = take(inputs, segment, window, changing, count, position)
            return window, feed.changed(carry, changing), count

        def short():  # at the end of an epoch
            batch, arguments, _ = feed.next(inputs, segment, (), feed.first(segment))
            return self._take(window, batch, arguments, position)

        def full():
            return self.program(inputs, segment, window, changing, count, position)[0]

        return tf.cond(whole, full, short), carry, count

    def steps(self, inputs, segment, window, changing, count, position, whole=False):
        """`count` steps, of full batches with `whole`: the body of `program`."""
        # counted on from `first`: were it added to a counter, XLA would compile anew for each one
        first = self.feed.first(segment)
        last = first + count

        def body(number, window, changing):
            batch, arguments, changing = self.feed.next(inputs, segment, changing, number, whole)
            at = position + tf.cast(number - first, tf.int64)
            return number + 1, self._take(window, batch, arguments, at), changing

        def going(number, window, _):
            more = number < last
            return more & window.finite() if self.on_nonfinite is OnNonfinite.STOP else more

        shapes = self.feed.changing(self.feed.shapes(self.feed.changed(LoopCarry(), changing)))
        _, window, changing = tf.while_loop(
            going,
            body,
            (first, window, changing),
            shape_invariants=(first.shape, LogWindow(*(part.shape for part in window)), shapes),
            parallel_iterations=1,
        )
        return window, changing

    def one(self, inputs, segment, window, changing, _count, position):
        """One step: what `steps` does with a count of 1, without a loop around it."""
        first = self.feed.first(segment)
        batch, arguments, changing = self.feed.next(inputs, segment, changing, first)
        return self._take(window, batch, arguments, position), changing

    def _take(self, window: LogWindow, batch, arguments, position) -> LogWindow:
        """The window with one more step, which is taken, at a position of the data, int64 []."""
        if self.step.variants:
            taken = functools.partial(self._variant, window, batch, arguments)
            branches = [functools.partial(taken, variant) for variant in self.step.variants]
            return tf.switch_case(self.step.which(position), branches)
        tensors = tf.nest.flatten(batch, expand_composites=True)
        return self._added(window, self.step.function(*tensors, *arguments))

    def _variant(self, window: LogWindow, batch, arguments, variant) -> LogWindow:
        return self._added(window, variant.take(batch, arguments))

    def _added(self, window: LogWindow, line: StepLine) -> LogWindow:
        """The window with the line of a step."""
        self.step.program.counter.assign_add(1)
        following = window.add(line)
        freezes = self.on_nonfinite is OnNonfinite.FREEZE
        return window.or_before(following) if freezes else following


@dataclass(frozen=True)
class CompiledLoop:
    """A traced loop, or one in Python: (inputs, window, carry, position, steps, left, every) ->
    (window, carry, rows, how many ended)."""

    function: Any
    codec: WindowCodec


def make_segments(
    step: TracedStep, feed: Feed, on_nonfinite: OnNonfinite, single: bool = False
) -> Segments:
    """The segments of a step, as one XLA program where that is possible and no slower."""
    segments = Segments(step, feed, on_nonfinite, single=single)
    placement = step.program.placement
    compiled = placement.xla and not placement.precomputes_sums
    if not compiled or not feed.in_one_program or slow_in_a_loop(step.function.graph):
        return segments
    whole_steps = functools.partial(segments.steps, whole=True)
    program = tf.function(whole_steps, jit_compile=True, autograph=False)
    return replace(segments, program=program)


def make_loop(
    step: TracedStep, feed: Feed, on_nonfinite: OnNonfinite, carry: LoopCarry, single: bool = False
) -> CompiledLoop:
    """Traces the loop over any number of log windows.

    Its outer loop goes from one end of a log window (or of an epoch of arrays) to the next, its
    inner one from step to step.

    Args:
      step: the traced step.
      feed: the batches, which are open.
      on_nonfinite: what follows a step that is not finite.
      carry: of `feed.start`.
      single: as in `Segments`; right for all windows, and fast for those of one step.
    """
    program, terms = step.program, len(step.program.layout.names)
    tags = tuple(step.row_values)
    codec = WindowCodec(terms, step.measured.size, tags, program.means_by_examples)
    segments = make_segments(step, feed, on_nonfinite, single)
    body = _window_body(segments, codec, terms)

    def loop(inputs, window, carry, position, steps, left, every):
        step.begin()

        def going(done, left, index, window, *_):
            more = done < steps
            return more if on_nonfinite is OnNonfinite.SKIP else more & window.finite()

        zero = tf.zeros([], tf.int32)
        ends = 1 + tf.maximum(steps - left + every, 0) // every
        _, _, index, window, carry, rows = tf.while_loop(
            going,
            lambda *values: body(inputs, position, steps, every, *values),
            (zero, left, zero, window, carry, tf.TensorArray(tf.float64, ends)),
            shape_invariants=(
                *(zero.shape,) * 3,
                LogWindow(*(part.shape for part in window)),
                feed.shapes(carry),
                None,
            ),
            parallel_iterations=1,
        )
        return window, carry, rows.stack(), index

    if program.placement.eager:
        return CompiledLoop(loop, codec)
    traced = tf.function(loop, autograph=False)
    return CompiledLoop(traced.get_concrete_function(*_specs(feed, carry, terms)), codec)


def _window_body(segments: Segments, codec: WindowCodec, terms: int):
    """The body of the outer loop: one segment, and the row of the window it ends in."""
    program, beside = segments.step.program, segments.step.measured

    def body(inputs, position, steps, every, done, left, index, window, carry, rows):
        count = tf.minimum(steps - done, left)
        at = position + tf.cast(done, tf.int64)
        window, carry, count = segments.run(inputs, window, carry, at, count)
        done, left = done + count, left - count
        ends = tf.equal(left, 0)
        if segments.on_nonfinite is not OnNonfinite.SKIP:  # the host is to see such a window
            ends &= window.finite()
        rows = rows.write(index, codec.pack(window, segments.step.row_values, beside.packed()))
        if program.reads_metrics:
            program.metrics.reset_where(ends)
        window = window.where(ends, LogWindow.empty(terms))
        left, index = tf.where(ends, every, left), index + tf.cast(ends, tf.int32)
        return done, left, index, window, carry, rows

    return body


def _specs(feed: Feed, carry: LoopCarry, terms: int) -> tuple:
    """The specs of a loop's arguments."""
    shapes = feed.shapes(carry)
    carry_specs = tf.nest.map_structure(
        lambda tensor, shape: tf.TensorSpec(shape, tensor.dtype), carry, shapes
    )
    window = tf.nest.map_structure(tf.TensorSpec.from_tensor, LogWindow.empty(terms))
    count = tf.TensorSpec([], tf.int32)
    return feed.inputs, window, carry_specs, tf.TensorSpec([], tf.int64), count, count, count


class OpenLoop:
    """A loop over data that is open; what goes from call to call is held here.

    Args:
      loop: the compiled loop.
      feed: the batches.
      carry: of `feed.start`.
    Attributes:
      in_place: whether the next batch is that of the global step; not after a call that failed.
      seen: whether the result of the last call was handed on; not where that was interrupted.
    """

    def __init__(self, loop: CompiledLoop, feed: Feed, carry: LoopCarry):
        self._loop = loop
        self._feed = feed
        self._carry = carry
        self.in_place = self.seen = True

    @property
    def last_batch(self):
        """The batch of the last step, where a pipeline's is kept; else ()."""
        return self._carry.batch

    @property
    def variables(self) -> list[tf.Variable]:
        """What the loop reads or writes."""
        return list(self._loop.function.variables)

    @property
    def feed(self) -> Feed:
        """The batches."""
        return self._feed

    @property
    def carry(self) -> LoopCarry:
        """What goes on to the next call."""
        return self._carry

    def batch_at(self, position):
        """The batch at a position, int64 []; the next one of a pipeline; in a graph."""
        return self._feed.batch_at(self._carry, position)

    def run(self, window: LogWindow, position, steps, left=FAR, every=FAR) -> LoopResult:
        """`steps` training steps from `position` of the data, over any number of log windows.

        Stops after a step whose values or gradient are not finite, unless such steps are skipped.

        Args:
          window: the log window to go on with.
          left: the steps to its end.
          every: the steps of those that follow.
        """
        position = tf.constant(position, tf.int64)
        counts = [tf.constant(count, tf.int32) for count in (steps, left, every)]
        self.in_place = self.seen = False
        try:
            window, self._carry, rows, ended = self._loop.function(
                self._feed.inputs, window, self._carry, position, *counts
            )
        except KeyboardInterrupt:  # Python raises it when the call is over
            self.in_place = self._feed.keeps_place
            raise
        self.in_place = self.seen = True
        rows, ended = rows.numpy(), int(ended)
        return LoopResult(window, rows[:ended], rows[ended], self._loop.codec)


class TrainLoops:
    """The traced loops of a run; the last few are kept, for data of other structures.

    Args:
      on_nonfinite: what follows a step that is not finite.
    """

    KEPT = 4  # each holds on to its data

    def __init__(self, on_nonfinite: OnNonfinite):
        self.on_nonfinite = on_nonfinite
        self._loops: dict[tuple, CompiledLoop] = {}

    def __len__(self) -> int:
        return len(self._loops)

    def open(
        self, step: TracedStep, source, position: int, now: int, single: bool = False
    ) -> OpenLoop:
        """The loop over a source that is opened at batch `position`, at the global step `now`.

        Args:
          single: whether most log windows are one step long.
        """
        looked_at = self.on_nonfinite is OnNonfinite.STOP or step.helps is not None
        feed = make_feed(step, source, looked_at)
        return self._loop(step, source, feed, feed.start(position, now), single)

    def continued(self, loop: OpenLoop, step: TracedStep, source, single: bool) -> OpenLoop:
        """The loop of a step that may have been traced anew, over data that stays open."""
        return self._loop(step, source, loop.feed, loop.carry, single)

    def _loop(
        self, step: TracedStep, source, feed: Feed, carry: LoopCarry, single: bool
    ) -> OpenLoop:
        key = step.key, source.key, feed.key, single
        if key not in self._loops:
            for oldest in list(self._loops)[: 1 - self.KEPT]:
                del self._loops[oldest]
            self._loops[key] = make_loop(step, feed, self.on_nonfinite, carry, single)
        return OpenLoop(self._loops[key], feed, carry)
