"""Moving statistics on several replicas: what is saved is what is evaluated."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
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


def test_those_of_terms_and_of_a_subclass_are_found_and_frozen_networks_are_not():
    one = tf.distribute.get_strategy()
    frozen = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])
    frozen.trainable = False

    class Projecting(losses.Term):
        def __init__(self):
            super().__init__(name="projecting")
            self.heads = [keras.layers.BatchNormalization(name="head")]
            self.heads[0].build((None, 2))
            self.centre = tf.Variable(0.0, trainable=False, name="centre")
            self.scale = self.add_weight("scale", trainable=False)
            self.count = tf.Variable(0, trainable=False)
            self.teacher, self.trained = frozen, tf.Variable(1.0)

    places = [("projecting", Projecting()), ("weight", 2.0)]
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    names = [name.split("/")[-1].split(":")[0] for name in moving_variables(one, model, places)]
    assert sorted(names) == ["centre", "moving_mean", "moving_variance", "scale"]


def test_a_term_made_outside_the_scope_that_moves_its_state_is_refused(two_replicas):
    class Centred(losses.Term):
        def __init__(self):
            super().__init__(name="centred")
            self.centre = tf.Variable(0.0, trainable=False)

        def call(self, step):
            self.centre.assign(0.5 * self.centre + 0.5 * tf.reduce_mean(step.y_pred))
            return (step.y_pred[:, 0] - self.centre) ** 2

    trainer = Trainer(build, optimizer="sgd", strategy=two_replicas, terms=[Centred()])
    with pytest.raises(ValueError, match=r"centred/centre: made outside .* one for 2 replicas"):
        trainer.build((data()[0],))
