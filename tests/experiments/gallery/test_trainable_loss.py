"""A parameter in a user's own loss: its solution by numpy, found downhill and uphill."""

import numpy as np
import pytest
import tensorflow as tf

from experiments.configs import trainable_loss as config_file
from experiments.gallery.trainable_loss import LOSSES, experiment, noisy_line, solution


def config(**fields):
    made = config_file.get_config()
    made.optimizer.learning_rate = fields.pop("learning_rate", 0.02)
    made.update(fields)
    return made.lock()


@pytest.mark.parametrize("direction", ["descent", "ascent"])
def test_at_the_solution_the_loss_has_no_slope_in_its_parameter(direction):
    x, y = noisy_line(1)
    best, a = solution(x, y, direction)
    predicted = tf.constant(np.column_stack([x, np.ones(len(x))]) @ best, tf.float32)[:, None]
    loss = LOSSES[direction](a)
    with tf.GradientTape() as tape:
        value = loss(y, predicted)
    assert abs(float(tape.gradient(value, loss.a.value))) < 1e-6
    higher = LOSSES[direction](1.2 * a)(y, predicted)
    assert (higher > value) if direction == "descent" else (higher < value)


@pytest.mark.parametrize("direction", ["descent", "ascent"])
def test_a_few_hundred_steps_find_the_solution_and_the_check_says_how_near(direction):
    made = config(direction=direction, steps=200, learning_rate=0.1, start=1.0)
    one = experiment(made, strategy="one_device", workdir=None)
    one.trainer.fit(one.train_data, **(one.fit | {"validate_every": None}), verbose=False)
    checks = one.check(one.trainer)
    _, best = solution(*noisy_line(0), direction)
    (a,) = one.trainer.loss_parameters.values()
    assert checks["a"].value == float(a.numpy())
    assert checks["a: distance from the solution"].value == pytest.approx(abs(a.numpy() - best))
    assert checks["a: distance from the solution"].value < 0.02
    assert one.picture(one.trainer).axes[0].get_title() == direction
    a.assign(best + 0.1)
    missed = one.check(one.trainer)["a: distance from the solution"]
    assert missed.value == pytest.approx(0.1, rel=1e-4) and not missed.reached
