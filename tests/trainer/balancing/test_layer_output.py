"""A layer's outputs, noted while its activity regularizer is lent: given back unchanged, each
replica's apart, without a term of its own."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from losses.objective.model_terms import add_loss_terms
from trainer.balancing.layer_output import LayerOutput, find_layer

X = tf.constant([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 0.0]])
KERNEL, BIAS = [[2.0], [-1.0]], [0.5]
OUTPUTS = [[2.5], [-0.5], [1.5], [4.5]]


def make_model(**dense):
    inputs = keras.Input((2,))
    line = keras.layers.Dense(1, name="line", **dense)
    model = keras.Model(inputs, keras.layers.Dense(1, name="head")(line(inputs)), name="net")
    line.set_weights([np.array(KERNEL), np.array(BIAS)])
    return model, line


def state_of(layer):
    """What must be as before: its method, its regularizer, the names of its attributes."""
    return layer.call, layer.activity_regularizer, sorted(vars(layer))


def test_the_outputs_of_a_pass_are_noted_in_order_and_the_tape_watches_them():
    _, line = make_model()
    output = LayerOutput(line)
    with tf.GradientTape() as tape, output.lent(), output.recorded(tape) as outputs:
        once, twice = line(X), line(2 * X)
        total = 3 * tf.reduce_sum(once) + 5 * tf.reduce_sum(twice)
    assert len(outputs) == 2
    np.testing.assert_array_equal(outputs[0], OUTPUTS)
    by_outputs = tape.gradient(total, outputs)
    np.testing.assert_array_equal(by_outputs[0], np.full([4, 1], 3.0))
    np.testing.assert_array_equal(by_outputs[1], np.full([4, 1], 5.0))


def test_an_output_that_no_variable_reaches_is_watched_too():
    layer = keras.layers.Rescaling(2.0)
    output = LayerOutput(layer)
    with tf.GradientTape() as tape, output.lent(), output.recorded(tape) as outputs:
        total = tf.reduce_sum(layer(X))
    np.testing.assert_array_equal(tape.gradient(total, outputs[0]), np.ones([4, 2]))


@pytest.mark.parametrize("regularizer", [None, "l2"])
def test_the_layer_is_given_back_as_it_was(regularizer):
    model, line = make_model(activity_regularizer=regularizer)
    model(X)
    before = state_of(line)
    output = LayerOutput(line)
    with tf.GradientTape() as tape, output.lent(), output.recorded(tape):
        model(X)
        assert line.activity_regularizer is not before[1]
    assert state_of(line) == before


def test_the_layer_is_given_back_where_the_pass_fails():
    model, line = make_model()
    before = state_of(line)
    output = LayerOutput(line)
    failing = pytest.raises(ZeroDivisionError)
    with failing, tf.GradientTape() as tape, output.lent(), output.recorded(tape):
        raise ZeroDivisionError
    assert state_of(line) == before
    with tf.GradientTape() as tape, output.lent(), output.recorded(tape) as outputs:
        model(X)
    assert len(outputs) == 1  # the next pass starts anew


def test_each_replicas_thread_has_its_own_outputs():
    """Two replicas take turns: each has begun before one of them calls the layer."""
    _, line = make_model()
    output, begun, noted = LayerOutput(line), threading.Barrier(2, timeout=30), {}

    def replica(index):
        with tf.GradientTape() as tape, output.recorded(tape) as outputs:
            begun.wait()
            total = tf.reduce_sum(line(X[index : index + 1])) * (index + 1.0)
            begun.wait()
        noted[index] = outputs, tape.gradient(total, outputs)

    with output.lent():
        threads = [threading.Thread(target=replica, args=(index,)) for index in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for index in range(2):
        outputs, gradients = noted[index]
        assert len(outputs) == 1
        np.testing.assert_array_equal(outputs[0], [OUTPUTS[index]])
        np.testing.assert_array_equal(gradients[0], [[index + 1]])


def test_a_call_outside_a_recorded_pass_is_not_noted():
    _, line = make_model()
    output = LayerOutput(line)
    with output.lent():
        with tf.GradientTape() as tape, output.recorded(tape) as outputs:
            line(X)
        line(X)
    assert len(outputs) == 1


def test_a_layer_that_the_pass_does_not_call_is_an_error():
    _, line = make_model()
    output = LayerOutput(line)
    told = "at= names layer 'line', which the forward pass does not call"
    refused = pytest.raises(ValueError, match=told)
    with refused, tf.GradientTape() as tape, output.lent(), output.recorded(tape):
        pass


def test_a_lent_layer_adds_no_term():
    model, line = make_model()
    output = LayerOutput(line)
    with tf.GradientTape() as tape, output.lent(), output.recorded(tape):
        model(X)
        assert add_loss_terms(model, tf.constant(4.0)) == {}


def test_a_layers_own_activity_regularizer_keeps_its_value():
    model, line = make_model(activity_regularizer=keras.regularizers.L1(1.0))
    output = LayerOutput(line)
    with tf.GradientTape() as tape, output.lent(), output.recorded(tape) as outputs:
        model(X)
        terms = add_loss_terms(model, tf.constant(4.0))
    assert list(terms) == ["add_loss/line"] and len(outputs) == 1
    # the mean over the examples of |2.5|, |-0.5|, |1.5|, |4.5|
    assert float(terms["add_loss/line"].value()) == 2.25


def test_a_layer_is_found_by_itself_by_its_name_and_in_a_model_within():
    model, line = make_model()
    outer = keras.Sequential([keras.Input((2,)), model])
    assert find_layer(model, line) is line
    assert find_layer(model, "line") is line and find_layer(outer, "line") is line
    assert find_layer(model, "net") is model


@pytest.mark.parametrize("at", [None, "line/*", "lin", ["line"]])
def test_what_names_no_layer_means_variables(at):
    assert find_layer(make_model()[0], at) is None
