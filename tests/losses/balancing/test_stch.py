"""Smooth Tchebycheff scalarization."""

import math

import numpy as np
import pytest
import tensorflow as tf

from losses.balancing.stch import STCH

# TorchJD 0.18.0 (torch 2.15.0, float64): the gradient of STCH(...)(losses(step)), by autograd.
TORCHJD_MU_10 = {
    0: [0.0485247, 0.239545, 0.0452638],
    8: [0.0505107, 0.233892, 0.0489301],
    24: [0.08538, 0.163286, 0.0846674],
}
TORCHJD_WITH_PREFERENCE = {
    0: [1.17476e-06, 0.499995, 1.43832e-06],
    8: [2.25206e-06, 0.499989, 3.08727e-06],
    24: [0.00186419, 0.49077, 0.00274162],
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


@pytest.mark.parametrize(
    "balancer, recorded",
    [
        (STCH(10.0), TORCHJD_MU_10),
        (STCH(2.0, preference=[0.2, 0.5, 0.3], ideal=[0.05, 1.0, 0.0]), TORCHJD_WITH_PREFERENCE),
    ],
)
def test_the_weights_are_those_of_torchjd(balancer, recorded):
    for step, expected in recorded.items():
        np.testing.assert_allclose(balancer.weights(tf.constant(losses(step))), expected, rtol=1e-4)


def test_the_weights_are_the_derivative_of_the_smooth_maximum():
    preference, mu, ideal = np.array([0.2, 0.5, 0.3]), 3.0, -1.0

    def smooth_maximum(values):
        return mu * np.log(np.exp(preference * (values - ideal) / mu).sum())

    balancer = STCH(mu, preference=preference, ideal=ideal)
    for step in range(20):
        values = losses(step)
        expected = [
            (smooth_maximum(values + h) - smooth_maximum(values - h)) / 2e-5
            for h in 1e-5 * np.eye(3)
        ]
        np.testing.assert_allclose(balancer.weights(tf.constant(values)), expected, atol=1e-8)


def test_a_small_mu_leaves_the_worst_term_alone():
    weights = STCH(1e-6).weights(tf.constant([1.0, 1e20, 5.0]))
    np.testing.assert_allclose(weights, [0.0, 1 / 3, 0.0], atol=1e-7)


def test_equal_losses_share_equally():
    np.testing.assert_allclose(STCH().weights(tf.fill([4], 7.0)), np.full(4, 1 / 16), rtol=1e-6)


@pytest.mark.parametrize("arguments", [{"mu": 0}, {"ideal": [[1.0]]}, {"preference": [1, -1]}])
def test_arguments_outside_their_range_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        STCH(**arguments)


@pytest.mark.parametrize("arguments", [{"ideal": [1.0, 2.0]}, {"preference": [1, 1]}])
def test_another_number_of_terms_is_an_error_that_says_both(arguments):
    with pytest.raises(ValueError, match="holds 2 numbers, but there are 3 terms"):
        STCH(**arguments).weights(tf.ones([3]))
