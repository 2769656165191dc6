"""Accumulated steps equal one step of their batches together, however these differ in size."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer import Trainer

SIZES = (5, 1, 9)


def build():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="ones")])


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(15, 3)).astype("float32")
    return x, rng.normal(size=(15, 1)).astype("float32"), rng.uniform(0, 3, 15).astype("float32")


def pipeline(arrays, sizes):
    def batches():
        start = 0
        for size in sizes:
            yield tuple(array[start : start + size] for array in arrays)
            start += size

    spec = tuple(tf.TensorSpec([None, *a.shape[1:]], a.dtype) for a in arrays)
    return tf.data.Dataset.from_generator(batches, output_signature=spec)


def weights(sizes, accumulate, strategy="one_device", steps=None, **arguments):
    arguments = {"loss": "mse", **arguments}
    every = {"gradient_accumulation_steps": 3} if accumulate else {}
    trainer = Trainer(
        build, optimizer=keras.optimizers.SGD(0.1, **every), strategy=strategy, **arguments
    )
    trainer.fit(pipeline(data(), sizes), steps=steps or 2 * len(sizes), verbose=False)
    return np.asarray(trainer.model.layers[0].kernel.value.read_value())


@pytest.mark.parametrize(
    "arguments",
    [
        dict(),
        dict(loss=lambda: keras.losses.Huber(reduction="mean_with_sample_weight")),
        dict(
            terms=lambda: [
                losses.term(  # another denominator than the loss's: positive examples
                    lambda s: losses.Ratio(
                        tf.reduce_sum(tf.nn.relu(s.y) * s.y_pred**2),
                        tf.reduce_sum(tf.cast(s.y > 0, tf.float32)),
                    ),
                    name="positive",
                )
            ]
        ),
    ],
    ids=["a mean", "a weighted mean", "two denominators"],
)
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_window_of_uneven_batches_equals_one_batch(arguments, replicas, two_replicas):
    strategy = two_replicas if replicas == 2 else "one_device"
    given = {k: v() for k, v in arguments.items()}
    other = {k: v() for k, v in arguments.items()}
    np.testing.assert_allclose(
        weights(SIZES, True, strategy, **given), weights((15,), False, **other), rtol=2e-6
    )


def test_a_run_that_stops_inside_a_window_goes_on_as_if_it_had_not(workdir):
    weights(SIZES, True, steps=4, workdir=workdir)
    resumed = weights(SIZES, True, steps=6, workdir=workdir)
    np.testing.assert_array_equal(resumed, weights(SIZES, True, steps=6))


def test_arrays_look_ahead_by_position():
    def train(sizes, **accumulation):
        optimizer = keras.optimizers.SGD(0.1, **accumulation)
        trainer = Trainer(build, optimizer=optimizer, loss="mse")
        batch = sizes[0]
        trainer.fit(data()[:2], batch_size=batch, epochs=2, shuffle=False, verbose=False)
        return trainer.model.layers[0].kernel.numpy()

    # 15 examples as 7, 7 and 1
    accumulated = train([7], gradient_accumulation_steps=3)
    np.testing.assert_allclose(accumulated, train([15]), rtol=2e-6)


def test_optimizers_that_accumulate_differently_are_an_error():
    trainer = Trainer(
        build,
        optimizer={
            "a": keras.optimizers.SGD(gradient_accumulation_steps=2),
            "b": keras.optimizers.SGD(gradient_accumulation_steps=3),
        },
        groups={"a": "*/kernel", "b": "*/bias"},
        loss="mse",
    )
    with pytest.raises(ValueError, match="accumulate the same number"):
        trainer.fit(data()[:2], batch_size=5, steps=1)
