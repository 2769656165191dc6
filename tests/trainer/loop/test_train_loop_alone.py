"""The inner loop over a step that is no training step: rows of log windows, and what follows a
step that is not finite, by hand-computed sums.

The step's one term is the first number of its batch, of weight 2; its norm is the second.
"""

import functools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from losses.objective.layout import Layout
from trainer.data.open import open_data
from trainer.loop.feeds import AccumulatingFeed, ArrayFeed, IteratorFeed
from trainer.loop.traced_step import TracedStep
from trainer.loop.train_loop import FAR, OnNonfinite, TrainLoops, make_feed, make_segments
from trainer.loop.window import LogWindow, StepLine
from trainer.step.outputs import StepRecord

NAN, INF = float("nan"), float("inf")


def line_of(program, batch):
    """The line of a batch of one example, [1, 2]: its value and its norm."""
    value, norm = batch[0, 0], batch[0, 1]
    one, weight = tf.constant(1.0), tf.constant([2.0])
    record = StepRecord(value[None], weight, 2 * value[None], one, norm)
    return StepLine.of(record, program.skips)


@pytest.fixture
def make_step(make_program):
    """A function that makes a traced step of a function such as `line_of`."""

    def make_step(
        function=line_of, key=("fake",), passes=(), skips=False, **arguments
    ) -> TracedStep:
        program = replace(make_program(**arguments), skips=skips)
        program.discovery.settle_layout(Layout(("value",), ((),), (None,), (False,)))
        specs = [tf.TensorSpec([1, 2], tf.float32)]
        if program.optimizers.accumulation > 1:
            specs.append(tf.TensorSpec([1], tf.float32))
        jit = program.placement.xla or None
        function = functools.partial(function, program)
        traced = tf.function(function, autograph=False, jit_compile=jit)
        fake: Any = SimpleNamespace(program=program, **dict(passes))
        return TracedStep(traced.get_concrete_function(*specs), fake, None, key)

    return make_step


def examples(values, norms=None):
    """Data of one example per batch: a value and a norm, 1 by default."""
    norms = [1.0] * len(values) if norms is None else norms
    return np.array(list(zip(values, norms, strict=True)), "float32")


def source_of(data, kind="arrays"):
    if kind == "pipeline":
        return open_data(tf.data.Dataset.from_tensor_slices(data).batch(1, drop_remainder=True))
    return open_data(data, batch_size=1, static=True)


def open_loop(step, source, on_nonfinite=OnNonfinite.STOP):
    return TrainLoops(on_nonfinite).open(step, source, position=0, now=0)


def ended(result):
    """(sum of raw, steps) of each window that ended."""
    snapshots = [result.codec.read(row).sums for row in result.ended]
    return [(sums.raw.tolist(), sums.steps) for sums in snapshots]


# ---- log windows ----


@pytest.mark.parametrize("kind", ["arrays", "pipeline"])
def test_a_call_gives_a_row_of_each_window_that_ends_in_it(kind, make_step):
    step, source = make_step(), source_of(examples([1, 2, 3, 4, 5, 6, 7]), kind)
    result = open_loop(step, source).run(LogWindow.empty(1), 0, steps=7, left=2, every=3)
    assert ended(result) == [([1 + 2], 2), ([3 + 4 + 5], 3)]
    now = result.now.sums
    assert (now.raw.tolist(), now.weighted.tolist(), now.weight.tolist()) == ([13], [26], [2])
    assert (now.examples, now.grad_norm, now.steps, now.skipped) == (2, 2, 2, 0)
    assert int(step.program.counter) == 7


def test_a_window_that_ends_with_the_call_leaves_an_empty_one(make_step):
    result = open_loop(make_step(), source_of(examples([1, 2, 3, 4]))).run(
        LogWindow.empty(1), 0, steps=4, left=2, every=2
    )
    assert ended(result) == [([3], 2), ([7], 2)]
    assert result.now.sums.taken == 0
    np.testing.assert_array_equal(result.window.sums, LogWindow.empty(1).sums)
    assert not np.any(result.window.sums)


def test_a_window_goes_on_from_call_to_call(make_step):
    loop = open_loop(make_step(), source_of(examples([1, 2, 3, 4, 5])))
    first = loop.run(LogWindow.empty(1), 0, steps=2, left=4, every=4)
    second = loop.run(first.window, 2, steps=3, left=2, every=4)
    assert ended(first) == [] and ended(second) == [([1 + 2 + 3 + 4], 4)]
    assert second.now.sums.raw.tolist() == [5]


