"""From what the replicas left to the run's: sums of gradients, means of what moved, by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from losses.objective.layout import Layout
from losses.objective.ratio import Ratio
from trainer.step.outputs import ReplicaResult, StepRecord
from trainer.step.reduction import sum_results
from trainer.step.trainable import TrainableVariables
from trainer.step.weighting import FixedWeighting

LINEAR = Layout(("a", "b"), ((), ()), (None, None), (False, False))
ROOT = Layout(("a", "b"), ((), ()), (None, tf.sqrt), (False, False))


def make_moving():
    """A table of rows, and the moving statistics of a normalization."""
    inputs = keras.Input((1,), dtype="int32")
    rows = keras.layers.Embedding(5, 2, name="table")(inputs)
    outputs = keras.layers.BatchNormalization(name="normal")(rows)
    return keras.Model(inputs, outputs, name="net")


def settled(make_program, strategy=None, layout=LINEAR, **arguments):
    """A program whose first trace has found the layout and the model's variables."""
    program = make_program(strategy, model=make_moving, **arguments)
    variables = {v.path: v for v in program.model.trainable_variables}
    owners = dict.fromkeys(variables, "model")
    program.discovery.settle(layout, TrainableVariables(variables, {}, owners), variables)
    return program


def result_of(present, scale):
    """What a replica left: its numbers are multiples of `scale`, its examples `present` or not."""
    return ReplicaResult(
        gradients={
            "normal/gamma": tf.constant([1.0, 2.0]) * scale,
            "table/embeddings": tf.IndexedSlices(
                tf.constant([[1.0, 0.0]]) * scale,
                tf.cast(scale, tf.int32)[None],
                tf.constant([5, 2]),
            ),
        },
        moving={
            "normal/moving_mean": tf.constant([10.0, 20.0]) * scale * present,
            "normal/moving_variance": tf.constant([1.0, 1.0]) * present,
        },
        sums=tf.stack([6.0 * scale, 8.0 * scale, 2.0, 4.0, 2.0, present]),
        raw=tf.constant([7.0, 9.0]),
        weights=tf.constant([2.0, 3.0]),
        jacobian={"normal/beta": tf.constant([[1.0, 0.0], [0.0, 1.0]]) * scale},
        decided=(tf.constant([0.5, 1.5]), None),
    )


def summed(program, strategy, presents, scales):
    """The sum of the replicas' results, each with its own `present` and `scale`."""

    @tf.function(autograph=False)
    def run():
        def replica():
            index = tf.distribute.get_replica_context().replica_id_in_sync_group
            return result_of(tf.constant(presents)[index], tf.constant(scales)[index])

        result = sum_results(program, program.weighting, strategy.run(replica))
        first = strategy.experimental_local_results
        return tf.nest.map_structure(lambda value: first(value)[0], result)

    return run()


def test_what_one_replica_left_is_the_runs(make_program):
    result = result_of(tf.constant(1.0), tf.constant(1.0))
    summed = sum_results(settled(make_program), FixedWeighting(), result)
    others = [name for name in result._fields if name != "absent"]  # which the sums tell
    assert all(getattr(summed, name) is getattr(result, name) for name in others)


def test_gradients_and_rows_of_two_replicas_are_summed_and_sparse_ones_stay_so(
    make_program, two_replicas
):
    program = settled(make_program, two_replicas)
    result = summed(program, two_replicas, [1.0, 1.0], [1.0, 3.0])
    np.testing.assert_array_equal(result.gradients["normal/gamma"], [4, 8])
    table = result.gradients["table/embeddings"]
    np.testing.assert_array_equal(table.values, [[1, 0], [3, 0]])
    np.testing.assert_array_equal(table.indices, [1, 3])
    np.testing.assert_array_equal(result.jacobian["normal/beta"], [[4, 0], [0, 4]])


def test_sums_that_are_deferred_give_the_raw_values(make_program, two_replicas):
    program = settled(make_program, two_replicas)
    result = summed(program, two_replicas, [1.0, 1.0], [1.0, 3.0])
    np.testing.assert_array_equal(result.sums, [24, 32, 4, 8, 4, 2])
    np.testing.assert_array_equal(result.raw, [6, 4])  # 24 / 4 and 32 / 8
    np.testing.assert_array_equal(result.weights, [2, 3])
    np.testing.assert_array_equal(result.decided[0], [0.5, 1.5])
    assert result.decided[1] is None and result.moving == {}


def test_sums_that_were_global_before_the_gradients_are_not_summed_again(
    make_program, two_replicas
):
    program = settled(make_program, two_replicas, ROOT)
    result = summed(program, two_replicas, [1.0, 1.0], [1.0, 1.0])
    np.testing.assert_array_equal(result.sums, [6, 8, 2, 4, 2, 1])
    np.testing.assert_array_equal(result.raw, [7, 9])


@pytest.mark.parametrize("presents, mean", [([1.0, 1.0], [20.0, 40.0]), ([0.0, 1.0], [30.0, 60.0])])
def test_a_statistic_is_the_mean_of_the_replicas_that_had_examples(
    presents, mean, make_program, two_replicas
):
    program = settled(make_program, two_replicas)
    summed(program, two_replicas, presents, [1.0, 3.0])
    moving_mean = program.model.get_layer("normal").moving_mean.value
    for copy in two_replicas.experimental_local_results(moving_mean):
        np.testing.assert_array_equal(copy, mean)


def test_what_both_passes_of_a_step_lack_is_absent_from_it():
    def record(raw, absent):
        raw, one = tf.constant(raw), tf.constant(1.0)
        return StepRecord(raw, tf.ones_like(raw), raw, one, one, absent)

    first = record([2.0, 0.0, 0.0], tf.constant([0.0, 1.0, 1.0]))
    second = record([0.0, 3.0, 0.0], tf.constant([1.0, 0.0, 1.0]))
    joined = first.joined(second)
    np.testing.assert_array_equal(joined.raw, [2, 3, 0])
    np.testing.assert_array_equal(joined.absent, [0, 0, 1])
    assert first.joined(record([0.0, 3.0, 1.0], None)).absent is None


def test_a_sum_that_a_phase_leaves_out_is_absent_from_it():
    layout = Layout(("a", "b"), ((), ()), (None, None), (False, True))
    terms = layout.with_absent({"a": Ratio(tf.constant(6.0), tf.constant(3.0))})
    np.testing.assert_array_equal(layout.present(terms) != 0, [True, False])
