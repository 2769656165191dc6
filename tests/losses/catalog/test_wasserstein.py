"""The Wasserstein critic loss: its sign, its shapes, and the distance it learns."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from losses import Wasserstein


def test_real_scores_lower_the_loss_and_generated_ones_raise_it():
    assert float(Wasserstein()([-1.0, 1.0], [3.0, 1.0])) == (-3.0 + 1.0) / 2


def test_there_is_one_value_for_each_example():
    values = Wasserstein().call(tf.constant([[-1.0], [1.0]]), tf.constant([3.0, 1.0]))
    np.testing.assert_array_equal(values, [-3.0, 1.0])
    patches = Wasserstein().call(tf.ones([2, 4, 4]), tf.fill([2, 4, 4], 2.0))
    np.testing.assert_array_equal(patches, np.full((2, 4), 2.0))


def test_the_gradient_of_a_score_is_its_sign_over_the_batch():
    scores = tf.constant([5.0, -2.0, 0.0])
    with tf.GradientTape() as tape:
        tape.watch(scores)
        value = Wasserstein()([-1.0, 1.0, 1.0], scores)
    np.testing.assert_allclose(tape.gradient(value, scores), [-1 / 3, 1 / 3, 1 / 3], rtol=1e-6)


def test_labels_of_another_shape_are_an_error():
    with pytest.raises(ValueError, match="Give both one shape"):
        Wasserstein()(np.ones((2,)), np.ones((2, 3)))


def test_a_weight_clipped_critic_finds_the_distance_of_two_points():
    # a linear critic with |slope| <= 1 between points 3 apart: the distance is 3
    limit = keras.constraints.MaxNorm(1.0)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_constraint=limit)])
    model.compile(keras.optimizers.SGD(0.2), Wasserstein())
    x, y = np.array([[5.0], [2.0]]), np.array([[-1.0], [1.0]])  # real at 5, generated at 2
    model.fit(x, y, epochs=20, verbose=0)
    assert -2 * model.evaluate(x, y, verbose=0) == pytest.approx(3.0, abs=1e-4)
