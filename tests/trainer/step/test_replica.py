"""One replica's passes over the four examples: what training, counting, evaluation and prediction
leave, and what each of them changes."""

import numpy as np
import pytest
import tensorflow as tf

from losses import Ratio
from trainer.step.replica import count_replica, evaluate_replica, predict_replica, train_replica


def train(program, batch, present=None):
    return train_replica(program, program.weighting, batch, present, None, None, None)


def test_a_first_pass_finds_the_terms_and_the_variables(make_program, batch):
    program = make_program()
    assert program.discovery.layout is None and not program.trainables.owners
    train(program, batch)
    assert program.layout.names == ("square", "output")
    assert program.trainables.owners == {"line/kernel": "model", "line/bias": "model"}


def test_metrics_count_the_examples_that_are_present(make_program, batch):
    program = make_program(metrics=["mae"])
    train(program, batch)
    train(program, batch, tf.constant(0.0))
    assert program.metrics.results() == {"mae": (1 + 2 + 1 + 3) / 4}


def test_one_replica_hands_on_no_statistics(make_program, batch):
    assert train(make_program(), batch).moving == {}


def test_padding_has_no_gradient(make_program, batch):
    result = train(make_program(), batch, tf.constant(0.0))
    np.testing.assert_array_equal(result.gradients["line/kernel"], [[0], [0]])
    np.testing.assert_array_equal(result.raw, [0, 0])


def test_a_count_of_linear_terms_leaves_their_numerators_out(make_program, batch):
    program = make_program()
    np.testing.assert_array_equal(count_replica(program, batch, None), [0, 0, 4, 4, 4, 1])
    assert program.layout.names == ("square", "output")


def test_a_count_keeps_the_numerators_that_a_gradient_needs(make_program, batch):
    def compute_terms(step):
        return {"root": Ratio(tf.reduce_sum(step.y_pred), tf.constant(4.0), after=tf.sqrt)}

    program = make_program(compute_terms=compute_terms)
    np.testing.assert_array_equal(count_replica(program, batch, None), [8, 4, 4, 1])


@pytest.mark.parametrize("valid, sums", [(None, [15, 8]), (1.0, [15, 8]), (0.0, [0, 0])])
def test_an_evaluation_counts_a_batch_that_is_valid(valid, sums, make_program, batch):
    layouts: list = []
    program = make_program()
    valid = None if valid is None else tf.constant(valid)
    numerators, denominators, counts, weights = evaluate_replica(program, layouts, batch, valid)
    np.testing.assert_array_equal(numerators, sums)
    np.testing.assert_array_equal(denominators, [4 if any(sums) else 0] * 2)
    np.testing.assert_array_equal(counts, [1, 1])  # neither can be absent
    np.testing.assert_array_equal(weights, [2, 3])
    assert [layout.names for layout in layouts] == [("square", "output")]
    assert program.discovery.layout is None  # an evaluation may have other terms


def test_a_prediction_is_the_models_outputs(make_program, batch):
    outputs, present = predict_replica(make_program(), batch)
    np.testing.assert_array_equal(outputs, [[2.5], [-0.5], [1.5], [4.5]])
    assert present is None


def test_two_replicas_say_which_of_them_has_outputs(make_program, batch, two_replicas):
    program = make_program(two_replicas)

    @tf.function(autograph=False)
    def predict(batch):
        return two_replicas.run(lambda batch: predict_replica(program, batch), args=(batch,))

    outputs, presents = predict(tuple(part[:1] for part in batch))
    results = two_replicas.experimental_local_results
    assert [float(present) for present in results(presents)] == [0, 1]
    np.testing.assert_array_equal(results(outputs)[1], [[2.5]])
