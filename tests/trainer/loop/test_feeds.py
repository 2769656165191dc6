"""Each feed alone: which batch a loop gets at which step, in a graph, wherever it begins."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.data.open import open_data
from trainer.loop.feeds import AccumulatingFeed, ArrayFeed, IteratorFeed, LoopCarry


def pipeline(*batches):
    """A source of these batches of numbers."""
    spec = tf.TensorSpec([None], tf.float32)
    dataset = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=spec)
    return open_data(dataset.apply(tf.data.experimental.assert_cardinality(len(batches))))


def array_source(examples, batch_size, **arguments):
    """A source of the numbers 0, 1, 2, ..."""
    values = np.arange(examples, dtype="float32")
    return open_data(values, batch_size=batch_size, **arguments)


def position_of(number):
    return tf.constant(number, tf.int64)


def taken(feed, carry, position, count):
    """The batches, and the further arguments, of `count` steps from a position on; the carry.

    As a loop takes them: a segment at a time, each to its limit.
    """
    batches, arguments = [], []
    while count:
        carry, segment = feed.enter(feed.inputs, carry, position_of(position))
        steps = int(feed.limit(position_of(position), tf.constant(count), False))
        changing = feed.changing(carry)
        for number in feed.first(segment) + tf.range(steps):
            batch, more, changing = feed.next(feed.inputs, segment, changing, number)
            batches.append(batch.numpy().tolist())
            arguments.append([value.numpy().tolist() for value in more])
        carry = feed.changed(carry, changing)
        position, count = position + steps, count - steps
    return batches, arguments, carry


# ---- a pipeline ----


def test_a_pipeline_gives_its_batches_in_order_and_begins_anew():
    feed = IteratorFeed(pipeline([1.0, 2.0], [3.0]), keeps_batch=False)
    batches, arguments, carry = taken(feed, feed.start(0, 0), 0, 3)
    assert batches == [[1, 2], [3], [1, 2]]
    assert arguments == [[], [], []] and carry == LoopCarry()


def test_a_pipeline_is_opened_at_a_batch():
    feed = IteratorFeed(pipeline([1.0], [2.0], [3.0]), keeps_batch=False)
    assert taken(feed, feed.start(4, 4), 4, 2)[0] == [[2], [3]]
    assert int(feed.batch_at(LoopCarry(), position_of(6))[0]) == 1  # the next one


def test_the_last_batch_is_kept_where_it_is_asked_for():
    feed = IteratorFeed(pipeline([1.0, 2.0], [3.0]), keeps_batch=True)
    carry = feed.start(0, 0)
    assert carry.batch.shape == (0,)  # none yet
    assert feed.shapes(carry).batch.as_list() == [None]  # of any size later
    assert taken(feed, carry, 0, 2)[2].batch.numpy().tolist() == [3]


def test_a_ragged_batch_is_not_kept():
    ragged = tf.data.Dataset.from_tensors(tf.ragged.constant([[1.0], [2.0, 3.0]]))
    feed = IteratorFeed(open_data(ragged), keeps_batch=True)
    assert feed.start(0, 0).batch == ()


def test_a_segment_of_a_pipeline_has_no_limit_and_is_no_program():
    feed = IteratorFeed(pipeline([1.0]), keeps_batch=False)
    assert feed.limit(position_of(3), 100, True) == 100
    assert not feed.in_one_program and feed.key is None


# ---- arrays ----


def test_arrays_come_in_order_and_the_last_batch_of_an_epoch_is_short():
    feed = ArrayFeed(array_source(5, 2), xla=False)
    batches, arguments, _ = taken(feed, feed.start(0, 0), 0, 4)
    assert batches == [[0, 1], [2, 3], [4], [0, 1]]
    assert arguments == [[]] * 4


def test_arrays_begin_at_any_position():
    feed = ArrayFeed(array_source(5, 2), xla=False)
    assert taken(feed, feed.start(2, 0), 2, 2)[0] == [[4], [0, 1]]


@pytest.mark.parametrize("copied", ["both epochs", "one epoch", "the order"])
@pytest.mark.parametrize("start", [0, 2, 4])
def test_shuffled_arrays_are_those_that_their_position_tells(copied, start):
    source = array_source(5, 2, shuffle=True, seed=3)
    source.copied, source.ahead = copied != "the order", copied == "both epochs"
    feed = ArrayFeed(source, xla=False)
    batches, _, carry = taken(feed, feed.start(start, start), start, 8)
    alone = [source.batch_at(position_of(start + i)).numpy().tolist() for i in range(8)]
    assert batches == alone
    assert int(carry.epoch) == (start + 7) // 3
    assert feed.batch_at(carry, position_of(start)).numpy().tolist() == alone[0]


def test_each_epoch_has_every_example_once_in_an_order_of_its_own():
    feed = ArrayFeed(array_source(6, 2, shuffle=True), xla=False)
    batches, _, _ = taken(feed, feed.start(0, 0), 0, 9)
    epochs = np.reshape(batches, [3, 6]).tolist()
    assert [sorted(epoch) for epoch in epochs] == [[0, 1, 2, 3, 4, 5]] * 3
    assert len(set(map(tuple, epochs))) == 3


def test_a_jump_back_to_an_earlier_epoch_is_laid_out_anew():
    source = array_source(6, 2, shuffle=True)
    feed = ArrayFeed(source, xla=False)
    _, _, carry = taken(feed, feed.start(0, 0), 0, 7)
    batches, _, _ = taken(feed, carry, 1, 2)
    assert batches == [source.batch_at(position_of(i)).numpy().tolist() for i in (1, 2)]


@pytest.mark.parametrize(
    "examples, position, in_one_program, limit",
    [
        (6, 0, False, 3),  # up to the epoch's end
        (6, 4, False, 2),
        (6, 4, True, 2),  # all batches are whole
        (5, 0, False, 3),
        (5, 0, True, 2),  # the short one comes by itself
        (5, 1, True, 1),
        (5, 2, True, 1),
    ],
)
def test_a_segment_ends_with_the_epoch_and_a_program_before_a_short_batch(
    examples, position, in_one_program, limit
):
    feed = ArrayFeed(array_source(examples, 2), xla=False)
    assert int(feed.limit(position_of(position), tf.constant(100), in_one_program)) == limit
    assert int(feed.limit(position_of(position), tf.constant(1), in_one_program)) == 1


def test_all_batches_but_the_last_of_an_epoch_are_whole():
    assert ArrayFeed(array_source(6, 2), xla=False).is_whole(position_of(2)) is True
    feed = ArrayFeed(array_source(5, 2), xla=False)
    assert [bool(feed.is_whole(position_of(i))) for i in range(4)] == [True, True, False, True]


def test_a_batch_that_is_known_to_be_whole_has_a_static_size():
    feed = ArrayFeed(array_source(5, 2), xla=True)
    assert feed.in_one_program

    @tf.function(autograph=False)
    def second(inputs, position):
        _, segment = feed.enter(inputs, LoopCarry(), position)
        batch, _, _ = feed.next(inputs, segment, (), feed.first(segment) + 1, whole=True)
        assert batch.shape == (2,)
        return batch

    assert second(feed.inputs, position_of(0)).numpy().tolist() == [2, 3]


# ---- accumulated steps ----


def accumulating(source, every, step=0):
    """A feed of accumulated steps whose one term counts the examples of a batch."""
    counter = tf.Variable(step, dtype=tf.int64)

    def count(batch):
        return tf.cast(tf.shape(batch), tf.float32)

    return AccumulatingFeed(source, every, counter, count, 1, False, False), counter


def stepped(feed, counter, carry, position, count):
    """`taken`, with the global step moved on after each step, as a loop does."""
    batches, means = [], []
    for _ in range(count):
        one, arguments, carry = taken(feed, carry, position, 1)
        batches += one
        means.append(arguments[0][0][0])
        position += 1
        counter.assign_add(1)
    return batches, means


def test_a_pipelines_steps_know_the_mean_denominators_of_their_window():
    feed, counter = accumulating(pipeline([1.0], [2.0, 3.0, 4.0], [5.0, 6.0], [7.0, 8.0]), 2)
    batches, means = stepped(feed, counter, feed.start(0, 0), 0, 5)
    assert batches == [[1], [2, 3, 4], [5, 6], [7, 8], [1]]
    assert means == [2, 2, 2, 2, 2]


def test_windows_of_arrays_may_cross_an_epoch():
    feed, counter = accumulating(array_source(5, 2), 2)
    batches, means = stepped(feed, counter, feed.start(0, 0), 0, 6)
    assert batches == [[0, 1], [2, 3], [4], [0, 1], [2, 3], [4]]
    assert means == [2, 2, 1.5, 1.5, 1.5, 1.5]


BATCHES = [1.0], [2.0, 3.0], [4.0, 5.0, 6.0]


@pytest.mark.parametrize("kind", ["pipeline", "arrays"])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_run_that_stopped_inside_a_window_goes_on_as_if_it_had_not(kind, step):
    def source():
        return pipeline(*BATCHES) if kind == "pipeline" else array_source(5, 2)

    feed, counter = accumulating(source(), 3)
    batches, means = stepped(feed, counter, feed.start(0, 0), 0, 6)
    feed, counter = accumulating(source(), 3, step)
    resumed = stepped(feed, counter, feed.start(step, step), step, 6 - step)
    assert resumed == (batches[step:], means[step:])


def test_data_that_begin_inside_a_window_fill_what_is_left_of_it():
    """New data at step 4 of windows of 3: the window's first step was of other data."""
    feed, counter = accumulating(pipeline(*BATCHES), 3, step=4)
    batches, means = stepped(feed, counter, feed.start(0, 4), 0, 3)
    assert batches == [[1], [2, 3], [4, 5, 6]]
    assert means == [1.5, 1.5, 2]  # of two batches; then of a whole window


def test_a_batch_is_counted_before_it_is_looked_at_alone():
    feed, _ = accumulating(pipeline(*BATCHES), 3)
    carry = feed.start(0, 0)
    assert feed.batch_at(carry, position_of(0)).numpy().tolist() == [1]


def test_a_loop_over_a_queue_depends_on_the_feed():
    feed, _ = accumulating(pipeline(*BATCHES), 3)
    assert feed.key is feed and feed.inputs == () and not feed.in_one_program


def test_an_accumulating_feed_keeps_the_last_batch_of_a_pipeline():
    source = pipeline(*BATCHES)
    counter = tf.Variable(0, dtype=tf.int64)
    feed = AccumulatingFeed(source, 3, counter, lambda batch: tf.ones([1]), 1, True, False)
    carry = feed.start(0, 0)
    assert feed.shapes(carry).batch.as_list() == [None]
    _, _, carry = taken(feed, carry, 0, 1)
    assert carry.batch.numpy().tolist() == [1] and carry.accumulation.numpy().tolist() == [1]
