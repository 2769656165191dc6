"""The small models of `replica_cases.py`; their weights begin equal in every process."""

from __future__ import annotations

import keras


def dense(**last) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="tanh", kernel_initializer=_init(1), name="hidden"),
            keras.layers.Dense(2, kernel_initializer=_init(2), name="out", **last),
        ],
        name="net",
    )


def regularized() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(
                8,
                activation="tanh",
                kernel_initializer=_init(1),
                kernel_regularizer=keras.regularizers.L2(0.01),
                activity_regularizer=keras.regularizers.L1(0.01),
                name="hidden",
            ),
            keras.layers.Dense(2, kernel_initializer=_init(2), name="out"),
        ],
        name="net",
    )


def masked() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            keras.layers.Embedding(
                9, 4, mask_zero=True, embeddings_initializer=_init(3), name="words"
            ),
            keras.layers.Dense(2, kernel_initializer=_init(2), name="out"),
        ],
        name="net",
    )


def normalized() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, kernel_initializer=_init(1), name="hidden"),
            keras.layers.BatchNormalization(synchronized=True, name="normal"),
            keras.layers.Dense(2, kernel_initializer=_init(2), name="out"),
        ],
        name="net",
    )


@keras.saving.register_keras_serializable("termwise_benchmarks")
class Adds(keras.layers.Layer):
    """Adds the mean or the sum over its examples of the squared activations."""

    def __init__(self, summed=False, **arguments):
        super().__init__(**arguments)
        self.summed = summed

    def call(self, x):
        squared = keras.ops.sum(keras.ops.square(x), axis=-1)
        reduce = keras.ops.sum if self.summed else keras.ops.mean
        self.add_loss(0.01 * reduce(squared))
        return x


def adding(summed=False) -> keras.Model:
    inputs = keras.Input((6,))
    x = keras.layers.Dense(8, kernel_initializer=_init(1), name="hidden")(inputs)
    x = Adds(summed, name="adds")(x)
    return keras.Model(inputs, keras.layers.Dense(2, kernel_initializer=_init(2), name="out")(x))


def _init(seed):
    return keras.initializers.GlorotUniform(seed=seed)
