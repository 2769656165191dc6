"""Steps that run in Python: the numbers of the traced run, with tensors that have values."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import Trainer

X = np.random.default_rng(0).normal(size=(11, 3)).astype("float32")
Y = X[:, :1]


class Watched(Trainer):
    """Notes the mean of each batch's inputs, where it has a value."""

    def compute_terms(self, step):
        if tf.executing_eagerly():
            self.means.append(step.x.numpy().mean())
        error = tf.square(step.y_pred - step.y)
        return {**super().compute_terms(step), "error": tf.reduce_sum(error, -1)}


def make(eager, accumulated=None, **arguments):
    keras.utils.set_random_seed(3)

    def build():
        layers = [keras.layers.BatchNormalization(), keras.layers.Dropout(0.3)]
        return keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(1)])

    optimizer = keras.optimizers.SGD(0.1, 0.9, gradient_accumulation_steps=accumulated)
    trainer = Watched(
        build, optimizer=optimizer, loss="mse", metrics=["mae"], run_eagerly=eager, **arguments
    )
    trainer.means = []
    return trainer


def trained(trainer, pipeline=False):
    data, batch = (X, Y), 4
    if pipeline:
        shuffled = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(11, seed=5)
        data, batch = shuffled.batch(4), None
    rows = trainer.fit(
        data, steps=5, batch_size=batch, log_every=2, validation_data=(X, Y), verbose=False
    ).rows
    tags = ("total", "raw/error", "metrics/mae", "examples", "learning_rate")
    numbers = [[row[tag] for tag in tags if tag in row] for row in rows]
    return numbers, trainer.model.get_weights(), trainer.predict(X)


def assert_same(found, wanted):
    (rows, *found), (wanted_rows, *wanted) = found, wanted
    for row, other in zip(rows, wanted_rows, strict=True):
        assert row == pytest.approx(other, rel=1e-5)
    for value, other in zip(tf.nest.flatten(found), tf.nest.flatten(wanted), strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("accumulated, pipeline", [(None, False), (2, True)])
def test_the_numbers_are_those_of_the_traced_run(accumulated, pipeline):
    wanted = trained(make(False, accumulated), pipeline)
    eager = make(True, accumulated)
    assert_same(trained(eager, pipeline), wanted)
    assert len(eager.means) >= 5 and not make(False).means


def test_on_two_replicas_too(two_replicas):
    wanted = trained(make(False, strategy=two_replicas), pipeline=True)
    assert_same(trained(make(True, strategy=two_replicas), pipeline=True), wanted)


def test_tensorflows_own_switch_does_the_same():
    trainer = make(False)
    tf.config.run_functions_eagerly(True)
    try:
        trainer.fit((X, Y), steps=2, batch_size=11, verbose=False)
    finally:
        tf.config.run_functions_eagerly(False)
    np.testing.assert_allclose(trainer.means, [X.mean()] * 3, rtol=1e-5)  # one to find the terms
    trainer.fit((X, Y), steps=4, batch_size=11, verbose=False)
    assert len(trainer.means) == 3 and int(trainer.step) == 4


def test_what_xla_is_to_compile_cannot_run_in_python():
    with pytest.raises(ValueError, match="run_eagerly=True runs each step in Python"):
        make(True, jit_compile=True)