@pytest.mark.parametrize("on_nonfinite", OnNonfinite)
@pytest.mark.parametrize("kind", ["arrays", "pipeline"])
@pytest.mark.parametrize("left, every", [(1, 1), (2, 3)])
def test_a_loop_for_windows_of_one_step_is_right_for_all(
    left, every, kind, on_nonfinite, make_step
):
    data, results = BAD["a value"], []
    for single in (False, True):
        step = make_step(skips=on_nonfinite is OnNonfinite.SKIP)
        loop = TrainLoops(on_nonfinite).open(step, source_of(data, kind), 0, 0, single)
        results.append(loop.run(LogWindow.empty(1), 0, steps=7, left=left, every=every))
    plain, of_one = results
    assert ended(of_one) == ended(plain) and len(of_one.ended) >= 1
    np.testing.assert_array_equal(of_one.window.sums, plain.window.sums)
    np.testing.assert_array_equal(of_one.packed[:-1], plain.packed[:-1])  # the last is the time


def test_a_loop_for_windows_of_one_step_enters_no_inner_loop(make_step):
    def loops_in(single):
        loop = TrainLoops(OnNonfinite.STOP).open(
            make_step(), source_of(examples(VALUES)), 0, 0, single
        )
        definition = loop._loop.function.graph.as_graph_def()
        nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
        return sum(node.op in ("While", "StatelessWhile") for node in nodes)

    assert (loops_in(single=True), loops_in(single=False)) == (1, 2)


def test_without_a_window_to_end_all_steps_are_in_one(make_step):
    loop = open_loop(make_step(), source_of(examples([1, 2, 3])))
    result = loop.run(LogWindow.empty(1), 0, steps=3)
    assert ended(result) == [] and result.now.sums.raw.tolist() == [6] and FAR > 10**9


def test_a_row_has_the_learning_rate_and_the_time_at_which_its_window_ended(make_step):
    loop = open_loop(make_step(), source_of(examples([1, 2, 3])))
    result = loop.run(LogWindow.empty(1), 0, steps=3, left=1, every=1)
    rows = [result.codec.read(row) for row in result.ended]
    assert [row.values for row in rows] == [{"learning_rate": pytest.approx(0.01)}] * 3
    times = [row.time for row in rows]
    assert times == sorted(times) and times[0] > 1e9


def test_metrics_that_a_graph_can_read_are_reset_with_their_window(make_step):
    def counted(program, batch):
        program.metrics.update(tf.zeros([1, 1]), batch[:, :1])
        return line_of(program, batch)

    step = make_step(counted, metrics=["mae"])
    loop = open_loop(step, source_of(examples([1, 2, 3, 4, 5])))
    result = loop.run(LogWindow.empty(1), 0, steps=5, left=2, every=2)
    means = [result.codec.read(row).values["metrics/mae"] for row in result.ended]
    assert means == [(1 + 2) / 2, (3 + 4) / 2] and result.now.values["metrics/mae"] == 5


# ---- steps that are not finite: the fourth of seven ----

