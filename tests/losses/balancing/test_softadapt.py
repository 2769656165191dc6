"""SoftAdapt and its variants."""

import math

import numpy as np
import pytest
import tensorflow as tf

from losses.balancing.softadapt import SoftAdapt

# The authors' package softadapt 0.2.0 on Keras 3.15 in float32, accuracy_order=1, beta=0.1:
# get_component_weights of the values at step - 1 and step.
ORIGINAL = {
    1: [0.249627, 0.495811, 0.254562],
    8: [0.317313, 0.362429, 0.320258],
    24: [0.342832, 0.313749, 0.343419],
}
LOSS_WEIGHTED = {
    1: [0.0185292, 0.981368, 0.000102752],
    8: [0.0187057, 0.98113, 0.000164107],
    24: [0.01433, 0.985221, 0.000448801],
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


def run(balancer, steps):
    state, rows = balancer.initial_state(3), []
    for step in range(steps):
        values = tf.constant(losses(step))
        rows.append(balancer.weights(values, state, step=step).numpy())
        state = balancer.next_state(values, state, step=step)
    return rows


@pytest.mark.parametrize(
    "recorded, arguments", [(ORIGINAL, {}), (LOSS_WEIGHTED, {"loss_weighted": True})]
)
def test_the_weights_are_those_of_the_authors_package(recorded, arguments):
    rows = run(SoftAdapt(0.1, **arguments), 25)
    for step, expected in recorded.items():
        np.testing.assert_allclose(rows[step], expected, rtol=1e-4)


@pytest.mark.parametrize("loss_weighted", [False, True])
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("beta", [-0.5, 2.0])
def test_the_weights_follow_the_formula(loss_weighted, normalized, beta):
    rows = run(SoftAdapt(beta, loss_weighted=loss_weighted, normalized=normalized), 21)
    for step, row in enumerate(rows):
        slopes = losses(step) - losses(step - 1) if step else np.zeros(3)
        if normalized and step:
            slopes = slopes / np.abs(slopes).sum()
        means = (losses(step) + losses(step - 1)) / 2 if step else losses(step)
        expected = np.exp(beta * slopes) * (means if loss_weighted else 1)
        np.testing.assert_allclose(row, expected / expected.sum(), rtol=1e-9)


def test_losses_of_zero_or_less_fall_back_to_the_original_variant():
    weights = SoftAdapt(loss_weighted=True).weights(tf.constant([0.0, -2.0]))
    np.testing.assert_allclose(weights, [0.5, 0.5], rtol=1e-6)


def test_equal_losses_at_the_first_step_share_equally():
    np.testing.assert_allclose(SoftAdapt().weights(tf.fill([4], 3.0)), np.full(4, 0.25), rtol=1e-6)


def test_beta_must_be_finite():
    with pytest.raises(ValueError, match="beta=inf"):
        SoftAdapt(float("inf"))
