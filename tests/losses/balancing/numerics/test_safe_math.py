"""What balancers from values and norms compute with."""

import numpy as np
import pytest
import tensorflow as tf

from losses.balancing import STCH
from losses.balancing.numerics.safe_math import check_points, double, finite, points, ratio


def doubles(*numbers):
    return tf.constant(numbers, tf.float64)


def test_a_ratio_by_zero_is_bounded_and_zero_by_zero_is_one():
    given = ratio(doubles(6, 0, 5, -5, 1e300), doubles(3, 0, 0, 0, 1e-5))
    np.testing.assert_array_equal(given, [2, 1, 1e30, -1e30, 1e30])


def test_an_overflow_becomes_the_largest_number_of_the_dtype():
    given = finite(doubles(1e300, -1e300, 0.5), tf.zeros([3], tf.float16))
    assert given.dtype == tf.float16
    np.testing.assert_array_equal(given, np.array([65504, -65504, 0.5], np.float16))


def test_whole_numbers_give_float32_weights():
    assert finite(doubles(0.5), tf.constant([1])).dtype == tf.float32
    assert double([1, 2]).dtype == tf.float64


def test_points_are_none_a_number_or_one_for_each_term():
    assert points(None, "ideal", check_points(None, "ideal", None), 2).numpy() == 0
    assert points(None, "ideal", check_points(None, "ideal", 3), 2).numpy() == 3
    each = check_points(None, "ideal", [3, 4])
    assert points(STCH(), "ideal", each, 2).numpy().tolist() == [3, 4]
    with pytest.raises(ValueError, match="give a finite number"):
        check_points(None, "ideal", [1.0, float("nan")])
