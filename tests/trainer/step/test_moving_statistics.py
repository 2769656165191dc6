"""Moving statistics on several replicas: what is saved is what is evaluated."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import Trainer
from trainer.step.moving_statistics import moving_variables


def build():
    return keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.BatchNormalization(momentum=0.5, name="normal"),
            keras.layers.Dense(1),
        ]
    )


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(8, 2)).astype("float32"), np.zeros((8, 1), "float32")


def test_moving_statistics_are_the_mean_of_the_replicas(two_replicas):
    x, y = data()
    trainer = Trainer(build, optimizer="sgd", loss="mse", strategy=two_replicas)
    trainer.fit((x, y), batch_size=8, steps=1, shuffle=False, verbose=False)
    halves = x[:4], x[4:]
    mean = 0.5 * np.mean([half.mean(0) for half in halves], 0)
    variance = 0.5 + 0.5 * np.mean([half.var(0) for half in halves], 0)
    layer = trainer.model.layers[0]
    for variable, expected in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        for own in two_replicas.experimental_local_results(variable.value):
            np.testing.assert_allclose(own, expected, rtol=1e-5)


def test_a_replica_without_examples_does_not_move_them(two_replicas):
    x, y = data()
    trainer = Trainer(build, optimizer="sgd", loss="mse", strategy=two_replicas)
    trainer.fit((x[:1], y[:1]), batch_size=1, steps=1, verbose=False)
    layer = trainer.model.layers[0]
    np.testing.assert_allclose(layer.moving_mean.value.read_value(), 0.5 * x[0], rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance.value.read_value(), [0.5, 0.5], rtol=1e-5)


def test_a_resumed_run_evaluates_as_the_one_that_was_saved(two_replicas, workdir):
    x, y = data()

    def trainer():
        return Trainer(build, optimizer="sgd", loss="mse", strategy=two_replicas, workdir=workdir)

    first = trainer()
    first.fit((x, y), batch_size=8, steps=3, verbose=False)
    assert trainer().evaluate((x, y)) == pytest.approx(first.evaluate((x, y)), rel=1e-7)


def test_frozen_layers_and_integers_do_not_move():
    inner = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])
    inner.trainable = False
    model = keras.Sequential([keras.Input((2,)), inner, keras.layers.Dropout(0.5)])
    one = tf.distribute.get_strategy()
    assert moving_variables(one, model) == {}
    inner.trainable = True
    moved = moving_variables(one, model)
    assert len(moved) == 2
    assert tf.as_dtype(next(iter(moved.values())).dtype).is_floating
