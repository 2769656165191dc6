"""NTK weights."""

import numpy as np
import tensorflow as tf

from losses.balancing.ntk import NTK


def test_the_weights_are_the_total_over_each_trace():
    # Two terms of a linear model r = X w: trace(K) is the sum of all squared inputs.
    first, second = np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([[3.0, 0.0]])
    traces = [np.trace(first @ first.T), np.trace(second @ second.T)]  # 6 and 9
    np.testing.assert_allclose(NTK().weights(tf.constant(traces)), [15 / 6, 15 / 9], rtol=1e-12)


def test_random_signs_estimate_the_trace():
    # The estimate that the class describes, over all sign vectors: its mean is the trace.
    rows = np.array([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, -1).T
    np.testing.assert_allclose(
        np.mean(np.sum((signs @ rows) ** 2, axis=1)), np.trace(rows @ rows.T)
    )


def test_weighted_traces_are_equal():
    traces = tf.constant([1e-12, 3.0, 5e20], tf.float64)
    np.testing.assert_allclose(NTK().weights(traces) * traces, [5e20] * 3, rtol=1e-9)


def test_a_term_without_kernel_has_weight_one():
    np.testing.assert_allclose(NTK().weights(tf.constant([0.0, 2.0, 2.0])), [1.0, 2.0, 2.0])
    np.testing.assert_allclose(NTK().weights(tf.zeros([3])), [1.0, 1.0, 1.0])


def test_extreme_traces_leave_the_weights_finite():
    assert np.isfinite(NTK().weights(tf.constant([1e-37, 3e38]))).all()
