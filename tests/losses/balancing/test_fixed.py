"""Fixed weights."""

import pytest
import tensorflow as tf

from losses.balancing.fixed import Fixed


def test_the_weights_are_those_given():
    weights = Fixed([1, 0.5, -2]).weights(tf.constant([3.0, 4.0, 5.0]))
    assert weights.dtype == tf.float32
    assert weights.numpy().tolist() == [1.0, 0.5, -2.0]


def test_none_is_the_plain_sum():
    assert Fixed().weights(tf.constant([3.0, 4.0])).numpy().tolist() == [1.0, 1.0]


def test_another_number_of_terms_is_an_error_that_says_both():
    with pytest.raises(ValueError, match="holds 2 numbers, but there are 3 terms"):
        Fixed([1, 2]).weights(tf.ones([3]))


@pytest.mark.parametrize("weights", [[], [1.0, float("nan")], [float("inf")]])
def test_weights_that_are_not_finite_numbers_are_refused(weights):
    with pytest.raises(ValueError, match="one finite number for each term"):
        Fixed(weights)
