"""What holds for every loss with one value per example: the laws of its mean, and its uses.

Each loss is put through `compiled_ratios`, as the loop does, and through `Model.compile`.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import losses
from losses.objective.compiled import compiled_ratios, name_losses

pytestmark = pytest.mark.one_in(3)


def regression(rng, n):
    return rng.normal(size=(n, 3)), rng.normal(size=(n, 3))


def binary(rng, n):
    return rng.integers(0, 2, (n, 3)).astype(float), 3 * rng.normal(size=(n, 3))


def indices(rng, n):
    return rng.integers(0, 3, n).astype(float), 3 * rng.normal(size=(n, 3))


def one_hot(rng, n):
    return np.eye(3)[rng.integers(0, 3, n)], 3 * rng.normal(size=(n, 3))


def mean_and_log_variance(rng, n):
    return rng.normal(size=(n, 3)), rng.normal(size=(n, 3, 2))


def weighted_label(rng, n):
    target, prediction = regression(rng, n)
    return {"target": target, "weights": rng.uniform(0.1, 2, (n, 3))}, prediction


CASES = {
    "BinaryFocal": (losses.BinaryFocal, {"alpha": 0.25, "label_smoothing": 0.1}, binary),
    "CategoricalFocal": (losses.CategoricalFocal, {"alpha": [0.2, 0.3, 0.5]}, one_hot),
    "SparseFocal": (losses.SparseFocal, {"alpha": [0.2, 0.3, 0.5]}, indices),
    "SparseFocal ignore_class": (losses.SparseFocal, {"ignore_class": 1}, indices),
    "CategoricalFocal ignore_class": (losses.CategoricalFocal, {"ignore_class": 1}, one_hot),
    "WeightedMSE": (losses.WeightedMSE, {"weights": [1.0, 2.0, 0.5]}, regression),
    "WeightedMSE batch": (
        losses.WeightedMSE,
        {"weights": [1.0, 2.0, 0.5], "reduction_point": "batch"},
        regression,
    ),
    "WeightedRMSE": (losses.WeightedRMSE, {"weights": [1.0, 2.0, 0.5]}, regression),
    "WeightedRMSE batch": (
        losses.WeightedRMSE,
        {"weights": [1.0, 2.0, 0.5], "reduction_point": "batch"},
        regression,
    ),
    "WeightedRMSE label": (losses.WeightedRMSE, {}, weighted_label),
    "WeightedRMSE label batch": (
        losses.WeightedRMSE,
        {"reduction_point": "batch"},
        weighted_label,
    ),
    "Quantile": (losses.Quantile, {"tau": 0.3}, regression),
    "Quantile list": (losses.Quantile, {"tau": [0.1, 0.5, 0.9]}, regression),
    "Charbonnier": (losses.Charbonnier, {"epsilon": 0.1}, regression),
    "GaussianNLL": (losses.GaussianNLL, {"full": True}, mean_and_log_variance),
    "StudentTNLL": (losses.StudentTNLL, {"df": 2.5, "scale": 0.7}, regression),
    "StudentTNLL trainable": (losses.StudentTNLL, {"scale": 0.7, "trainable": True}, regression),
    "GeneralRobust": (losses.GeneralRobust, {"alpha": -0.5, "scale": 0.8}, regression),
    "GeneralRobust -inf": (
        losses.GeneralRobust,
        {"alpha": float("-inf"), "scale": 0.8},
        regression,
    ),
    "AdaptiveRobust": (losses.AdaptiveRobust, {"num_channels": 3, "scale_init": 0.5}, regression),
}
every_loss = pytest.mark.parametrize("case", CASES)
seeds_and_sizes = given(seed=st.integers(0, 2**31 - 1), n=st.integers(2, 6))
few = settings(max_examples=4, deadline=None, derandomize=True)


def make(case, **more):
    kind, arguments, _ = CASES[case]
    return kind(**arguments, **more)


def sample(case, seed, n):
    rng = np.random.default_rng(seed)
    return (*CASES[case][2](rng, n), rng.uniform(0.1, 3.0, n))


def take(structure, index):
    return tf.nest.map_structure(lambda array: array[index], structure)


def ratio(loss, y_true, y_pred, sample_weight=None):
    y_pred = tf.constant(y_pred, tf.float32) if isinstance(y_pred, np.ndarray) else y_pred
    (found,) = compiled_ratios(
        name_losses(loss, y_pred),
        y=tf.nest.map_structure(lambda array: tf.constant(array, tf.float32), y_true),
        y_pred=y_pred,
        sample_weight=None if sample_weight is None else tf.constant(sample_weight, tf.float32),
        examples=tf.constant(float(len(y_pred))),
    ).values()
    return found


def value(*arguments):
    return float(ratio(*arguments).value())


@every_loss
@few
@seeds_and_sizes
def test_the_order_of_the_examples_does_not_matter(case, seed, n):
    y_true, y_pred, weight = sample(case, seed, n)
    loss = make(case)
    order = np.random.default_rng(seed).permutation(n)
    expected = value(loss, y_true, y_pred, weight)
    permuted = value(loss, take(y_true, order), take(y_pred, order), weight[order])
    np.testing.assert_allclose(permuted, expected, rtol=1e-5, atol=1e-7)


@every_loss
@few
@seeds_and_sizes
def test_the_sums_of_two_parts_of_a_batch_are_the_sums_of_the_whole(case, seed, n):
    y_true, y_pred, weight = sample(case, seed, n)
    loss = make(case)
    cut = np.random.default_rng(seed).integers(0, n)  # one part may be empty
    whole = ratio(loss, y_true, y_pred, weight)
    parts = [
        ratio(loss, take(y_true, part), take(y_pred, part), weight[part])
        for part in (slice(None, cut), slice(cut, None))
    ]
    together = losses.Ratio(
        sum(part.numerator for part in parts), sum(part.denominator for part in parts), whole.after
    )
    np.testing.assert_allclose(together.value(), whole.value(), rtol=1e-5, atol=1e-7)


@every_loss
@few
@seeds_and_sizes
def test_weight_two_is_an_example_given_twice_and_weight_zero_one_absent(case, seed, n):
    y_true, y_pred, weight = sample(case, seed, n)
    loss = make(case) if "batch" in case else make(case, reduction="mean_with_sample_weight")
    twice, absent = weight.copy(), weight.copy()
    twice[0] *= 2
    absent[0] = 0
    again = np.r_[0, np.arange(n)]
    for weights, index in ((twice, again), (absent, np.arange(1, n))):
        expected = value(loss, take(y_true, index), take(y_pred, index), weight[index])
        found = value(loss, y_true, y_pred, weights)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@every_loss
def test_what_a_mask_takes_out_may_be_anything_and_is_not_counted(case):
    y_true, y_pred, weight = sample(case, 1, 4)
    loss = make(case)
    expected = value(loss, take(y_true, slice(0, 3)), y_pred[:3], weight[:3])
    y_pred[3] = np.nan
    masked = tf.constant(y_pred, tf.float32)
    masked._keras_mask = tf.constant([True, True, True, False])
    np.testing.assert_allclose(value(loss, y_true, masked, weight), expected, rtol=1e-5)


@every_loss
@pytest.mark.parametrize("weighted", [False, True])
def test_model_compile_computes_the_same(case, weighted):
    y_true, y_pred, weight = sample(case, 2, 5)
    weight = weight if weighted else None
    loss = make(case)
    expected = value(loss, y_true, y_pred, weight)
    np.testing.assert_allclose(loss(y_true, y_pred, sample_weight=weight), expected, rtol=1e-5)


@every_loss
def test_a_loss_is_made_again_from_its_configuration(case):
    y_true, y_pred, _ = sample(case, 3, 4)
    loss = make(case, name="own", dtype="float32")
    config = keras.losses.serialize(loss)
    assert config["registered_name"] == f"termwise>{type(loss).__name__}"
    assert config["config"].keys() >= {*CASES[case][1], "name", "reduction", "dtype"}
    again = losses.get(keras.losses.deserialize(config))
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()
    assert value(again, y_true, y_pred) == value(loss, y_true, y_pred)


@every_loss
def test_xla_computes_the_same_value_and_gradient(case):
    y_true, y_pred, weight = sample(case, 4, 4)
    loss = make(case)

    def value_and_gradient(y_pred):
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            total = ratio(loss, y_true, y_pred, weight).value()
        return total, tape.gradient(total, y_pred)

    y_pred = tf.constant(y_pred, tf.float32)
    plain = value_and_gradient(y_pred)
    compiled = tf.function(value_and_gradient, jit_compile=True)(y_pred)
    np.testing.assert_allclose(compiled[0], plain[0], rtol=1e-5)
    np.testing.assert_allclose(compiled[1], plain[1], rtol=1e-4, atol=1e-6)


@every_loss
def test_the_gradient_is_that_of_central_differences(case):
    y_true, y_pred, _ = sample(case, 5, 3)
    loss = make(case, dtype="float64")
    y_pred = tf.constant(y_pred, tf.float64)

    @tf.function
    def slope():
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            total = loss(y_true, y_pred)
        return tape.gradient(total, y_pred)

    gradient, step = slope().numpy(), 1e-6
    for index in np.ndindex(*y_pred.shape):
        moved = np.zeros(y_pred.shape)
        moved[index] = step
        numeric = float(loss(y_true, y_pred + moved) - loss(y_true, y_pred - moved)) / (2 * step)
        np.testing.assert_allclose(gradient[index], numeric, rtol=1e-5, atol=1e-8)


@every_loss
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_that_of_the_inputs_only(case, dtype):
    y_true, y_pred, _ = sample(case, 6, 4)
    y_true, y_pred = tf.nest.map_structure(
        lambda array: tf.cast(tf.cast(array, dtype), tf.float32).numpy(), (y_true, y_pred)
    )
    expected = value(make(case), y_true, y_pred)
    half = make(case, dtype=dtype)
    np.testing.assert_allclose(value(half, y_true, y_pred), expected, rtol=1e-5)
    assert half(y_true, y_pred).dtype == dtype


@pytest.mark.parametrize("case", [name for name in CASES if "label" not in name])
def test_a_model_trains_under_compile_and_fit(case):
    y_true, y_pred, _ = sample(case, 7, 32)
    model = keras.Sequential(
        [
            keras.layers.Input((4,)),
            keras.layers.Dense(y_pred[0].size),
            keras.layers.Reshape(y_pred.shape[1:]),
        ]
    )
    model.compile(keras.optimizers.Adam(0.05), loss=make(case))
    x = np.random.default_rng(0).normal(size=(32, 4))
    history = model.fit(x, y_true, batch_size=32, epochs=4, verbose=0).history["loss"]
    assert history[-1] < history[0]
