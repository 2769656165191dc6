"""Looked at before any fit, a run has the weights of its workdir, or those it starts with."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer import Trainer

X = np.random.default_rng(0).normal(size=(16, 2)).astype("float32")
DATA = X, X[:, :1] * 3


class Growing(keras.layers.Layer):
    """Keeps a factor in a `tf.Variable`, which Keras does not list."""

    def __init__(self):
        super().__init__()
        self.factor = tf.Variable(1.0, trainable=False)

    def call(self, x, training=False):
        if training:
            self.factor.assign(self.factor * 1.1)
        return x * self.factor


def make(kind=Trainer, **arguments):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), Growing(), keras.layers.Dense(1)])
    size = losses.term(lambda step: 9 * step.y_pred[:, 0] ** 2, name="size")
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    settings = dict(optimizer=optimizer, loss="mse", terms=[size])
    return kind(model, balancer=losses.balancing.DWA(period=1), **settings, **arguments)


def fit(trainer, steps):
    return trainer.fit(DATA, steps=steps, batch_size=8, log_every=1, verbose=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A workdir of three steps; what its run predicts and evaluates."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    trainer = make(workdir=workdir)
    fit(trainer, 3)
    return workdir, trainer.predict(X), trainer.evaluate(DATA)


@pytest.mark.parametrize("argument", ["workdir", "init_from"])
def test_each_way_to_look_uses_the_same_weights_and_balance(argument, trained):
    workdir, outputs, values = trained
    for built in (False, True):
        trainer = make(**{argument: workdir})
        if built:
            trainer.build(DATA, batch_size=8)
        np.testing.assert_allclose(trainer.predict(X), outputs, rtol=1e-6)
        assert trainer.evaluate(DATA) == pytest.approx(values, rel=1e-6)
    trainer.model.layers[1].kernel.assign([[0.0], [0.0]])  # and are read once
    assert np.unique(trainer.predict(X)).size == 1


def test_without_its_loss_parameters_a_warm_start_takes_no_balance(trained):
    started = make(init_from=trained[0], init_loss_parameters=False).evaluate(DATA)
    weights = {key: value for key, value in started.items() if key.startswith("weight/")}
    assert weights == {"weight/mean_squared_error": 1.0, "weight/size": 1.0}
    assert weights != {key: trained[2][key] for key in weights}


def test_a_fit_goes_on_as_if_nothing_had_been_looked_at(trained, workdir):
    shutil.copytree(trained[0], workdir)
    whole, again = make(), make(workdir=workdir)
    fit(whole, 6)
    again.predict(X)
    again.evaluate(DATA)
    assert [row["step"] for row in fit(again, 6).rows] == [1, 2, 3, 4, 5, 6]
    for mine, theirs in zip(again.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-6)


def test_what_a_forward_of_ones_own_reads_beside_the_model_is_not_predicted_untrained(trained):
    class Own(Trainer):
        def forward(self, step):
            return self.head(super().forward(step))

        @property
        def head(self):
            if "last" not in vars(self):
                self.last = keras.layers.Dense(1)
                self.last.build((None, 1))
            return self.last

    trainer = make(Own, init_from=trained[0])
    assert trainer.head.built
    with pytest.raises(ValueError, match=r"beside the model.* Call trainer.build\(data\) first"):
        trainer.predict(X)
