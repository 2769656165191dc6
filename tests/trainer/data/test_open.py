"""What may be data: lists of arrays everywhere; what cannot be says what to write."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import Trainer
from trainer.data.open import open_data

X = np.random.default_rng(0).normal(size=(6, 2)).astype("float32")


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return X, X[:, :1]


def generator():
    yield X, X[:, :1]


@pytest.mark.parametrize(
    "data",
    [Batches(), generator, generator(), lambda: generator(), lambda context: generator()],
    ids=["PyDataset", "generator function", "generator", "function", "function of a context"],
)
def test_data_made_in_python_is_refused_with_what_to_write(data):
    class Hosts:
        count, index, replicas, gpu = 1, 0, 1, None

    with pytest.raises(TypeError, match=r"tf.data.Dataset.from_generator\("):
        open_data(data, batch_size=2, hosts=Hosts())


def test_an_input_of_an_unknown_shape_is_refused_with_what_to_write():
    dataset = tf.data.Dataset.from_generator(generator, output_types=(tf.float32, tf.float32))
    with pytest.raises(ValueError, match="data yields x of a shape that is not known"):
        open_data(dataset)


def two_in_two_out():
    inputs = [keras.Input((2,)), keras.Input((2,))]
    outputs = [keras.layers.Dense(1, name=name)(t) for name, t in zip("uv", inputs, strict=True)]
    return Trainer(keras.Model(inputs, outputs), optimizer=keras.optimizers.SGD(0.0), loss="mse")


def test_lists_of_arrays_are_read_as_tuples_are():
    trainer, x, y = two_in_two_out(), [X, 2 * X], [X[:, :1], X[:, 1:]]
    outputs = trainer.predict((x,), batch_size=4)
    errors = [np.square(output - label).mean() for output, label in zip(outputs, y, strict=True)]
    assert trainer.evaluate((x, y), batch_size=4)["total"] == pytest.approx(sum(errors), rel=1e-5)
    rows = trainer.fit(
        (x, y), steps=1, batch_size=6, shuffle=False, validation_data=(x, y), verbose=False
    ).rows
    assert [row["total"] for row in rows] == pytest.approx([sum(errors)] * 2, rel=1e-5)


@pytest.mark.parametrize("way", ["fit", "evaluate", "predict", "build"])
def test_a_batch_size_of_nothing_is_refused(way):
    trainer = Trainer(
        keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), optimizer="sgd", loss="mse"
    )
    more = {"steps": 1} if way == "fit" else {}
    with pytest.raises(ValueError, match="batch_size=0: give a whole number of at least 1"):
        getattr(trainer, way)((X, X[:, :1]), batch_size=0, **more)
