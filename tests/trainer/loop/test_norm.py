"""The norm of all gradients together, by hand: dense, sparse, in half precision, compiled."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.loop.norm import LANES, global_norm


@pytest.mark.parametrize("xla", [False, True])
def test_the_norm_is_that_of_all_gradients_as_one_vector(xla):
    gradients = [tf.constant([[1.0, 2.0], [2.0, 0.0]]), tf.constant(4.0)]
    assert float(global_norm(gradients, xla)) == 5  # sqrt(1 + 4 + 4 + 16)


@pytest.mark.parametrize("xla", [False, True])
def test_gradients_in_half_precision_are_squared_in_single(xla):
    gradients = [tf.constant([300.0, 400.0], tf.float16)]  # whose squares float16 cannot hold
    norm = global_norm(gradients, xla)
    assert norm.dtype == tf.float32 and float(norm) == 500


@pytest.mark.parametrize("size", [1, LANES - 1, LANES, LANES + 1, 5 * LANES + 3])
def test_a_sum_in_lanes_leaves_no_value_out(size):
    values = np.arange(1.0, size + 1, dtype="float32")
    expected = np.sqrt(size * (size + 1) * (2 * size + 1) / 6)  # of the squares 1 to size
    assert float(global_norm([tf.constant(values)], True)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("xla", [False, True])
def test_a_sparse_gradient_has_the_norm_of_its_values(xla):
    rows = tf.IndexedSlices(tf.constant([[3.0], [4.0]]), tf.constant([1, 1]), tf.constant([9, 1]))
    assert float(global_norm([rows, tf.constant([12.0])], xla)) == 13


@pytest.mark.parametrize("xla", [False, True])
def test_a_value_that_is_not_finite_makes_the_norm_so(xla):
    assert not np.isfinite(global_norm([tf.constant([1.0, np.inf])], xla))
    assert np.isnan(global_norm([tf.constant([1.0, np.nan])], xla))


def test_a_compiled_norm_takes_a_gradient_of_unknown_size():
    # as the gradient of a recurrent layer behind a frozen one has it
    @tf.function(input_signature=[tf.TensorSpec([None])], jit_compile=True)
    def norm(gradient):
        return global_norm([gradient, tf.constant([[2.0]])], True)

    assert float(norm(tf.constant([1.0, 2.0]))) == 3
