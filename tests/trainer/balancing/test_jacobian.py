"""Rows of gradients: their Gramian and the direction that weights make of them."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.balancing.direction import weighted_sum
from trainer.balancing.jacobian import gramian


def test_a_direction_is_the_weighted_sum_of_the_rows_in_their_shape_and_type():
    rows = {
        "kernel": tf.constant([[[1.0, 2.0]], [[3.0, -1.0]]]),  # two terms, [1, 2]
        "bias": tf.constant([[1.0], [2.0]], tf.bfloat16),
    }
    found = weighted_sum(rows, tf.constant([2.0, 0.5]))
    np.testing.assert_array_equal(found["kernel"], [[3.5, 3.5]])
    assert found["bias"].dtype == tf.bfloat16
    np.testing.assert_array_equal(tf.cast(found["bias"], tf.float32), [3.0])


def test_one_term_is_combined_alone():
    found = weighted_sum({"w": tf.constant([[2.0, 4.0]])}, tf.constant([0.25]))
    np.testing.assert_array_equal(found["w"], [0.5, 1.0])


@pytest.mark.parametrize("jit", [None, True])
def test_gramian_and_direction_are_those_of_numpy_under_xla_too(jit):
    random = np.random.RandomState(0)
    kernel = random.randn(4, 5, 7).astype("float32")
    # norms whose squares float32 cannot hold
    bias = (random.randn(4, 3) * [[1e-25], [1.0], [1e3], [1e25]]).astype("float32")
    factors = random.rand(4).astype("float32")

    @tf.function(jit_compile=jit, autograph=False)
    def derive(kernel, bias):
        inner = gramian([kernel, bias])
        return inner, weighted_sum({"kernel": kernel, "bias": bias}, factors)

    inner, direction = derive(tf.constant(kernel), tf.constant(bias))
    flat = np.concatenate([kernel.reshape(4, -1), bias], 1).astype("float64")
    np.testing.assert_allclose(inner, flat @ flat.T, rtol=1e-12)
    for name, row in {"kernel": kernel, "bias": bias}.items():
        expected = np.tensordot(factors.astype("float64"), row.astype("float64"), 1)
        np.testing.assert_allclose(direction[name], expected, rtol=1e-6, atol=1e-6)
