"""Dynamic weight average."""

import math

import numpy as np
import pytest
import tensorflow as tf

from losses.balancing.dwa import DWA

# TorchJD 0.18.0 (torch 2.15.0, float64): DWA(2.0), its step() called after every fourth step; the
# gradient of the scalar with respect to losses(step), by autograd.
TORCHJD = {
    7: [1.0, 1.0, 1.0],
    8: [0.943616, 0.980627, 1.07576],
    15: [0.915888, 1.04654, 1.03757],
    24: [0.925261, 1.06789, 1.00685],
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


def run(balancer, sequence):
    state, rows = balancer.initial_state(len(sequence[0])), []
    for step, values in enumerate(sequence):
        values = tf.constant(values, tf.float64)
        rows.append(balancer.weights(values, state, step=step).numpy())
        state = balancer.next_state(values, state, step=step)
    return rows


def test_the_weights_are_those_of_torchjd():
    rows = run(DWA(2.0, period=4), [losses(step) for step in range(25)])
    for step, expected in TORCHJD.items():
        np.testing.assert_allclose(rows[step], expected, rtol=1e-4)


@pytest.mark.parametrize("period", [1, 3])
def test_the_weights_follow_the_papers_formula(period):
    sequence = [losses(step) for step in range(24)]
    rows = run(DWA(0.7, period=period), sequence)
    for step, row in enumerate(rows):
        over = step // period
        expected = np.ones(3)
        if over >= 2:
            last = np.mean(sequence[(over - 1) * period : over * period], axis=0)
            before = np.mean(sequence[(over - 2) * period : (over - 1) * period], axis=0)
            exponential = np.exp(last / before / 0.7)
            expected = 3 * exponential / exponential.sum()
        np.testing.assert_allclose(row, expected, rtol=1e-12)


def test_a_loss_that_stays_zero_counts_as_unchanged():
    rows = run(DWA(1.0, period=1), [[0.0, 2.0], [0.0, 2.0], [0.0, 2.0]])
    np.testing.assert_allclose(rows[2], [1.0, 1.0], rtol=1e-12)


def test_a_zero_loss_in_the_first_period_leaves_the_weights_at_one():
    rows = run(DWA(1.0, period=1), [[0.0, 2.0], [0.0, 2.0]])
    np.testing.assert_array_equal(rows, [[1.0, 1.0], [1.0, 1.0]])


@pytest.mark.parametrize("arguments", [{"temperature": 0}, {"period": 0}, {"period": 1.5}])
def test_arguments_outside_their_range_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        DWA(**arguments)
