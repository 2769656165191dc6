"""Balancing at a layer on two replicas equals one, for every balancer that takes a layer; with
synchronized normalization before it, after it, and as that layer. No layer stays changed."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from losses import balancing
from losses.balancing.balancer import GramianBalancer
from trainer import Trainer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype("float32")
A = RNG.normal(size=(64, 2)).astype("float32")
Y = {"a": A, "b": (RNG.normal(size=(64, 2)) - 4 * A).astype("float32")}  # they pull apart

# those that need a Gramian: values and traces have no place, and a Jacobian is one of variables
AT_A_LAYER = [
    name
    for name, kind in vars(balancing).items()
    if inspect.isclass(kind) and issubclass(kind, GramianBalancer) and kind is not GramianBalancer
]


def build():
    """Two tasks on a trunk of three synchronized normalizations, `first`, `middle` and `last`."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,))
    hidden = keras.layers.BatchNormalization(synchronized=True, name="first")(inputs)
    hidden = keras.layers.Dense(8, name="features")(hidden)
    hidden = keras.layers.BatchNormalization(synchronized=True, name="middle")(hidden)
    hidden = keras.layers.Activation("tanh", name="bounded")(hidden)
    hidden = keras.layers.BatchNormalization(synchronized=True, name="last")(hidden)
    return keras.Model(inputs, {name: keras.layers.Dense(2, name=name)(hidden) for name in Y})


def state_of(model):
    """What `fit` must leave alone of every layer."""
    return {
        layer.name: (layer.call, layer.activity_regularizer, sorted(vars(layer)))
        for layer in model.layers
    }


def train(name, at, strategy):
    """The rows of three steps, and the model's variables."""
    trainer = Trainer(
        build,
        optimizer=keras.optimizers.SGD(0.05),
        loss={"a": "mse", "b": "mse"},
        balancer=getattr(balancing, name)(at=at),
        strategy=strategy,
    )
    before = state_of(trainer.model)
    rows = trainer.fit((X, Y), batch_size=32, steps=3, log_every=1, shuffle=False, verbose=False)
    assert state_of(trainer.model) == before
    weights = {v.path: np.asarray(tf.convert_to_tensor(v)) for v in trainer.model.weights}
    return rows.rows, weights


def assert_equal_on_two_replicas(name, at, two_replicas):
    rows, weights = train(name, at, "one_device")
    found, on_two = train(name, at, two_replicas)
    for row, expected in zip(found, rows, strict=True):
        for key, value in expected.items():
            if key.startswith(("total", "terms/", "raw/", "weight/", "grad_norm")):
                assert row[key] == pytest.approx(value, rel=1e-6), (row["step"], key)
    for path, value in weights.items():
        np.testing.assert_allclose(on_two[path], value, rtol=0, atol=5e-6, err_msg=path)


def test_the_balancers_that_take_a_layer_are_the_known_ones():
    assert {"MGDA", "UPGrad", "PCGrad", "CAGrad", "GradNorm", "NashMTL"} <= set(AT_A_LAYER)


def marked(name):
    """One kind is part of `make test`; all of them take minutes."""
    return pytest.param(name, marks=pytest.mark.slow if name == "UPGrad" else pytest.mark.very_slow)


@pytest.mark.parametrize("name", [marked(name) for name in AT_A_LAYER])
def test_two_replicas_balance_at_a_normalization_between_others_as_one(name, two_replicas):
    assert_equal_on_two_replicas(name, "middle", two_replicas)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("at", ["features", "last"])
def test_two_replicas_balance_at_another_place_as_one(at, two_replicas):
    assert_equal_on_two_replicas("UPGrad", at, two_replicas)
