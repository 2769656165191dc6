"""Variables that are given as weights, or as a regularizer's factor: read, never trained."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer import Trainer

X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")


def make_trainer(weight=1.0, model=None):
    model = model or keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    small = losses.term(lambda step: step.y_pred[:, 0] ** 2, name="small")
    return Trainer(
        model, optimizer="sgd", loss="mse", loss_weights={"small": weight}, terms=[small]
    )


def dials_of(make):
    """What a weight made of a variable trains."""
    variable = keras.Variable(0.5, name="beta")
    trainer = make(variable)
    trainer.build((X, X[:, :1]), batch_size=8)
    return trainer.loss_parameters


class Doubled:
    def __init__(self, variable):
        self.inner = [variable]

    def __call__(self, step):
        return 2.0 * tf.convert_to_tensor(self.inner[0])


@pytest.mark.parametrize(
    "weight",
    [
        lambda beta: beta,
        lambda beta: beta.value,
        lambda beta: lambda step: 2.0 * tf.convert_to_tensor(beta),
        Doubled,
    ],
    ids=["Keras's", "TensorFlow's", "read by a function", "read by an object"],
)
def test_a_plain_variable_as_a_weight_is_read_only(weight):
    assert dials_of(lambda beta: make_trainer(weight(beta))) == {}


def test_a_plain_variable_as_a_terms_own_weight_is_read_only():
    def make(beta):
        small = losses.term(lambda step: step.y_pred[:, 0] ** 2, name="small", weight=beta)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        return Trainer(model, optimizer="sgd", loss="mse", terms=[small])

    assert dials_of(make) == {}


class Factor(keras.regularizers.Regularizer):
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return self.factor * tf.reduce_sum(tf.square(x))


@pytest.mark.parametrize("kind", ["kernel_regularizer", "activity_regularizer"])
def test_a_plain_variable_as_a_regularizers_factor_is_read_only(kind):
    def make(beta):
        dense = keras.layers.Dense(1, **{kind: Factor(beta)})
        return make_trainer(model=keras.Sequential([keras.Input((4,)), dense]))

    assert dials_of(make) == {}


@pytest.mark.parametrize(
    "weight, names",
    [
        (lambda: losses.Parameter("beta", 0.5), ["beta"]),
        (lambda: losses.Parameter("beta", 0.5, maximize=True), ["beta"]),
        (losses.UncertaintyWeight, ["log_variance"]),
    ],
    ids=["a Parameter", "one that ascends", "an uncertainty weight"],
)
def test_what_is_made_to_learn_does(weight, names):
    trainer = make_trainer(weight())
    trainer.build((X, X[:, :1]), batch_size=8)
    assert list(trainer.loss_parameters) == names


def test_a_dial_is_followed_and_saved_with_the_run(workdir):
    def run(beta, steps):
        small = losses.term(lambda step: step.y_pred[:, 0] ** 2, name="small", weight=beta)
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        trainer = Trainer(model, optimizer="sgd", loss="mse", terms=[small], workdir=workdir)
        fit = dict(batch_size=8, log_every=1, verbose=False)
        return trainer, trainer.fit((X, X[:, :1]), steps=steps, **fit).rows[-1]["weight/small"]

    beta = keras.Variable(0.5, name="beta")
    trainer, weight = run(beta, 1)
    assert weight == 0.5
    beta.assign(0.25)
    row = trainer.fit((X, X[:, :1]), steps=2, batch_size=8, verbose=False).rows[-1]
    assert row["weight/small"] == 0.25
    assert run(keras.Variable(0.5, name="beta"), 3)[1] == 0.25
