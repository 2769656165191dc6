"""What is trained: four small models with data, batch and loss, the same for everyone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

SEED = 7


@dataclass(frozen=True)
class Workload:
    """A model to train and the arrays it is trained on.

    Attributes:
      build: makes the model; equal weights each time.
      arrays: makes (x, y), numpy.
      batch: examples of one step.
      loss: as `Model.compile` takes it, made by a function: no two contestants share one.
      steps_per_loop: of Termwise's calls of the loop, about a second: the callback that pauses the
        loop has an event at every step, which else makes calls of one step.
    """

    build: Callable[[], keras.Model]
    arrays: Callable[[], tuple]
    batch: int
    loss: Callable[[], keras.losses.Loss]
    steps_per_loop: int = 1000

    def model(self) -> keras.Model:
        """A new model, built; its weights depend on nothing but the seed."""
        keras.utils.set_random_seed(SEED)
        return self.build()

    def optimizer(self) -> keras.optimizers.Optimizer:
        return keras.optimizers.Adam(1e-3)

    def dataset(self) -> tf.data.Dataset:
        """One epoch of whole batches, shuffled; what every contestant that reads tf.data gets."""
        x, y = self.arrays()
        dataset = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=SEED)
        return dataset.batch(self.batch, drop_remainder=True)


def mlp(batch: int = 64, units: int = 128, layers: int = 1, examples: int = 4096) -> Workload:
    """Images of 8 by 8 in ten classes, as the quickstart's digits."""

    def build():
        hidden = [keras.layers.Dense(units, activation="relu") for _ in range(layers)]
        return keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])

    return Workload(build, lambda: _classes((64,), examples), batch, _classification)


def cnn(batch: int = 64) -> Workload:
    def build():
        return keras.Sequential(
            [
                keras.Input((16, 16, 1)),
                keras.layers.Conv2D(16, 3, activation="relu"),
                keras.layers.MaxPooling2D(),
                keras.layers.Conv2D(32, 3, activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(10),
            ]
        )

    return Workload(build, lambda: _classes((16, 16, 1), 4096), batch, _classification, 200)


def lstm(batch: int = 32, unroll: bool = False) -> Workload:
    """Sequences of up to 16 words, padded with 0, which the Embedding masks.

    Args:
      unroll: Keras's, of the LSTM: its 16 steps without a loop.
    """

    def build():
        return keras.Sequential(
            [
                keras.Input((16,), dtype="int32"),
                keras.layers.Embedding(500, 32, mask_zero=True),
                keras.layers.LSTM(32, unroll=unroll),
                keras.layers.Dense(10),
            ]
        )

    def arrays():
        draw = np.random.default_rng(SEED)
        words = draw.integers(1, 500, (2048, 16)).astype("int32")
        lengths = draw.integers(1, 17, (2048, 1))
        words[np.arange(16) >= lengths] = 0
        return words, draw.integers(0, 10, 2048).astype("int32")

    return Workload(build, arrays, batch, _classification, 500)


def transformer(batch: int = 8) -> Workload:
    """Four blocks of self-attention and a feed-forward part, normalised first."""

    def block(x):
        normed = keras.layers.LayerNormalization()(x)
        x = x + keras.layers.MultiHeadAttention(4, 8)(normed, normed)
        normed = keras.layers.LayerNormalization()(x)
        inner = keras.layers.Dense(64, activation="gelu")(normed)
        return x + keras.layers.Dense(32)(inner)

    def build():
        words = keras.Input((16,), dtype="int32")
        x = keras.layers.Embedding(500, 32)(words)
        for _ in range(4):
            x = block(x)
        x = keras.layers.GlobalAveragePooling1D()(keras.layers.LayerNormalization()(x))
        return keras.Model(words, keras.layers.Dense(10)(x))

    def arrays():
        draw = np.random.default_rng(SEED)
        words = draw.integers(1, 500, (2048, 16)).astype("int32")
        return words, draw.integers(0, 10, 2048).astype("int32")

    return Workload(build, arrays, batch, _classification, 100)


def _classes(shape, examples):
    draw = np.random.default_rng(SEED)
    x = draw.normal(size=(examples, *shape)).astype("float32")
    return x, draw.integers(0, 10, examples).astype("int32")


def _classification():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "mlp": mlp,
    "mlp_16x64": lambda: mlp(16, 64),
    "cnn": cnn,
    "lstm": lstm,
    "lstm_unrolled": lambda: lstm(unroll=True),
    "transformer": transformer,
}
