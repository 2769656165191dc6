"""The geometric loss strategy."""

import math

import numpy as np
import pytest
import tensorflow as tf

from losses.balancing.geometric_mean import GeometricMean

# TorchJD 0.18.0 (torch 2.15.0, float64): the gradient of GeometricMean()(losses(step)).
TORCHJD = {
    0: [0.176077, 0.00739525, 28.4433],
    8: [0.237631, 0.00486456, 32.0398],
    24: [0.44407, 0.00584695, 14.2645],
}


def losses(step):
    """[3], unlike in unit: a fall, a noisy fall, no fall."""
    return np.array(
        [
            2 * 0.9**step + 0.1,
            50 * 0.97**step * (1 + 0.2 * math.sin(step)),
            0.01 * (1 + 0.3 * math.cos(2 * step)),
        ]
    )


@pytest.mark.parametrize("step", TORCHJD)
def test_the_weights_are_those_of_torchjd(step):
    weights = GeometricMean().weights(tf.constant(losses(step)))
    np.testing.assert_allclose(weights, TORCHJD[step], rtol=1e-4)


def test_the_weighted_sum_is_the_geometric_mean():
    for step in range(20):
        values = losses(step)
        weights = GeometricMean().weights(tf.constant(values)).numpy()
        np.testing.assert_allclose(weights @ values, np.prod(values) ** (1 / 3), rtol=1e-12)
        np.testing.assert_allclose(weights * values, np.full(3, weights[0] * values[0]), rtol=1e-12)


def test_zero_and_negative_values_count_as_the_floor():
    weights = GeometricMean(floor=1e-4).weights(tf.constant([0.0, -3.0, 1.0], tf.float64))
    # GLS = (1e-4 * 1e-4)^(1/3) = 0.00215443; over 3 * 1e-4, and over 3
    np.testing.assert_allclose(weights, [7.181448, 7.181448, 7.181448e-4], rtol=1e-6)


def test_losses_of_extreme_size_leave_the_weights_finite():
    weights = GeometricMean().weights(tf.constant([0.0] + [3e38] * 9))
    assert np.isfinite(weights).all()


def test_a_floor_of_zero_is_refused():
    with pytest.raises(ValueError, match="floor=0"):
        GeometricMean(floor=0)
