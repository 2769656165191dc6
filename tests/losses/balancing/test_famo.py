"""Fast adaptive multitask optimization."""

import math

import numpy as np
import pytest
import tensorflow as tf

from losses.balancing.famo import FAMO

# TorchJD 0.18.0 (torch 2.15.0, float64): FAMO(3, lr=0.025, weight_decay=1e-3); at each step
# update(losses(step)), then the gradient of the scalar with respect to losses(step), by autograd.
TORCHJD = {
    0: [0.00615081, 0.000258334, 0.993591],
    1: [0.00481814, 0.000161562, 0.99502],
    8: [0.00737468, 0.00016562, 0.99246],
    15: [0.0184099, 0.000312729, 0.981277],
    24: [0.0251235, 0.000424795, 0.974452],
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


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def test_on_consecutive_losses_the_weights_are_those_of_torchjd():
    balancer = FAMO()
    state = balancer.initial_state(3)
    for step in range(25):
        values = tf.constant(losses(step))
        if step in TORCHJD:
            weights = balancer.weights(values, state, step=step)
            np.testing.assert_allclose(weights, TORCHJD[step], rtol=1e-4)
        state = balancer.next_state(values, state, step=step)


def test_an_update_by_two_losses_of_one_batch_is_the_same_step():
    balancer = FAMO()
    state = balancer.initial_state(3)
    for step in range(25):
        before, after = tf.constant(losses(step)), tf.constant(losses(step + 1))
        if step in TORCHJD:
            np.testing.assert_allclose(balancer.weights(before, state), TORCHJD[step], rtol=1e-4)
        state = balancer.update(state, before, after)


def test_without_adam_the_logits_follow_the_papers_equation():
    gamma, rate, ideal = 0.05, 0.3, np.array([0.1, 0.0, -0.2])
    balancer = FAMO(gamma, rate, optimizer="sgd", ideal=ideal)
    state, logits = balancer.initial_state(3), np.zeros(3)
    for step in range(25):
        distance = losses(step) - ideal + 1e-8
        if step:
            delta = np.log(losses(step - 1) - ideal + 1e-8) - np.log(distance)
            z = softmax(logits)
            jacobian = np.diag(z) - np.outer(z, z)
            logits = logits - rate * (jacobian @ delta + gamma * logits)
        expected = softmax(logits) / distance
        values = tf.constant(losses(step))
        weights = balancer.weights(values, state)
        np.testing.assert_allclose(weights, expected / expected.sum(), rtol=1e-9)
        state = balancer.next_state(values, state)
    np.testing.assert_allclose(state["logits"], logits, rtol=1e-9)


def test_the_term_that_falls_least_gains_weight():
    balancer = FAMO(learning_rate=0.1)
    state = balancer.initial_state(2)
    for step in range(20):
        state = balancer.next_state(tf.constant([0.5**step, 1.0]), state)
    assert state["logits"][1] > state["logits"][0] + 1


def test_equal_losses_share_equally():
    np.testing.assert_allclose(FAMO().weights(tf.fill([4], 7.0)), np.full(4, 0.25), rtol=1e-6)


def test_zero_and_negative_losses_count_as_the_ideal():
    zero = FAMO().weights(tf.constant([0.0, 1.0], tf.float64))
    np.testing.assert_allclose(zero, [1 - 1e-8, 1e-8], rtol=1e-6)  # 1e8 and 1 over their sum
    np.testing.assert_array_equal(zero, FAMO().weights(tf.constant([-5.0, 1.0], tf.float64)))


@pytest.mark.parametrize(
    "arguments", [{"gamma": -1}, {"learning_rate": -1}, {"optimizer": "rmsprop"}, {"ideal": []}]
)
def test_arguments_outside_their_range_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        FAMO(**arguments)
