"""Learning-rate annealing."""

import numpy as np
import pytest
import tensorflow as tf

from losses.balancing.learning_rate_annealing import LearningRateAnnealing


def jacobian(step):
    """[3, 5], rows of unlike sizes."""
    rows = np.array([[np.sin(7 * i + 3 * j + step) + 0.3 for j in range(5)] for i in range(3)])
    return rows * np.array([[5.0], [0.1], [40.0]]) * 0.95**step


@pytest.mark.parametrize("reference", [0, 2])
@pytest.mark.parametrize("alpha", [0.9, 0.0])
def test_the_weights_follow_the_formula(alpha, reference):
    balancer = LearningRateAnnealing(alpha, reference=reference)
    state, weights = balancer.initial_state(3), np.ones(3)
    for step in range(25):
        rows = jacobian(step)
        for i in range(3):
            if i != reference:
                new = np.abs(rows[reference]).max() / np.abs(weights[i] * rows[i]).mean()
                weights[i] = alpha * weights[i] + (1 - alpha) * new
        tensor = tf.constant(rows)
        np.testing.assert_allclose(balancer.weights(tensor, state, step=step), weights, rtol=1e-9)
        np.testing.assert_allclose(
            balancer.direction(tensor, state, step=step), weights @ rows, rtol=1e-9, atol=1e-12
        )
        state = balancer.next_state(tensor, state, step=step)


def test_statistics_serve_instead_of_the_jacobian():
    balancer = LearningRateAnnealing()
    rows = jacobian(0)
    weights = balancer.from_statistics(np.abs(rows).max(1), np.abs(rows).mean(1))
    np.testing.assert_allclose(weights, balancer.weights(tf.constant(rows)), rtol=1e-12)


def test_unchanged_gradients_lead_to_the_root_of_the_ratio():
    balancer = LearningRateAnnealing()
    state = balancer.initial_state(2)
    rows = tf.constant([[4.0, 0.0], [0.25, 0.25]])
    for _ in range(200):
        state = balancer.next_state(rows, state)
    np.testing.assert_allclose(state["weights"], [1.0, 4.0], rtol=1e-6)  # sqrt(4 / 0.25)


def test_a_term_without_gradient_keeps_its_weight():
    balancer = LearningRateAnnealing()
    state = {"weights": tf.constant([1.0, 5.0, 7.0], tf.float64)}
    weights = balancer.weights(tf.constant([[1.0], [0.0], [1.0]], tf.float64), state)
    np.testing.assert_allclose(weights, [1.0, 5.0, 0.9 * 7 + 0.1 / 7], rtol=1e-12)


def test_a_reference_without_gradient_changes_nothing():
    state = {"weights": tf.constant([1.0, 5.0], tf.float64)}
    weights = LearningRateAnnealing().weights(tf.constant([[0.0], [2.0]]), state)
    np.testing.assert_array_equal(weights, [1.0, 5.0])


def test_update_every_is_the_cadence_of_the_loop():
    assert LearningRateAnnealing(update_every=10).every == 10


def test_a_reference_that_is_no_term_is_an_error():
    with pytest.raises(ValueError, match="there are 2 terms"):
        LearningRateAnnealing(reference=2).weights(tf.ones([2, 3]))


@pytest.mark.parametrize("arguments", [{"alpha": 1.0}, {"update_every": 0}, {"reference": -1}])
def test_arguments_outside_their_range_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        LearningRateAnnealing(**arguments)
