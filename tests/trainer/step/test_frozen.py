"""What is read outside the model and does not train: Keras's `trainable`, wherever it was set."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer import Trainer

X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")


def net(name):
    layers = [keras.layers.Dense(3, "tanh"), keras.layers.Dense(1)]
    return keras.Sequential([keras.Input((4,)), *layers], name=name)


class Late(keras.Model):
    """A network that makes its layers when it is built, after it was frozen."""

    def build(self, shape):
        self.inner = net("inner")
        self.built = True

    def call(self, x):
        return self.inner(x)


def whole():
    teacher = net("teacher")
    teacher.trainable = False
    return teacher


def layer_by_layer():
    teacher = net("teacher")
    for layer in teacher.layers:
        layer.trainable = False
    return keras.Model(teacher.inputs, teacher.outputs[0])


def variable_by_variable():
    teacher = net("teacher")
    for weight in teacher.weights:
        weight.trainable = False
    return teacher


def nested():
    inner = net("inner")
    inner.trainable = False
    return keras.Sequential([keras.Input((4,)), inner])


def before_it_was_built():
    teacher = keras.Sequential([keras.layers.Dense(1)])
    teacher.trainable = False
    teacher.build((None, 4))
    return teacher


def whose_layers_came_later():
    teacher = Late()
    teacher.trainable = False
    teacher.build((None, 4))
    return teacher


FROZEN = (
    whole,
    layer_by_layer,
    variable_by_variable,
    nested,
    before_it_was_built,
    whose_layers_came_later,
)


def distance(step, network):
    return tf.reduce_mean(tf.square(step.y_pred - network(step.x)), -1)


class Distills(keras.losses.Loss):
    def __init__(self, network):
        super().__init__(name="distills")
        self.holder = iter([network])  # where no search looks
        self.network = lambda x: network(x)

    def call(self, y_true, y_pred):
        return tf.reduce_mean(tf.square(y_pred - self.network(y_true)), -1)


class OfATerm(losses.Term):
    def __init__(self, network):
        super().__init__(name="distill")
        self.network = network

    def call(self, step):
        return distance(step, self.network)


class OfASubclass(Trainer):
    def compute_terms(self, step):
        return {**super().compute_terms(step), "distill": distance(step, self.teacher)}


class Adds(keras.layers.Layer):
    """Adds a loss by a network that it does not own."""

    def __init__(self, network):
        super().__init__()
        self.read = lambda x: network(x)

    def call(self, x):
        self.add_loss(tf.reduce_mean(tf.square(self.read(x))))
        return x


def by_function(network):
    term = losses.term(lambda step: distance(step, network), name="distill")
    return Trainer(net("student"), optimizer="sgd", loss="mse", terms=[term])


def by_term(network):
    return Trainer(net("student"), optimizer="sgd", loss="mse", terms=[OfATerm(network)])


def by_loss(network):
    return Trainer(net("student"), optimizer="sgd", loss=Distills(network))


def by_subclass(network):
    trainer = OfASubclass(net("student"), optimizer="sgd", loss="mse")
    trainer.teacher = network
    return trainer


def by_layer(network):
    model = keras.Sequential([keras.Input((4,)), Adds(network), keras.layers.Dense(1)])
    return Trainer(model, optimizer="sgd", loss="mse")


def parameters_of(network, make_trainer):
    """What a run trains beside its model."""
    trainer = make_trainer(network)
    trainer.build((X, X if make_trainer is by_loss else X[:, :1]), batch_size=8)
    return trainer.loss_parameters


@pytest.mark.parametrize("make", FROZEN, ids=lambda make: make.__name__)
def test_a_frozen_network_that_a_term_reads_does_not_train(make):
    assert parameters_of(make(), by_function) == {}


@pytest.mark.parametrize(
    "make_trainer", [by_term, by_loss, by_subclass, by_layer], ids=lambda make: make.__name__
)
def test_it_does_not_train_whoever_reads_it(make_trainer):
    assert parameters_of(whose_layers_came_later(), make_trainer) == {}


def test_it_stays_on_two_replicas(two_replicas):
    with two_replicas.scope():
        teacher = whose_layers_came_later()
    before = [weight.numpy() for weight in teacher.weights]
    term = losses.term(lambda step: distance(step, teacher), name="distill")
    trainer = Trainer(
        lambda: net("student"), optimizer="sgd", loss="mse", terms=[term], strategy=two_replicas
    )
    trainer.fit((X, X[:, :1]), steps=2, batch_size=8, verbose=False)
    assert trainer.loss_parameters == {}
    for old, new in zip(before, teacher.weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


def test_a_variable_of_tensorflow_in_a_frozen_layer_stays():
    class Scales(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.factors = [tf.Variable(2.0)]

        def call(self, x):
            return x * self.factors[0]

    layer = Scales()
    layer.trainable = False
    term = losses.term(lambda step: tf.reduce_mean(layer(step.y_pred), -1), name="scaled")
    trainer = Trainer(net("student"), optimizer="sgd", loss="mse", terms=[term])
    trainer.build((X, X[:, :1]), batch_size=8)
    assert trainer.loss_parameters == {}


def test_a_network_that_trains_is_named_with_its_size_and_warned_of_once():
    term = losses.term(lambda step: distance(step, critic), name="distill")
    critic = net("critic")
    trainer = Trainer(net("student"), optimizer="sgd", loss="mse", terms=[term])
    told = r"Term 'distill' trains critic \(4 variables, 19 numbers\), a network outside the model"
    with pytest.warns(UserWarning, match=told):
        trainer.build((X, X[:, :1]), batch_size=8)
    trainer.build((X, X[:, :1]), batch_size=4)  # a second trace is quiet
    assert "term 'distill' trains critic (4 variables, 19 numbers)" in trainer.describe()
    assert len(trainer.loss_parameters) == 4


def test_a_network_that_a_group_names_is_meant():
    critic = net("critic")
    term = losses.term(lambda step: distance(step, critic), name="distill")
    groups = {"student": "*student*", "critic": critic}
    student = net("student")
    groups["student"] = student
    trainer = Trainer(
        student,
        optimizer={"student": "sgd", "critic": "sgd"},
        groups=groups,
        loss="mse",
        terms=[term],
    )
    trainer.build((X, X[:, :1]), batch_size=8)  # a warning would be an error
    assert len(trainer.loss_parameters) == 4


def test_a_variable_that_keras_made_as_not_trainable_trains_when_it_is_set_so():
    scale = keras.Variable(2.0, trainable=False, name="scale")
    term = losses.term(
        lambda step: tf.reduce_mean(tf.convert_to_tensor(scale) * step.y_pred**2, -1), name="scaled"
    )
    trainer = Trainer(net("student"), optimizer="sgd", loss="mse", terms=[term])
    trainer.fit((X, X[:, :1]), steps=2, batch_size=8, verbose=False)
    assert trainer.loss_parameters == {} and float(scale) == 2.0
    scale.trainable = True
    trainer.fit((X, X[:, :1]), steps=4, batch_size=8, verbose=False)
    assert trainer.loss_parameters == {"scale": scale} and float(scale) != 2.0
    scale.trainable = False
    trainer.build((X, X[:, :1]), batch_size=8)
    assert trainer.loss_parameters == {}


def test_a_weight_of_the_model_that_keras_made_as_not_trainable_trains_when_it_is_set_so():
    class Scales(keras.layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(initializer="ones", trainable=False)

        def call(self, x):
            return x * self.scale

    scales = Scales()
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1), scales])
    scales.scale.trainable = True
    trainer = Trainer(model, optimizer="sgd", loss="mse")
    trainer.fit((X, X[:, :1]), steps=2, batch_size=8, verbose=False)
    assert float(scales.scale) != 1.0
