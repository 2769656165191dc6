"""Losses by name: every classic formula in float64, aliases, and what is not a name."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from losses.catalog.regression import cosine_proximity, mean_difference
from losses.objective.registry import CLASSIC

RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(2, 5, 3))
POSITIVE = RNG.uniform(0.1, 3, size=(2, 5, 3))
P = POSITIVE / POSITIVE.sum(-1, keepdims=True)
SIGNS = np.where(REAL[0] > 0, 1.0, -1.0)
LABELS = RNG.integers(0, 3, 5)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def mean(values):
    return values.mean(-1)


# name, aliases, y_true, y_pred, the formula
TABLE = [
    (("mean_squared_error", "mse"), *REAL, lambda y, p: mean((y - p) ** 2)),
    (("mean_absolute_error", "mae"), *REAL, lambda y, p: mean(np.abs(y - p))),
    (
        ("mean_absolute_percentage_error", "mape"),
        *REAL,
        lambda y, p: 100 * mean(np.abs(y - p) / np.abs(y)),
    ),
    (
        ("mean_squared_logarithmic_error", "msle"),
        *POSITIVE,
        lambda y, p: mean((np.log1p(y) - np.log1p(p)) ** 2),
    ),
    (("squared_hinge",), SIGNS, REAL[1], lambda y, p: mean(np.maximum(1 - y * p, 0) ** 2)),
    (("hinge",), SIGNS, REAL[1], lambda y, p: mean(np.maximum(1 - y * p, 0))),
    (("categorical_crossentropy",), *P, lambda y, p: -(y * np.log(p)).sum(-1)),
    (("sparse_categorical_crossentropy",), LABELS, P[1], lambda y, p: -np.log(p[range(5), y])),
    (
        ("binary_crossentropy",),
        *P,
        lambda y, p: -mean(y * np.log(p) + (1 - y) * np.log(1 - p)),
    ),
    (("kullback_leibler_divergence", "kld"), *P, lambda y, p: (y * np.log(y / p)).sum(-1)),
    (("poisson",), *POSITIVE, lambda y, p: mean(p - y * np.log(p))),
    (("cosine_proximity",), *REAL, lambda y, p: -mean(unit(y) * unit(p))),
    (("mean_difference",), *REAL, lambda y, p: mean(p - y)),
]


@pytest.mark.parametrize(("names", "y_true", "y_pred", "formula"), TABLE)
def test_every_classic_name_is_its_formula(names, y_true, y_pred, formula):
    expected = formula(y_true, y_pred)
    if y_true.dtype.kind == "f":
        y_true = y_true.astype("float32")
    for name in names:
        function = losses.get(name)
        found = function(tf.constant(y_true), tf.constant(y_pred, tf.float32))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_table_is_all_of_them():
    assert {name for names, *_ in TABLE for name in names} == set(CLASSIC)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("name", sorted(set(CLASSIC) - {"sparse_categorical_crossentropy"}))
def test_value_and_gradient_are_finite_at_zero_and_one(name, jit_compile):
    y_true = tf.constant([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    y_pred = tf.constant([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])

    def value_and_gradient(y_pred):
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            value = losses.get(name)(y_true, y_pred)
        return value, tape.gradient(value, y_pred)

    for tensor in tf.function(value_and_gradient, jit_compile=jit_compile)(y_pred):
        assert np.all(np.isfinite(tensor))


def test_cosine_proximity_is_the_mean_where_keras_3_has_the_sum():
    theirs = keras.losses.cosine_similarity(*REAL)
    np.testing.assert_allclose(3 * cosine_proximity(*REAL), theirs, rtol=1e-5)


def test_a_zero_vector_is_nowhere_and_pulls_nothing():
    y_pred = tf.zeros([1, 3])
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        value = cosine_proximity(tf.ones([1, 3]), y_pred)
    assert float(value[0]) == 0
    assert np.all(tape.gradient(value, y_pred).numpy() == 0)


def test_the_own_functions_are_made_again_by_keras():
    for function in (cosine_proximity, mean_difference):
        assert losses.get(keras.losses.serialize(function)) is function
        model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(3)])
        model.compile("sgd", loss=function)
        assert np.isfinite(model.evaluate(REAL[0], REAL[1], verbose=0))


def test_what_is_not_a_name_is_passed_through():
    loss = losses.SparseFocal(gamma=1.5)
    assert losses.get(None) is None
    assert losses.get(loss) is loss
    assert losses.get(mean_difference) is mean_difference
    assert isinstance(losses.get(losses.SparseFocal), losses.SparseFocal)
    again = losses.get(keras.losses.serialize(loss))
    assert isinstance(again, losses.SparseFocal) and again.gamma == 1.5


def test_losses_of_this_library_and_of_keras_have_names_too():
    for name in ("binary_focal", "categorical_focal", "SparseFocal", "charbonnier", "gaussian_nll"):
        assert isinstance(losses.get(name), keras.losses.Loss)
    assert losses.get("huber") is keras.losses.huber
    assert isinstance(losses.get("LogCosh"), keras.losses.LogCosh)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mean_squared_eror", "no loss named 'mean_squared_eror'.*nearest: 'mean_squared_error'"),
        ("sparse_focl", "nearest: 'sparse_focal'"),
        ("MSE_loss", "nearest: .*'mse'"),
        ("xyzzy", "Accepted: binary_crossentropy"),
        ("weighted_mse ", "nearest: 'weighted_mse'"),
        ("general_robust", r"no default for alpha, scale.*losses.GeneralRobust\(alpha=..., scale"),
        ("get", "no loss named 'get'"),
    ],
)
def test_an_unknown_name_says_the_nearest(name, message):
    with pytest.raises(ValueError, match=message):
        losses.get(name)
