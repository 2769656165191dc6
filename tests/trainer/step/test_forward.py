"""The forward pass of one replica: a batch's terms as two sums each, padding that counts nothing,
and a pass that changes nothing in the model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from losses import Ratio
from losses.distributed.gather import owned
from trainer.step.forward import make_step, make_terms, run_forward, stateless_forward
from trainer.step.weighting import FixedWeighting


def run(program, batch, present=None):
    return run_forward(program, program.weighting, batch, present)


def test_each_term_of_a_batch_is_the_sum_of_its_examples_over_their_number(make_program, batch):
    forward = run(make_program(), batch)
    assert forward.layout.names == ("square", "output")
    np.testing.assert_array_equal(forward.numerators, [1 + 4 + 1 + 9, 2.5 - 0.5 + 1.5 + 4.5])
    np.testing.assert_array_equal(forward.denominators, [4, 4])
    assert float(forward.terms["square"].value()) == 3.75
    assert forward.tapped == ()


def test_the_sums_end_with_the_examples_and_a_one(make_program, batch):
    np.testing.assert_array_equal(run(make_program(), batch).sums(None), [15, 8, 4, 4, 4, 1])


def test_a_padding_example_counts_nothing(make_program, batch):
    lent = tuple(part[:1] for part in batch)
    absent = tf.constant(0.0)
    np.testing.assert_array_equal(run(make_program(), lent, absent).sums(absent), np.zeros(6))


def test_an_example_that_is_present_counts_as_one_that_is_known_to_be(make_program, batch):
    one = tf.constant(1.0)
    np.testing.assert_array_equal(run(make_program(), batch, one).sums(one), [15, 8, 4, 4, 4, 1])


def test_a_loss_that_compares_examples_is_told_that_they_are_padding(make_program, batch):
    def compute_terms(step):
        return {"alive": Ratio(owned(tf.constant(5.0)))}

    program = make_program(compute_terms=compute_terms)
    assert float(run(program, batch).numerators[0]) == 5
    assert float(run(program, batch, tf.constant(0.0)).numerators[0]) == 0


def test_a_term_with_a_function_after_the_division_keeps_its_sums(make_program, batch):
    def compute_terms(step):
        squares = tf.square(step.y_pred - step.y)[:, 0]
        return {"root": Ratio(tf.reduce_sum(squares), tf.constant(4.0), after=tf.sqrt)}

    forward = run(make_program(compute_terms=compute_terms), batch)
    np.testing.assert_array_equal(forward.numerators, [15])
    raw = forward.layout.raw(forward.numerators, forward.denominators)
    assert float(raw[0]) == pytest.approx(3.75**0.5)


def test_a_step_is_made_of_the_batch_and_of_the_outputs_that_forward_gives(make_program, batch):
    program = make_program(forward=lambda step: step.x[:, :1] * 10)
    program.counter.assign(7)
    step = make_step(program, (*batch, tf.constant([1.0, 2.0, 3.0, 4.0])), training=True)
    np.testing.assert_array_equal(step.y_pred, [[10], [0], [10], [20]])
    np.testing.assert_array_equal(step.sample_weight, [1, 2, 3, 4])
    assert int(step.step) == 7 and float(step.examples) == 4 and step.training is True


def test_class_weights_weigh_the_examples_that_train_and_no_others(make_program, batch):
    program = make_program(class_weight={1: 5.0})
    labelled = batch[0], tf.constant([0, 1, 1, 0])
    np.testing.assert_array_equal(make_step(program, labelled, True).sample_weight, [1, 5, 5, 1])
    assert make_step(program, labelled, training=False).sample_weight is None


def test_a_forward_that_returns_nothing_is_an_error(make_program, batch):
    with pytest.raises(TypeError, match="Return the model's outputs"):
        make_step(make_program(forward=lambda step: None), batch, training=True)


def test_the_models_own_terms_are_those_of_the_clean_pass(make_program, make_line, batch):
    """A term that calls the model again clears what the model's layers have added."""

    def compute_terms(step):
        return {"again": step.model(10 * step.x)[:, 0]}

    program = make_program(
        model=lambda: make_line(
            kernel_regularizer=keras.regularizers.L2(0.1),
            activity_regularizer=keras.regularizers.L1(1.0),
        ),
        compute_terms=compute_terms,
    )
    terms = make_terms(program, make_step(program, batch, True), None)
    assert list(terms) == ["again", "regularization/line/kernel", "add_loss/line"]
    assert float(terms["regularization/line/kernel"].value()) == 0.1 * (4 + 1)
    # the mean of |2.5|, |-0.5|, |1.5|, |4.5|
    assert float(terms["add_loss/line"].value()) == 2.25


class Penalized(FixedWeighting):
    def penalties(self, terms, weights_of):
        assert list(terms) == ["square", "output"]
        return {"uncertainty/square": Ratio.once(tf.constant(0.25))}


def test_what_the_weighting_adds_is_among_the_terms(make_program, batch):
    program = make_program(weighting=Penalized())
    forward = run(program, batch)
    assert forward.layout.names == ("square", "output", "uncertainty/square")
    assert float(forward.terms["uncertainty/square"].value()) == 0.25


def make_moving():
    """Moves statistics and draws random numbers in each training pass."""
    inputs = keras.Input((2,))
    normal = keras.layers.BatchNormalization(name="normal")(inputs)
    dropped = keras.layers.Dropout(0.5, seed=3, name="dropped")(normal)
    line = keras.layers.Dense(1, kernel_regularizer=keras.regularizers.L2(0.1), name="line")
    model = keras.Model(inputs, line(dropped), name="net")
    line.set_weights([tf.constant([[2.0], [-1.0]]), tf.constant([0.5])])
    return model


def test_a_pass_that_changes_nothing_moves_no_statistics_and_no_draws(make_program, batch):
    program = make_program(model=make_moving)
    before = [v.numpy() for v in program.model.variables]
    forward = stateless_forward(program, batch, None)
    for variable, value in zip(program.model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value, err_msg=variable.path)
    assert float(forward.terms["regularization/line/kernel"].value()) == 0.5
    # the next training pass draws what this one drew, and moves what this one did not
    np.testing.assert_array_equal(run(program, batch).numerators, forward.numerators)
    moving_mean = program.model.get_layer("normal").moving_mean
    np.testing.assert_allclose(moving_mean, 0.01 * np.array([1.0, 0.5]), rtol=1e-5)


def test_terms_of_the_objective_stand_before_the_models_own(make_program, batch):
    three = losses.term(lambda s: s.y[:, 0], name="three")
    program = make_program(model=make_moving, terms=lambda: [three])
    forward = run(program, batch)
    assert forward.layout.names == ("three", "regularization/line/kernel")
    np.testing.assert_array_equal(forward.numerators, [1.5 - 2.5 + 2.5 + 1.5, 0.5])
    np.testing.assert_array_equal(forward.denominators, [4, 1])
