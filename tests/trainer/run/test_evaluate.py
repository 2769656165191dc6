"""Evaluation and prediction: their events, outputs of any form, and labels that are no class."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import Trainer

X = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")


class Told(Trainer):
    """Notes the events of evaluation and prediction."""

    def __init__(self, *positional, **arguments):
        super().__init__(*positional, **arguments)
        self.told = []

    def on_test_begin(self, logs=None):
        self.told.append("begin")

    def on_test_batch_end(self, batch, logs=None):
        self.told.append((batch, round(logs["loss"], 4)))

    def on_test_end(self, logs=None):
        self.told.append(round(logs["total"], 4))

    def on_predict_batch_end(self, batch, logs=None):
        self.told.append(logs["outputs"].shape[0])


def softmax(kind=Trainer, **arguments):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, "softmax")])
    return kind(model, optimizer="sgd", loss="sparse_categorical_crossentropy", **arguments)


def test_a_subclass_hears_of_its_own_evaluation_and_prediction():
    trainer, labels = softmax(Told), np.array([0, 1, 2, 0, 1, 2])
    total = trainer.evaluate((X, labels), batch_size=4)["total"]
    first = softmax(Trainer)
    first.model.set_weights(trainer.model.get_weights())
    part = first.evaluate((X[:4], labels[:4]))["total"]
    assert first.evaluate((X, labels), batch_size=4)["total"] == pytest.approx(total, rel=1e-6)
    assert trainer.told == ["begin", (0, round(part, 4)), (1, round(total, 4)), round(total, 4)]
    trainer.told.clear()
    trainer.predict(X, batch_size=4)
    assert trainer.told == [4, 2]


def test_a_callback_hears_of_each_batch_of_a_validation():
    numbers = []
    callback = keras.callbacks.LambdaCallback()
    callback.on_test_batch_begin = lambda batch, logs=None: numbers.append(batch)
    data = X, np.zeros(6, int)
    softmax().fit(
        data, steps=1, batch_size=2, validation_data=data, callbacks=[callback], verbose=False
    )
    assert numbers == [0, 1, 2]


def test_outputs_of_other_widths_are_refused_with_their_shapes():
    def batches():
        for width in (4, 6):
            yield np.ones((2, width, 3), "float32")

    spec = tf.TensorSpec([None, None, 3])
    model = keras.Sequential([keras.Input((None, 3)), keras.layers.Dense(2)])
    trainer = Trainer(model, optimizer="sgd", loss="mse")
    with pytest.raises(ValueError, match=r"different shapes together: \(2, 4, 2\), \(2, 6, 2\)"):
        trainer.predict(tf.data.Dataset.from_generator(batches, output_signature=spec))


def test_ragged_outputs_come_as_one_ragged_tensor():
    class Cut(keras.Model):
        def call(self, x):
            return tf.RaggedTensor.from_tensor(2.0 * x, lengths=tf.cast(x[:, 0], tf.int64))

    x = np.array([[1, 5, 5], [3, 5, 5], [2, 5, 5]], "float32")
    outputs = Trainer(Cut(), optimizer="sgd", loss="mse").predict(x, batch_size=2)
    assert outputs.to_list() == [[2.0], [6.0, 10.0, 10.0], [4.0, 10.0]]


@pytest.mark.parametrize("label", [7, 1.5])
@pytest.mark.parametrize("xla", [False, True])
def test_a_label_that_is_no_class_is_told(label, xla):
    labels = np.array([0, 1, label, 0, 1, 2])
    with pytest.raises(ValueError, match=rf"data.*{label}"):
        softmax(jit_compile=xla).evaluate((X, labels))


def test_steps_of_nothing_are_refused():
    with pytest.raises(ValueError, match=r"evaluate\(steps=0\): give a whole number"):
        softmax().evaluate((X, np.zeros(6)), steps=0)
