"""One backward pass for several terms: rows by each kind of operation, and what is left alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.balancing.rows import shared_rows

RANDOM = np.random.default_rng(0)
layers = keras.layers


def draw(*shape):
    return RANDOM.normal(size=shape).astype("float32")


def rows_of(model, terms, *inputs, jit=None):
    """path -> (terms that reach it, rows) in one pass, and the tape's rows; (None, ...) if none."""
    keras.utils.set_random_seed(0)
    variables = {str(i): v.value for i, v in enumerate(model.trainable_variables)}
    reached = {}

    @tf.function(autograph=False, jit_compile=jit)
    def trace(*inputs):
        with tf.GradientTape(persistent=True) as tape:
            parts = terms(model(inputs[0] if len(inputs) == 1 else inputs))
        found = shared_rows(tape, parts, (), variables, False)
        by_term = [tape.gradient(part, variables, unconnected_gradients="zero") for part in parts]
        expected = {path: tf.stack([g[path] for g in by_term]) for path in variables}
        if found is None:
            return None, expected
        reached.update({path: each[0] for path, each in found.items()})
        return {path: each[1] for path, each in found.items()}, expected

    found, expected = trace(*inputs)
    return found, expected, reached


def three(y):
    """Three terms of one output."""
    flat = tf.reshape(y, [y.shape[0], -1])
    return [tf.reduce_sum(flat**2), tf.reduce_sum(tf.sin(flat)), tf.reduce_mean(flat)]


def twice(layer):
    x = keras.Input((5,))
    return keras.Model(x, layer(layer(x)))


MODELS = {
    "dense": lambda: keras.Sequential([layers.Dense(4, "relu"), layers.Dense(3, "tanh")]),
    "sigmoid of sequences": lambda: keras.Sequential([layers.Dense(4, "sigmoid")]),
    "norm and another activation": lambda: keras.Sequential(
        [layers.Dense(4, "gelu"), layers.LayerNormalization(), layers.Dense(2)]
    ),
    "a layer twice": lambda: twice(layers.Dense(5, "tanh")),
    "convolutions": lambda: keras.Sequential(
        [
            layers.Conv2D(3, 3, strides=2, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(2, 2, dilation_rate=2),
            layers.Flatten(),
        ]
    ),
    "a convolution by channel": lambda: keras.Sequential(
        [layers.DepthwiseConv2D(2), layers.Lambda(lambda x: x * x)]
    ),
    "attention": lambda: attention(),
}
SHAPES = {
    "sigmoid of sequences": (4, 3, 5),
    "convolutions": (4, 12, 12, 2),
    "a convolution by channel": (4, 6, 6, 2),
    "attention": (4, 3, 5),
}


def attention():
    x = keras.Input((3, 5))
    return keras.Model(x, layers.Add()([x, layers.MultiHeadAttention(2, 3)(x, x)]))


@pytest.mark.parametrize("name", MODELS)
def test_rows_in_one_pass_are_those_of_the_tape(name):
    model, x = MODELS[name](), draw(*SHAPES.get(name, (4, 5)))
    model(x)
    found, expected, reached = rows_of(model, three, x)
    assert set(found) == set(expected)
    assert set(reached.values()) == {(0, 1, 2)}
    for path, rows in found.items():
        np.testing.assert_allclose(rows, expected[path], rtol=2e-5, atol=2e-5)


def test_under_xla_too():
    model, x = MODELS["convolutions"](), draw(*SHAPES["convolutions"])
    model(x)
    found, expected, _ = rows_of(model, three, x, jit=True)
    for path, rows in found.items():
        np.testing.assert_allclose(rows, expected[path], rtol=2e-5, atol=2e-5)


def test_a_term_that_leaves_early_reaches_what_is_before_it_alone():
    x = keras.Input((5,))
    low = layers.Dense(4, "relu")(x)
    high = layers.Dense(3, "relu")(low)
    model = keras.Model(x, [layers.Dense(2)(low), layers.Dense(2)(high), layers.Dense(1)(high)])

    def terms(outputs):
        return [tf.reduce_sum(y**2) for y in outputs]

    # where the first term parts, a tensor leads to that where the others do
    assert rows_of(model, terms, draw(4, 5))[0] is None


def test_terms_that_part_in_two_places_have_zeros_where_they_do_not_reach():
    x = keras.Input((5,))
    both = layers.Dense(4, "relu")(x)
    left, right = layers.Dense(3, "relu")(both), layers.Dense(3, "relu")(both)
    ends = [left, left, right, right]
    model = keras.Model(x, [layers.Dense(1)(end) for end in ends])
    found, expected, reached = rows_of(
        model, lambda outputs: [tf.reduce_sum(y**2) for y in outputs], draw(4, 5)
    )
    assert reached == {"0": (0, 1, 2, 3), "1": (0, 1, 2, 3)} | {
        "2": (0, 1), "3": (0, 1), "4": (2, 3), "5": (2, 3)
    }  # fmt: skip
    for path, rows in found.items():
        np.testing.assert_allclose(rows, expected[path], rtol=2e-5, atol=2e-5)


@tf.custom_gradient
def reversed_gradient(x):
    return tf.identity(x), lambda upstream: -upstream


ALONE = {
    "a loop": lambda: keras.Sequential([layers.SimpleRNN(3), layers.Dense(2)]),
    "a gradient of its own": lambda: keras.Sequential(
        [layers.Dense(3), layers.Lambda(reversed_gradient), layers.Dense(2)]
    ),
    "a function": lambda: keras.Sequential(
        [layers.Dense(3), layers.Lambda(tf.function(tf.sin)), layers.Dense(2)]
    ),
}


@pytest.mark.parametrize("name", ALONE)
def test_what_the_graph_does_not_tell_is_left_to_the_tape(name):
    model, x = ALONE[name](), draw(4, 3, 5) if name == "a loop" else draw(4, 5)
    model(x)
    assert rows_of(model, three, x)[0] is None


def test_a_variable_that_terms_use_apart_is_left_to_the_tape():
    model, x = keras.Sequential([layers.Dense(3)]), draw(4, 5)
    model(x)

    def terms(y):
        return [*three(y), tf.reduce_sum(model.layers[0].kernel ** 2)]

    assert rows_of(model, terms, x)[0] is None


def test_an_unknown_number_of_examples_is_left_to_the_tape():
    model, kept = keras.Sequential([keras.Input((5,)), layers.Dense(3)]), []
    variables = {str(i): v.value for i, v in enumerate(model.trainable_variables)}

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, 5])])
    def trace(x):
        with tf.GradientTape(persistent=True) as tape:
            y = model(x)
            parts = [tf.reduce_sum(y), tf.reduce_sum(y**2)]
        kept.append(shared_rows(tape, parts, (), variables, False))
        return parts

    trace.get_concrete_function()
    assert kept == [None]
