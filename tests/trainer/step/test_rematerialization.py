"""Activations computed again in the backward pass: the same weights as without, for less memory."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer import Trainer

RNG = np.random.default_rng(5)
X = RNG.normal(size=(48, 6)).astype("float32")
Y = (np.sin(X[:, :1]) + X[:, 1:2] ** 2).astype("float32")


@keras.saving.register_keras_serializable("tests")
class Block(keras.layers.Layer):
    """Two dense layers, whose activations are kept, or computed again by `tf.recompute_grad`."""

    traces = 0  # of what is computed once or again

    def __init__(self, again=False, **arguments):
        super().__init__(**arguments)
        self.again = again
        self.first = keras.layers.Dense(8, activation="tanh")
        self.second = keras.layers.Dense(6, activation="tanh")

    def build(self, shape):
        self.first.build(shape)
        self.second.build((*shape[:-1], 8))

    def call(self, x):
        def run(x):
            self.traces += 1
            return self.second(self.first(x))

        return (tf.recompute_grad(run) if self.again else run)(x)


def in_the_model():
    return [Block(again=True, name="block")]


def in_a_scope():
    with keras.RematScope(mode="activations"):
        return [keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(6, activation="tanh")]


def in_a_remat_call():
    return [Remat(name="block")]


@keras.saving.register_keras_serializable("tests")
class Remat(Block):
    """The block by `keras.remat`."""

    def call(self, x):
        return keras.remat(lambda x: self.second(self.first(x)))(x)


KINDS = {
    "tf.recompute_grad": in_the_model,
    "RematScope": in_a_scope,
    "keras.remat": in_a_remat_call,
}


class Likelihood(losses.Term):
    """Gaussian likelihood whose size, a loss parameter, stands inside what is computed again."""

    def __init__(self, again):
        super().__init__(0.5, "likelihood")
        self.again = again
        self.log_variance = self.add_weight("log_variance", initializer=0.3)

    def call(self, step):
        def run(error):
            s = tf.convert_to_tensor(self.log_variance)
            return (s + tf.square(error) * tf.exp(-s)) / 2

        run = tf.recompute_grad(run) if self.again else run
        return run(step.y - step.y_pred)[:, 0]


class WithLikelihood(Trainer):
    """Makes the term inside the strategy's scope."""

    def build_terms(self):
        return [Likelihood(self.config["again"])]


def trained(layers, again=False, strategy="one_device", **arguments):
    """Model weights, loss parameters and last total after 12 steps."""

    def build():
        keras.utils.set_random_seed(2)
        return keras.Sequential([keras.Input((6,)), *layers(), keras.layers.Dense(1)])

    trainer = WithLikelihood(
        build,
        optimizer=keras.optimizers.Adam(0.01),
        loss="mse",
        strategy=strategy,
        config={"again": again},
        **arguments,
    )
    history = trainer.fit((X, Y), steps=12, batch_size=16, log_every=12, verbose=False)
    parameters = {name: float(v.numpy()) for name, v in trainer.loss_parameters.items()}
    return trainer.model.get_weights(), parameters, history.rows[-1]["total"]


@pytest.fixture(scope="module")
def plain():
    return trained(lambda: [Block()])


def assert_same(found, expected):
    assert len(found[0]) == len(expected[0]) == 6
    for ours, theirs in zip(found[0], expected[0], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    assert found[1] == pytest.approx(expected[1], rel=1e-6)
    assert found[2] == pytest.approx(expected[2], rel=1e-6)


def test_everything_trains_without(plain):
    """The reference: every weight has moved, the loss parameter too."""
    weights, parameters, _ = plain
    keras.utils.set_random_seed(2)
    start = keras.Sequential([keras.Input((6,)), Block(), keras.layers.Dense(1)]).get_weights()
    assert all(np.abs(w - s).min() > 0 for w, s in zip(weights, start, strict=True))
    assert parameters.keys() == {"likelihood/log_variance"}
    assert abs(parameters["likelihood/log_variance"] - 0.3) > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_layers_computed_again_train_to_the_same_weights(kind, plain):
    assert_same(trained(KINDS[kind]), plain)


def test_a_term_computed_again_trains_its_loss_parameter(plain):
    assert_same(trained(lambda: [Block()], again=True), plain)


def test_they_compile(plain):
    assert_same(trained(in_the_model, again=True, jit_compile=True), plain)


@pytest.mark.parametrize("kind", KINDS)
def test_two_replicas_compute_again_too(kind, two_replicas, plain):
    assert_same(trained(KINDS[kind], again=True, strategy=two_replicas), plain)


@pytest.mark.slow
def test_two_compiled_replicas_compute_again_too(two_replicas, plain):
    again = trained(in_the_model, again=True, strategy=two_replicas, jit_compile=True)
    assert_same(again, plain)


def test_a_balancer_differentiates_what_is_computed_again():
    def balanced(layers, again):
        return trained(layers, again, balancer=losses.balancing.PCGrad())

    assert_same(balanced(in_the_model, True), balanced(lambda: [Block()], False))


def test_it_is_computed_once_without_and_again_with():
    for again, traces in ((False, 1), (True, 2)):
        block = Block(again=again)
        model = keras.Sequential([keras.Input((6,)), block, keras.layers.Dense(1)])
        trainer = Trainer(model, optimizer="sgd", loss="mse", strategy="one_device")
        block.traces = 0  # building the model went through it too
        trainer.build((X, Y), batch_size=16)
        assert block.traces == traces


def test_the_scope_of_whole_layers_is_beyond_keras():
    """Keras 3.15 passes `training=` on to tf.recompute_grad, which takes no names in a graph.

    When `fit` of Keras works, the note in docs/performance.md goes.
    """

    def build():
        with keras.RematScope(mode="full"):
            return keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])

    model = build()
    model.compile(optimizer="sgd", loss="mse", jit_compile=False)
    with pytest.raises(ValueError, match="keywords arguments only when eager"):
        model.fit(X, Y, verbose=0)
    trainer = Trainer(build, optimizer="sgd", loss="mse", strategy="one_device")
    with pytest.raises(ValueError, match="keywords arguments only when eager"):
        trainer.build((X, Y), batch_size=16)