VALUES = [1, 2, 3, 4, 5, 6, 7]
BAD = {
    "a value": examples([1, 2, 3, NAN, 5, 6, 7]),
    "a norm": examples(VALUES, [1, 1, 1, INF, 1, 1, 1]),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("kind", ["arrays", "pipeline"])
def test_a_loop_that_stops_takes_no_step_after_a_bad_one(bad, kind, make_step):
    step = make_step()
    loop = open_loop(step, source_of(BAD[bad], kind), OnNonfinite.STOP)
    result = loop.run(LogWindow.empty(1), 0, steps=7, left=2, every=5)
    assert ended(result) == [([3], 2)]
    assert int(step.program.counter) == 4
    sums = result.now.sums
    assert sums.steps == 2 and not sums.finite
    last = [] if kind == "arrays" else [BAD[bad][3].tolist()]
    np.testing.assert_array_equal(np.reshape(loop.last_batch, [-1, 2]), np.reshape(last, [-1, 2]))


def test_a_window_that_ends_with_a_bad_step_is_left_for_the_host(make_step):
    loop = open_loop(make_step(), source_of(BAD["a value"]), OnNonfinite.STOP)
    result = loop.run(LogWindow.empty(1), 0, steps=7, left=4, every=4)
    assert ended(result) == [] and result.now.sums.steps == 4


@pytest.mark.parametrize("bad", BAD)
def test_a_loop_that_freezes_goes_on_to_the_windows_end_but_keeps_the_bad_window(bad, make_step):
    step = make_step()
    loop = open_loop(step, source_of(BAD[bad], "pipeline"), OnNonfinite.FREEZE)
    result = loop.run(LogWindow.empty(1), 0, steps=7, left=5, every=5)
    assert ended(result) == []
    assert int(step.program.counter) == 5  # to the end of the window, and no further
    sums = result.now.sums
    assert sums.steps == 4 and not sums.finite
    assert sums.examples == 4


@pytest.mark.parametrize("value", [4, NAN])
@pytest.mark.parametrize("kind", ["arrays", "pipeline"])
def test_a_loop_that_skips_counts_a_bad_step_and_goes_on(kind, value, make_step):
    step = make_step(skips=True)
    data = examples([1, 2, 3, value, 5, 6, 7], [1, 1, 1, NAN, 1, 1, 1])
    loop = open_loop(step, source_of(data, kind), OnNonfinite.SKIP)
    result = loop.run(LogWindow.empty(1), 0, steps=7, left=5, every=5)
    assert ended(result) == [([1 + 2 + 3 + 5], 4)]
    first = result.codec.read(result.ended[0]).sums
    assert (first.skipped, first.taken, first.examples, first.grad_norm) == (1, 5, 4, 4)
    assert result.now.sums.raw.tolist() == [13]
    assert int(step.program.counter) == 7


def test_steps_are_left_out_where_the_run_says_so():
    assert OnNonfinite.of(skips=True) is OnNonfinite.SKIP
    on_gpu = bool(tf.config.list_logical_devices("GPU"))
    assert OnNonfinite.of(skips=False) is (OnNonfinite.FREEZE if on_gpu else OnNonfinite.STOP)


# ---- one XLA program ----


def test_a_segment_in_one_program_is_that_of_the_plain_loop(make_step):
    data = examples(VALUES)
    step = make_step(xla=True)
    feed = ArrayFeed(source_of(data), xla=True)
    assert make_segments(step, feed, OnNonfinite.STOP).program is not None
    compiled = open_loop(step, source_of(data)).run(LogWindow.empty(1), 0, 9, left=2, every=4)
    plain = open_loop(make_step(), source_of(data)).run(LogWindow.empty(1), 0, 9, left=2, every=4)
    assert ended(compiled) == ended(plain) == [([3], 2), ([18], 4)]
    assert compiled.now.sums.raw.tolist() == plain.now.sums.raw.tolist() == [7 + 1 + 2]


def test_what_is_not_compiled_and_pipelines_are_no_program(make_step):
    pipeline = IteratorFeed(source_of(examples(VALUES), "pipeline"), keeps_batch=False)
    arrays = ArrayFeed(source_of(examples(VALUES)), xla=False)
    assert make_segments(make_step(xla=True), pipeline, OnNonfinite.STOP).program is None
    assert make_segments(make_step(), arrays, OnNonfinite.STOP).program is None


# ---- the loops of a run ----


def test_a_loop_is_traced_once_for_data_of_one_structure(make_step):
    loops, step = TrainLoops(OnNonfinite.STOP), make_step()
    for values in (VALUES, VALUES[::-1]):
        loops.open(step, source_of(examples(values)), 0, 0)
    assert len(loops) == 1
    loops.open(step, source_of(examples(VALUES), "pipeline"), 0, 0)
    assert len(loops) == 2


def test_the_last_few_loops_are_kept(make_step):
    loops = TrainLoops(OnNonfinite.STOP)
    for number in range(TrainLoops.KEPT + 2):
        loops.open(make_step(key=(number,)), source_of(examples([1, 2])), 0, 0)
    assert len(loops) == TrainLoops.KEPT


def test_the_feed_is_chosen_by_the_data_and_by_accumulation(make_step):
    arrays, pipeline = source_of(examples(VALUES)), source_of(examples(VALUES), "pipeline")
    assert type(make_feed(make_step(), arrays, OnNonfinite.STOP)) is ArrayFeed
    assert type(make_feed(make_step(), pipeline, OnNonfinite.STOP)) is IteratorFeed
    optimizer = keras.optimizers.SGD(gradient_accumulation_steps=2)
    accumulated = make_step(lambda program, batch, means: means, optimizer=optimizer)
    assert type(make_feed(accumulated, arrays, OnNonfinite.STOP)) is AccumulatingFeed


def test_accumulated_steps_are_given_the_mean_denominators_of_their_window(make_step):
    """The sums of a batch: its value over its norm; the window's means are those of the norms."""

    def line(program, batch, means):
        one = tf.constant(1.0)
        return StepLine.of(StepRecord(means, tf.ones([1]), means, one, one))

    def counts(batch):
        return tf.stack([batch[0, 0], batch[0, 1], 1.0, 1.0])

    optimizer = keras.optimizers.SGD(gradient_accumulation_steps=2)
    step = make_step(line, optimizer=optimizer, passes={"counts": counts})
    data = examples([0, 0, 0, 0], [2, 4, 10, 20])
    loop = open_loop(step, source_of(data, "pipeline"))
    result = loop.run(LogWindow.empty(1), 0, steps=4, left=1, every=1)
    assert ended(result) == [([3], 1), ([3], 1), ([15], 1), ([15], 1)]
