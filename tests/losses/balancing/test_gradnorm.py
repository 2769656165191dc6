"""GradNorm."""

import math

import numpy as np
import pytest
import tensorflow as tf

from losses.balancing.gradnorm import GradNorm


def losses(step):
    """[3], unlike in unit: a fall, a noisy fall, no fall."""
    return np.array(
        [
            2 * 0.9**step + 0.1,
            50 * 0.97**step * (1 + 0.2 * math.sin(step)),
            0.01 * (1 + 0.3 * math.cos(2 * step)),
        ]
    )


def jacobian(step):
    """[3, 5], gradients that shrink as the losses do."""
    rows = np.array([[np.sin(7 * i + 3 * j + step) + 0.3 for j in range(5)] for i in range(3)])
    return rows * np.sqrt(losses(step))[:, None]


def distance(weights, norms, targets):
    return np.abs(weights * norms - targets).sum()


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_the_weights_descend_the_papers_distance(alpha, relative):
    rate = 0.01
    balancer = GradNorm(alpha, rate, relative=relative)
    state, weights = balancer.initial_state(3), np.ones(3)
    for step in range(25):
        rows, values = jacobian(step), losses(step)
        gramian = tf.constant(rows @ rows.T)
        np.testing.assert_allclose(balancer.weights(gramian, state), weights, rtol=1e-9)
        norms = np.linalg.norm(rows, axis=1)
        remaining = values / losses(0)
        rates = remaining / remaining.mean()
        targets = (weights * norms).mean() * rates**alpha
        # The slope by central differences: the distance is linear away from its kinks.
        slope = np.array(
            [
                (distance(weights + h, norms, targets) - distance(weights - h, norms, targets))
                / 2e-7
                for h in 1e-7 * np.eye(3)
            ]
        )
        slope = np.where(abs(slope) < 1e-3, 0, np.sign(slope)) * norms
        weights = weights - rate * slope / (norms.mean() if relative else 1)
        weights = np.maximum(weights, 1e-3)
        weights = 3 * weights / weights.sum()
        state = balancer.next_state(gramian, state, values=tf.constant(values))


def test_equal_rates_bring_the_norms_together():
    balancer = GradNorm(learning_rate=0.02)
    gramian = tf.constant([[1.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 16.0]])
    state = balancer.initial_state(3)
    for _ in range(150):
        state = balancer.next_state(gramian, state, values=tf.ones([3]))
    # w_i n_i equal and their sum 3: w = 12/7, 6/7, 3/7.
    weights = balancer.weights(gramian, state)
    np.testing.assert_allclose(weights, [12 / 7, 6 / 7, 3 / 7], atol=0.08)


def test_a_relative_step_does_not_depend_on_the_unit_of_the_losses():
    balancer = GradNorm(learning_rate=0.1)
    rows, values = jacobian(3), tf.constant(losses(3))
    start = balancer.initial_state(3)
    one = balancer.next_state(tf.constant(rows @ rows.T), start, values=values)
    other = balancer.next_state(tf.constant(1e20 * rows @ rows.T), start, values=values)
    np.testing.assert_allclose(one["weights"], other["weights"], rtol=1e-12)


def test_the_direction_is_the_weighted_sum_of_the_rows():
    balancer = GradNorm()
    state = {**balancer.initial_state(3), "weights": tf.constant([2.0, 0.5, 0.5], tf.float64)}
    rows = jacobian(0)
    expected = 2 * rows[0] + 0.5 * rows[1] + 0.5 * rows[2]
    np.testing.assert_allclose(balancer.direction(tf.constant(rows), state), expected, rtol=1e-9)


def test_without_values_the_error_says_what_they_are_for():
    balancer = GradNorm()
    with pytest.raises(ValueError, match="Give the terms' values"):
        balancer.next_state(tf.eye(2), balancer.initial_state(2))


@pytest.mark.parametrize("arguments", [{"alpha": -1}, {"learning_rate": -1}])
def test_arguments_outside_their_range_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        GradNorm(**arguments)
