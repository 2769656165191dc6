"""The floating inputs as rows, and back; what is given by input is spread over them."""

import numpy as np
import pytest
import tensorflow as tf

from losses.terms.float_inputs import FloatInputs

X = {
    "a": tf.reshape(tf.range(12.0), [2, 3, 2]),
    "id": tf.constant([[1], [2]]),
    "b": tf.constant([7.0, 8.0]),
    "half": tf.constant([[0.5], [0.25]], tf.float16),
}


def test_rows_hold_every_floating_input_and_go_back():
    inputs = FloatInputs(X, "t")
    expected = [[*range(6), 7, 0.5], [*range(6, 12), 8, 0.25]]
    np.testing.assert_array_equal(inputs.rows, expected)
    back = inputs.with_rows(inputs.rows * 2.0)
    assert list(back) == list(X)
    np.testing.assert_array_equal(back["a"], 2 * X["a"])
    np.testing.assert_array_equal(back["b"], [14.0, 16.0])
    assert back["half"].dtype == tf.float16
    assert back["id"] is X["id"]


@pytest.mark.parametrize("x", [X["a"], (X["a"], X["id"]), [X["b"], X["half"]]])
def test_every_structure_goes_back_to_itself(x):
    inputs = FloatInputs(x, "t")
    back = inputs.with_rows(inputs.rows)
    tf.nest.assert_same_structure(back, x)
    tf.nest.map_structure(np.testing.assert_array_equal, back, x)


def test_what_is_given_by_input_is_spread_over_its_features():
    spread = FloatInputs(X, "t").spread({"a": [0.0, 5.0], "b": 3.0}, "mask", 1.0)
    np.testing.assert_array_equal(spread, [[0, 5, 0, 5, 0, 5, 3, 1]] * 2)
    one = FloatInputs(X["a"], "t").spread([0.0, 5.0], "mask", 1.0)
    np.testing.assert_array_equal(one, [[0, 5, 0, 5, 0, 5]] * 2)
    pair = FloatInputs((X["b"], X["half"]), "t").spread([None, 2.0], "mask", 1.0)
    np.testing.assert_array_equal(pair, [[1, 2]] * 2)


def test_an_input_that_does_not_exist_is_an_error():
    inputs = FloatInputs(X, "t")
    with pytest.raises(ValueError, match=r"mask names input 'hal'.*Did you mean 'half'"):
        inputs.spread({"hal": 1.0}, "mask", 1.0)
    with pytest.raises(ValueError, match=r"shape \(3,\) for an input of shape \(2, 3, 2\)"):
        inputs.spread({"a": [1.0, 1.0, 1.0]}, "mask", 1.0)


def test_inputs_without_a_floating_one_are_an_error():
    with pytest.raises(
        ValueError, match="'adv' perturbs floating inputs, but the inputs are int32"
    ):
        FloatInputs(X["id"], "adv")


def test_a_batch_of_unknown_size_keeps_its_static_shape():
    @tf.function(input_signature=[tf.TensorSpec([None, 3, 2])])
    def back(x):
        inputs = FloatInputs(x, "t")
        out = inputs.with_rows(inputs.rows)
        assert out.shape.as_list() == [None, 3, 2]
        return out

    np.testing.assert_array_equal(back(X["a"]), X["a"])
