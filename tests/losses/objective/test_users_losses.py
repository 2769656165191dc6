"""Losses of a user's own: called as they say, of complex numbers, failing in their own words."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from losses.objective.compiled import CompiledLoss, compiled_ratios, name_losses
from losses.objective.model_terms import add_loss_terms, regularization_terms

RNG = np.random.default_rng(0)
LABELS, OUTPUTS = RNG.normal(size=(2, 8, 3)).astype("float32")
WEIGHTS = RNG.uniform(0.0, 3.0, 8).astype("float32")


def value(loss, y, y_pred, sample_weight=None):
    compiled = name_losses(loss, y_pred)
    arguments = dict(
        y=tf.constant(y), y_pred=tf.constant(y_pred), sample_weight=sample_weight, examples=8.0
    )
    (ratio,) = compiled_ratios(compiled, **arguments).values()
    return float(ratio.value())


class Hundredfold(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return tf.reduce_mean(tf.square(y_true - y_pred), -1)

    def __call__(self, y_true, y_pred, sample_weight=None):
        return 100.0 * super().__call__(y_true, y_pred, sample_weight)


class Whole(keras.losses.Loss):
    """As libraries write them: no call(), no weights, one value per example."""

    def __call__(self, y_true, y_pred):
        return tf.reduce_mean(tf.abs(y_true - y_pred), -1)


def test_a_loss_that_overrides_its_call_is_called():
    squares = np.square(LABELS - OUTPUTS).mean(-1)
    assert value(Hundredfold(), LABELS, OUTPUTS) == pytest.approx(100 * squares.mean(), rel=1e-5)
    weighted = 100 * np.mean(WEIGHTS * squares)
    assert value(Hundredfold(), LABELS, OUTPUTS, WEIGHTS) == pytest.approx(weighted, rel=1e-5)
    assert value(Whole(), LABELS, OUTPUTS) == pytest.approx(np.abs(LABELS - OUTPUTS).mean())


def test_its_one_value_cannot_be_added_up_over_replicas(two_replicas):
    with pytest.raises(ValueError, match=r"overrides __call__\(\), whose one value.* 2 replicas"):
        two_replicas.run(lambda: value(Hundredfold(), LABELS, OUTPUTS))


COMPLEX = (LABELS + 1j * OUTPUTS).astype("complex64")


def test_complex_numbers_are_not_cut():
    def square(y_true, y_pred):
        return tf.reduce_mean(tf.abs(y_true - y_pred) ** 2, -1)

    y = (1j * COMPLEX).astype("complex64")
    assert value(square, y, COMPLEX) == pytest.approx(np.mean(np.abs(y - COMPLEX) ** 2), rel=1e-5)
    assert value("mae", y, COMPLEX) == pytest.approx(np.abs(y - COMPLEX).mean(), rel=1e-5)
    real = value(lambda t, p: tf.abs(t - tf.cast(p, t.dtype)), y, OUTPUTS)
    assert real == pytest.approx(np.abs(y - OUTPUTS).mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "y", "y_pred", "message"),
    [
        ("mse", COMPLEX, COMPLEX, "returned complex64, which cannot be minimised"),
        ("mse", COMPLEX, OUTPUTS, "takes real numbers, but its label is complex64"),
        (losses.SparseFocal(), LABELS, COMPLEX, "takes real numbers, but its output is complex64"),
    ],
)
def test_a_loss_of_real_numbers_refuses_complex_ones(loss, y, y_pred, message):
    with pytest.raises(TypeError, match=message):
        value(loss, y, y_pred)


def own_words(y_true, y_pred):
    raise ValueError("my temperature must be positive, whatever the shape")


def no_number(y_true, y_pred):
    return float("x")


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (own_words, "my temperature must be positive, whatever the shape"),
        (no_number, "could not convert string to float: 'x'"),
        ("mse", "Term 'mean_squared_error' cannot compare labels of shape"),
    ],
)
def test_a_guess_about_shapes_does_not_stand_for_a_users_own_words(loss, words):
    with pytest.raises(ValueError) as caught:
        value(loss, LABELS[:, :2], OUTPUTS)
    assert str(caught.value).startswith(words)


class Adds(keras.layers.Layer):
    def call(self, x):
        mean = tf.reduce_mean(x)
        self.add_loss([mean, mean])
        return x


def test_a_tensor_that_is_added_twice_counts_twice():
    model = keras.Sequential([keras.Input((3,)), Adds()], name="net")
    model(OUTPUTS)
    terms = add_loss_terms(model, 8.0)
    assert list(terms) == ["add_loss/net/adds", "add_loss/net/adds/1"]
    total = sum(float(ratio.value()) for ratio in terms.values())
    assert total == pytest.approx(float(sum(model.losses)))


def test_regularizers_of_variables_with_one_path_both_count():
    class Pair(keras.Model):
        def __init__(self):
            super().__init__(name="pair")
            l2 = keras.regularizers.L2(0.5)
            self.both = [keras.layers.Dense(1, name="d", kernel_regularizer=l2) for _ in "ab"]

        def call(self, x):
            return self.both[0](x) + self.both[1](x)

    model = Pair()
    model(OUTPUTS)
    terms = regularization_terms(model)
    assert list(terms) == ["regularization/pair/d/kernel", "regularization/pair/d/kernel_1"]
    total = sum(float(ratio.value()) for ratio in terms.values())
    assert total == pytest.approx(float(sum(model.losses)))


@pytest.mark.parametrize(("dtype", "looked_at"), [(tf.int32, False), (tf.float32, True)])
def test_class_ids_are_looked_at_only_where_they_may_be_no_whole_numbers(dtype, looked_at):
    compiled = CompiledLoss("ids", "", keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    @tf.function(input_signature=[tf.TensorSpec([2], dtype), tf.TensorSpec([2, 3])])
    def value(labels, logits):
        arguments = {"y": labels, "y_pred": logits, "sample_weight": None, "examples": 2.0}
        return compiled_ratios([compiled], **arguments)["ids"].value()

    logits = tf.constant([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]])
    assert float(value(tf.constant([2, 0], dtype), logits)) == pytest.approx(0.40760597)
    operations = value.get_concrete_function().graph.get_operations()
    assert any(operation.type == "Floor" for operation in operations) == looked_at
