"""What a compiled model hands on: objects, with what their configurations leave out."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import Trainer
from trainer.model.build import compiled_arguments

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")


class Above(keras.metrics.Metric):
    """The share of outputs above a threshold, which its configuration leaves out."""

    def __init__(self, threshold=0.0, **arguments):
        super().__init__(**arguments)
        self.threshold = threshold
        self.mean = keras.metrics.Mean()

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.mean.update_state(y_pred > self.threshold)

    def result(self):
        return self.mean.result()


def model(**compiled):
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    net.compile("sgd", "mse", **compiled)
    return net


def test_a_compiled_model_hands_on_the_objects_themselves():
    weight, metric = keras.Variable(2.0), Above(0.5)
    arguments = compiled_arguments(model(loss_weights=[weight], metrics=[metric]))
    assert arguments["loss_weights"][0] is weight
    assert arguments["metrics"][0] is metric


def test_its_metrics_keep_their_arguments():
    net = model(metrics=[Above(0.5)], weighted_metrics=[lambda t, p: p - 7.0])
    found = Trainer.from_compiled(net).evaluate((X, X[:, :1]))
    predicted = net.predict(X, verbose=0)
    assert found["metrics/above"] == pytest.approx(np.mean(predicted > 0.5))
    assert found["metrics/metric"] == pytest.approx(np.mean(predicted - 7.0), rel=1e-5)


class Deep(keras.layers.Layer):
    def call(self, x):
        raise ValueError("my depth must be even")


class Own(keras.Model):
    def call(self, x):
        raise ValueError("my depth must be even")


def test_what_a_model_raises_has_its_own_words():
    layered = keras.Sequential([keras.layers.Dense(2), Deep()])
    for net in (Own(), layered):
        with pytest.raises(ValueError) as caught:
            Trainer(net, loss="mse").build((X, X))
        assert str(caught.value) == "my depth must be even"


def test_what_python_code_in_a_step_raises_is_not_said_of_the_data():
    def refuse(values):
        raise RuntimeError("my table has no such row")

    def loss(y_true, y_pred):
        return tf.ensure_shape(tf.py_function(refuse, [y_pred[:, 0]], tf.float32), [None])

    with pytest.raises(ValueError, match=r"^RuntimeError: my table has no such row .*in a step of"):
        Trainer(model(), loss=loss).evaluate((X, X[:, :1]))
