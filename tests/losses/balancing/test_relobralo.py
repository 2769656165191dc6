"""Relative loss balancing with random lookback."""

import math

import numpy as np
import pytest
import tensorflow as tf

from losses.balancing.numerics.draws import draw_uniform
from losses.balancing.relobralo import ReLoBRaLo


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


@pytest.mark.parametrize(
    "alpha, beta, tau", [(0.999, 0.999, 1.0), (0.9, 0.5, 0.3), (0.0, 1.0, 1.0), (1.0, 0.0, 2.0)]
)
def test_the_weights_follow_the_papers_formulas(alpha, beta, tau):
    balancer = ReLoBRaLo(alpha, beta, tau, seed=4)
    state, expected, lookbacks = balancer.initial_state(3), np.ones(3), 0
    for step in range(30):
        values = tf.constant(losses(step))
        if step:
            rho = float(draw_uniform([1], 4, step)[0]) < beta
            lookbacks += not rho
            to_first = 3 * softmax(losses(step) / losses(0) / tau)
            to_last = 3 * softmax(losses(step) / losses(step - 1) / tau)
            expected = alpha * (expected if rho else to_first) + (1 - alpha) * to_last
        np.testing.assert_allclose(balancer.weights(values, state, step=step), expected, rtol=1e-12)
        state = balancer.next_state(values, state, step=step)
    if beta == 0.5:
        assert 5 <= lookbacks <= 24


def test_the_first_weights_are_one_each():
    np.testing.assert_array_equal(ReLoBRaLo().weights(tf.constant([3.0, 0.0])), [1.0, 1.0])


@pytest.mark.parametrize("arguments", [{"alpha": 1.1}, {"beta": -0.1}, {"tau": 0}])
def test_arguments_outside_their_range_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        ReLoBRaLo(**arguments)
