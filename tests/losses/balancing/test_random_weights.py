"""Random weights."""

from statistics import NormalDist

import numpy as np
import pytest
import tensorflow as tf

from losses.balancing.random_weights import RandomWeights

STEPS = 4000


def many(balancer, terms):
    """[STEPS, terms], the weights of as many steps."""
    values = tf.ones([terms], tf.float64)

    @tf.function
    def draw():
        return tf.map_fn(
            lambda step: balancer.weights(values, step=step),
            tf.range(STEPS),
            fn_output_signature=tf.float64,
        )

    return draw().numpy()


def test_the_weights_are_those_of_other_days():
    # 99675130 and 2592316717 are the integers that TensorFlow 2.21 drew for the key (3, 7).
    uniform = [(bits // 256 + 0.5) / 2**24 for bits in (99675130, 2592316717)]
    values = tf.ones([2], tf.float64)
    exponential = np.exp([NormalDist().inv_cdf(u) for u in uniform])
    normal = RandomWeights(seed=3).weights(values, step=7)
    np.testing.assert_allclose(normal, exponential / exponential.sum(), rtol=1e-9)
    logarithms = np.log(uniform)
    dirichlet = RandomWeights("dirichlet", seed=3).weights(values, step=7)
    np.testing.assert_allclose(dirichlet, logarithms / logarithms.sum(), rtol=1e-12)


def test_the_weights_depend_on_seed_and_step():
    pairs = [(seed, step) for seed in range(3) for step in range(3)]
    weights = {
        RandomWeights(seed=seed).weights(tf.ones([2]), step=step).numpy()[0] for seed, step in pairs
    }
    assert len(weights) == 9


def test_normal_weights_are_the_softmax_of_standard_normal_numbers():
    weights = many(RandomWeights(seed=5), 3)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-12)
    # log w_0 - log w_1 = z_0 - z_1 ~ N(0, 2); its standard error here is sqrt(2 / 4000) = 0.022.
    difference = np.log(weights[:, 0]) - np.log(weights[:, 1])
    assert abs(difference.mean()) < 0.09
    assert abs(difference.var() - 2) < 0.18
    assert abs(np.mean(np.abs(difference) < 2**0.5) - 0.6827) < 0.03


def test_dirichlet_weights_are_uniform_over_the_simplex():
    weights = many(RandomWeights("dirichlet", seed=5), 3)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-12)
    # Each is Beta(1, 2): mean 1/3, variance 1/18, P(w > 1/2) = 1/4.
    np.testing.assert_allclose(weights.mean(0), 1 / 3, atol=0.015)
    np.testing.assert_allclose(weights.var(0), 1 / 18, atol=0.005)
    np.testing.assert_allclose((weights > 0.5).mean(0), 0.25, atol=0.03)


def test_the_weights_do_not_depend_on_the_values():
    balancer = RandomWeights(seed=2)
    first = balancer.weights(tf.constant([1.0, 2.0]), step=9)
    np.testing.assert_array_equal(first, balancer.weights(tf.constant([0.0, -1e30]), step=9))


def test_another_distribution_is_refused_by_name():
    with pytest.raises(ValueError, match="'uniform'"):
        RandomWeights("uniform")
