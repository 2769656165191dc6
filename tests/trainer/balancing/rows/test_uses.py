"""What a traced pass does with a matrix: known products and look-ups, or nothing to build on."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.balancing.rows import Ancestry, traced, uses_of

MATRIX = tf.Variable(np.ones([5, 3], "float32"))
X = np.ones([4, 5], "float32")


def uses_in(part_of, variable=MATRIX, x=X, constants=lambda: ()):
    """What is found in the trace of a function whose result is one part: (looks_up, B) each."""
    found = []

    @tf.function(autograph=False)
    def trace(x):
        part = part_of(x)
        assert traced(part)
        uses = uses_of(Ancestry([part], constants()), variable)
        found.extend((use.looks_up, use.places, use.inputs.shape.rank) for use in uses)
        return part

    trace.get_concrete_function(x)
    return found


def layer_of(layer, example):
    layer.build(example.shape)
    return layer


def test_a_dense_layer_is_a_product_over_its_examples():
    layer = layer_of(keras.layers.Dense(3), X)
    assert uses_in(lambda x: tf.reduce_sum(layer(x)), layer.kernel.value) == [(False, 4, 2)]
    assert uses_in(lambda x: tf.reduce_sum(layer(x)), layer.bias.value) == []


def test_a_dense_layer_of_sequences_is_a_product_over_their_steps():
    layer, x = keras.layers.Dense(3), np.ones([4, 7, 5], "float32")
    layer_of(layer, x)
    assert uses_in(lambda x: tf.reduce_sum(layer(x)), layer.kernel.value, x) == [(False, 28, 2)]


def test_an_embedding_looks_its_rows_up():
    layer, x = keras.layers.Embedding(9, 6, mask_zero=True), np.ones([4, 7], "int32")
    layer_of(layer, x)
    table = layer.embeddings.value
    assert uses_in(lambda x: tf.reduce_sum(layer(x)), table, x) == [(True, 28, 2)]


def test_a_shared_layer_is_found_as_often_as_it_is_called():
    layer = layer_of(keras.layers.Dense(5), X)
    found = uses_in(lambda x: tf.reduce_sum(layer(layer(x))), layer.kernel.value)
    assert found == [(False, 4, 2)] * 2


OTHERS = {
    "turned": lambda x: tf.reduce_sum(tf.matmul(x[:, :3], MATRIX, transpose_b=True)),
    "turned before": lambda x: tf.reduce_sum(x[:, :3] @ tf.transpose(MATRIX)),
    "the first factor": lambda x: tf.reduce_sum(MATRIX @ x[:3]),
    "both factors": lambda x: tf.reduce_sum(MATRIX @ tf.convert_to_tensor(MATRIX)[:3]),
    "squared beside its product": lambda x: (
        tf.reduce_sum(x @ MATRIX) + tf.reduce_sum(tf.square(MATRIX))
    ),
    "in another precision": lambda x: tf.reduce_sum(
        tf.cast(tf.cast(x, tf.bfloat16) @ tf.cast(MATRIX, tf.bfloat16), tf.float32)
    ),
    "in a function of its own": lambda x: tf.reduce_sum(tf.function(lambda: x @ MATRIX)()),
    "looked up by columns": lambda x: tf.reduce_sum(tf.gather(MATRIX, [0, 1], axis=1)),
    "looked up and multiplied": lambda x: (
        tf.reduce_sum(tf.gather(tf.convert_to_tensor(MATRIX), [0])) + tf.reduce_sum(x @ MATRIX)
    ),
    "not used": lambda x: tf.reduce_sum(x),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_known_is_left_to_rows(name):
    assert uses_in(OTHERS[name]) == []


def test_an_unknown_number_of_examples_is_left_to_rows():
    spec = tf.TensorSpec([None, 5])
    assert uses_in(lambda x: tf.reduce_sum(x @ MATRIX), x=spec) == []


def test_what_the_tape_took_for_a_constant_is_no_use():
    kept = []

    def part_of(x):
        kept.append(tf.reduce_sum(tf.square(MATRIX)))
        return tf.reduce_sum(x @ MATRIX) * kept[-1]

    assert uses_in(part_of) == []
    assert uses_in(part_of, constants=lambda: kept[-1:]) == [(False, 4, 2)]


def test_a_value_is_not_traced():
    assert not traced(tf.constant(1.0))
