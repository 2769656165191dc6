"""Trained weights: uncertainty weighting and IMTL-L."""

import math

import numpy as np
import pytest
import tensorflow as tf

from losses.balancing.uncertainty import IMTLL, Uncertainty

# TorchJD 0.18.0 (torch 2.15.0, float64): the gradient of UW(3) and IMTLL(3) with respect to
# losses(step), then their parameter, before each of 25 steps of torch.optim.SGD(lr=0.01).
TORCHJD_UW = {
    8: ([0.489968, 0.173096, 0.520187], [0.0202672, 1.06076, -0.0395795]),
    24: ([0.508643, 0.0971989, 0.563027], [-0.0171376, 1.63785, -0.11872]),
}
TORCHJD_IMTLL = {
    8: ([0.961534, 0.206298, 1.08236], [-0.0392257, -1.57843, 0.0791443]),
    24: ([1.03702, 0.112569, 1.2678], [0.0363556, -2.18419, 0.237287]),
}

each = pytest.mark.parametrize("kind", [Uncertainty, IMTLL])


def losses(step):
    """[3], unlike in unit: a fall, a noisy fall, no fall."""
    return np.array(
        [
            2 * 0.9**step + 0.1,
            50 * 0.97**step * (1 + 0.2 * math.sin(step)),
            0.01 * (1 + 0.3 * math.cos(2 * step)),
        ]
    )


@pytest.mark.parametrize("kind, recorded", [(Uncertainty, TORCHJD_UW), (IMTLL, TORCHJD_IMTLL)])
def test_weights_and_parameters_are_those_of_torchjd(kind, recorded):
    balancer = kind(learning_rate=0.01)
    state = balancer.initial_state(3)
    for step in range(25):
        values = tf.constant(losses(step))
        if step in recorded:
            weights, parameter = recorded[step]
            np.testing.assert_allclose(balancer.weights(values, state), weights, rtol=1e-4)
            np.testing.assert_allclose(state[kind.parameter], parameter, rtol=1e-4, atol=1e-5)
        state = balancer.next_state(values, state, step=step)


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_uncertainty_follows_the_formula(kind):
    scale, rate = (0.5 if kind == "regression" else 1.0), 0.02
    balancer = Uncertainty(kind, initial=-0.5, learning_rate=rate)
    state, s = balancer.initial_state(3), np.full(3, -0.5)
    for step in range(25):
        values = losses(step)
        weights = balancer.weights(tf.constant(values), state)
        np.testing.assert_allclose(weights, scale * np.exp(-s), rtol=1e-5)
        np.testing.assert_allclose(balancer.penalty(state), s / 2, rtol=1e-5, atol=1e-6)
        state = balancer.next_state(tf.constant(values), state)
        s = s - rate * (0.5 - scale * np.exp(-s) * values)


@each
def test_the_step_is_down_the_gradient_of_the_objective(kind):
    balancer = kind(initial=0.3, learning_rate=0.1)
    values = tf.constant([0.5, 2.0, 3.0])
    parameter = tf.Variable([0.3, 0.3, 0.3])
    with tf.GradientTape() as tape:
        state = {kind.parameter: parameter}
        objective = tf.reduce_sum(balancer.weights(values, state) * values)
        objective += tf.reduce_sum(balancer.penalty(state))
    expected = parameter - 0.1 * tape.gradient(objective, parameter)
    moved = balancer.next_state(values, balancer.initial_state(3))[kind.parameter]
    np.testing.assert_allclose(moved, expected, rtol=1e-6, atol=1e-7)


def test_each_term_may_be_of_its_own_kind():
    balancer = Uncertainty(["regression", "classification"])
    assert balancer.weights(tf.constant([1.0, 1.0])).numpy().tolist() == [0.5, 1.0]
    with pytest.raises(ValueError, match="holds 2 kinds, but there are 3 terms"):
        balancer.weights(tf.ones([3]))


@pytest.mark.parametrize(
    "balancer, best", [(Uncertainty(initial=1.0, learning_rate=0.5), 0.5), (IMTLL(0.0, 0.1), 1.0)]
)
def test_weighted_terms_of_constant_losses_become_equal(balancer, best):
    values = tf.constant([0.25, 1.0, 4.0])
    state = balancer.initial_state(3)
    for _ in range(150):
        state = balancer.next_state(values, state)
    np.testing.assert_allclose(balancer.weights(values, state) * values, [best] * 3, rtol=1e-3)


@each
def test_a_huge_or_negative_loss_leaves_weights_and_state_finite(kind):
    balancer = kind()
    state = balancer.initial_state(3)
    for _ in range(50):
        values = tf.constant([3e38, -3e38, 0.0])
        state = balancer.next_state(values, state)
        assert np.isfinite(state[kind.parameter]).all()
        assert np.isfinite(balancer.weights(values, state)).all()


@each
def test_it_says_that_it_is_trained(kind):
    assert kind.trained and kind.needs == "values"


def test_another_kind_is_refused_by_name():
    with pytest.raises(ValueError, match="'poisson'"):
        Uncertainty("poisson")


@each
def test_an_initial_value_beyond_the_exponentials_range_is_refused(kind):
    with pytest.raises(ValueError, match="between -50 and 50"):
        kind(initial=51)
