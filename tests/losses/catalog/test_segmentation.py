"""Dice and Tversky: by hand, beside Keras, and as sums over the global batch."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from losses import Dice, Ratio, Tversky

pytestmark = pytest.mark.one_in(2)

AXES = [None, 0, -1, (1, 2), (0, 1, 2), (1, 2, 3), (0, 1, 2, 3)]
KINDS = {
    "Dice": (Dice, keras.losses.Dice, {}),
    "Tversky": (Tversky, keras.losses.Tversky, {"alpha": 0.7, "beta": 0.2}),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def masks(seed=0, examples=5):
    rng = np.random.default_rng(seed)
    shape = (examples, 4, 3, 2)
    return rng.integers(0, 2, shape).astype("float32"), rng.uniform(size=shape).astype("float32")


def test_dice_by_hand():
    # 2 * 0.5 / (1 + 1)
    assert float(Dice()([[1.0], [0.0]], [[0.5], [0.5]])) == pytest.approx(0.5)


def test_tversky_weighs_what_is_missed_by_alpha():
    # T = 0.75, missed 0.25, wrong 0.5
    loss = Tversky(alpha=0.8, beta=0.1)([[1.0], [0.0]], [[0.75], [0.5]])
    assert float(loss) == pytest.approx(1 - 0.75 / (0.75 + 0.8 * 0.25 + 0.1 * 0.5), rel=1e-6)


@every_kind
@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", None])
def test_without_weights_it_is_kerass(kind, axis, reduction):
    ours, theirs, arguments = KINDS[kind]
    y_true, y_pred = masks()
    expected = theirs(axis=axis, reduction=reduction, **arguments)(y_true, y_pred)
    loss = ours(axis=axis, reduction=reduction, **arguments)
    np.testing.assert_allclose(loss(y_true, y_pred), expected, atol=1e-6)
    if reduction is not None:
        ratio = loss.ratio(tf.constant(y_true), tf.constant(y_pred))
        np.testing.assert_allclose(ratio.value(), expected, atol=1e-6)


@every_kind
@pytest.mark.parametrize("axis", [None, (0, 1, 2), (1, 2, 3)], ids=str)
def test_the_gradient_is_that_of_finite_differences(kind, axis):
    ours, _, arguments = KINDS[kind]
    y_true, y_pred = (m.astype("float64") for m in masks(examples=2))
    loss = ours(axis=axis, dtype="float64", **arguments)
    weight = tf.constant([1.0, 2.5], tf.float64)
    (found,), (expected,) = tf.test.compute_gradient(
        lambda p: loss(y_true, p, weight), [tf.constant(y_pred)], delta=1e-6
    )
    np.testing.assert_allclose(found, expected, atol=1e-8)


@every_kind
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000),
    axis=st.sampled_from([None, (0, 1, 2)]),
    weights=st.lists(st.integers(0, 2), min_size=5, max_size=5),
)
def test_weight_0_is_absent_and_weight_2_is_twice(kind, seed, axis, weights):
    ours, _, arguments = KINDS[kind]
    y_true, y_pred = masks(seed)
    loss = ours(axis=axis, dtype="float64", **arguments)
    repeated = np.repeat(np.arange(5), weights)
    expected = loss(y_true[repeated], y_pred[repeated])
    found = loss(y_true, y_pred, np.array(weights, "float32"))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@every_kind
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), split=st.integers(0, 5), axis=st.sampled_from([None, (0, 1, 2)]))
def test_the_sums_of_two_parts_are_those_of_the_batch(kind, seed, split, axis):
    ours, _, arguments = KINDS[kind]
    y_true, y_pred = masks(seed)
    loss = ours(axis=axis, **arguments)
    order = np.random.default_rng(seed).permutation(5)
    parts = [
        loss.ratio(tf.constant(y_true[part]), tf.constant(y_pred[part]))
        for part in (order[:split], order[split:])
    ]
    total = Ratio(parts[0].numerator + parts[1].numerator, after=parts[0].after)
    np.testing.assert_allclose(total.value(), loss(y_true, y_pred), rtol=1e-5, atol=1e-6)


@every_kind
def test_a_mask_of_pixels_leaves_them_out_whatever_they_hold(kind):
    ours, _, arguments = KINDS[kind]
    y_true, y_pred = masks()
    keep = np.random.default_rng(3).integers(0, 2, (5, 4, 3)).astype(bool)
    loss = ours(dtype="float64", **arguments)
    expected = loss(y_true[keep], y_pred[keep])
    y_pred, y_true = y_pred.copy(), y_true.copy()
    y_pred[~keep] = np.nan
    y_true[~keep] = np.nan
    prediction = tf.constant(y_pred, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(prediction)
        masked = tf.identity(prediction)
        masked._keras_mask = tf.constant(keep)
        value = loss(y_true, masked)
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    gradient = tape.gradient(value, prediction).numpy()
    assert np.all(np.isfinite(gradient)) and np.all(gradient[~keep] == 0)


@every_kind
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_empty_masks_have_value_1_and_no_gradient_nan(kind, dtype):
    ours, _, arguments = KINDS[kind]
    loss = ours(axis=(0, 1, 2), dtype=dtype, **arguments)
    y_pred = tf.zeros([2, 4, 4, 3], dtype)
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        value = loss(tf.zeros([2, 4, 4, 3], dtype), y_pred)
    assert float(value) == 1.0
    assert np.all(np.isfinite(tape.gradient(value, y_pred).numpy().astype("float32")))


def test_smoothing_and_classes_left_out_class_by_class():
    y_true, y_pred = (m[..., 0] for m in masks())  # [5, 4, 3], three classes on the last axis
    y_true[..., 2] = y_pred[..., 2] = 0.0  # a class that is not there
    dice, tversky = [], []
    for kind in (1, 2):  # but the background
        y, p = y_true[..., kind], y_pred[..., kind]
        both, missed, wrong = (y * p).sum(), (y * (1 - p)).sum(), ((1 - y) * p).sum()
        dice.append(1 - (2 * both + 0.5) / (y.sum() + p.sum() + 0.5))
        tversky.append(1 - (both + 0.5) / (both + 0.5 + 0.7 * missed + 0.2 * wrong))
    assert dice[1] == tversky[1] == 0.0
    arguments = dict(axis=(0, 1), smoothing=0.5, exclude=0)
    np.testing.assert_allclose(Dice(**arguments).call(y_true, y_pred), dice, atol=1e-6)
    assert float(Dice(**arguments)(y_true, y_pred)) == pytest.approx(np.mean(dice), abs=1e-6)
    loss = Tversky(0.7, 0.2, **arguments)
    assert float(loss(y_true, y_pred)) == pytest.approx(np.mean(tversky), abs=1e-6)
    # one value per example, and weights of each class
    loss = Dice(axis=(1, 2), smoothing=0.5, exclude=[0, 2])
    alone = Dice(axis=(1, 2), smoothing=0.5)
    np.testing.assert_allclose(
        loss.call(y_true, y_pred), alone.call(y_true[..., 1:2], y_pred[..., 1:2]), rtol=1e-6
    )
    weights = np.arange(60.0).reshape(5, 4, 3) / 10
    weighted = Dice(smoothing=1.0, exclude=0)(y_true, y_pred, weights)
    expected = Dice(smoothing=1.0)(y_true[..., 1:], y_pred[..., 1:], weights[..., 1:])
    np.testing.assert_allclose(weighted, expected, rtol=1e-6)


def test_float16_masks_of_many_pixels_do_not_overflow():
    ones = tf.ones([4, 300, 300, 1], tf.float16)  # 360,000 pixels; float16 ends at 65,504
    assert float(Dice(dtype="float16")(ones, ones)) == pytest.approx(0.0, abs=1e-3)


@every_kind
@pytest.mark.parametrize("axis", [None, (0, 1, 2)], ids=str)
def test_xla_gives_the_same(kind, axis):
    ours, _, arguments = KINDS[kind]
    y_true, y_pred = masks()
    loss = ours(axis=axis, **arguments)
    weight = tf.constant([1.0, 0.0, 2.0, 1.0, 0.5])
    compiled = tf.function(lambda t, p: loss(t, p, weight), jit_compile=True)
    np.testing.assert_allclose(compiled(y_true, y_pred), loss(y_true, y_pred, weight), rtol=1e-6)


@every_kind
def test_it_is_restored_from_its_configuration(kind):
    ours, _, arguments = KINDS[kind]
    loss = ours(axis=(1, 2), reduction="sum", name="overlap", dtype="float64", **arguments)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is ours and again.get_config() == loss.get_config()
    assert loss.get_config()["axis"] == (1, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tversky(alpha=-1), r"Tversky\(alpha=-1\): give a number >= 0"),
        (lambda: Dice(smoothing=-1), r"Dice\(smoothing=-1\): give a finite number of at least 0"),
        (lambda: Dice(exclude=-1), r"Dice\(exclude=-1\): give the index of a class"),
        (lambda: Dice(exclude=2)(*masks()), r"leaves out the classes \[2\].*\(5, 4, 3, 2\)"),
        (lambda: Dice(exclude=[0, 1])(*masks()), r"leaves out all 2 classes"),
        (lambda: Dice(axis="rows"), r"Dice\(axis='rows'\): give an axis"),
        (lambda: Dice(axis=())(*masks()), r"Dice\(axis=\(\)\)"),
        (lambda: Dice(axis=4)(*masks()), r"axis=4.*Give axes from 0 to 3"),
        (lambda: Dice()(np.ones((2, 3)), np.ones((2, 4))), r"\(2, 3\) with .* \(2, 4\).*one_hot"),
        (lambda: Dice()(*masks(), np.ones(4)), r"shape \(4,\) beside .* Give one for each example"),
    ],
)
def test_a_wrong_argument_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@every_kind
def test_it_is_minimised_by_fit(kind):
    ours, _, arguments = KINDS[kind]
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.Adam(0.1), ours(**arguments))
    x = np.eye(3, dtype="float32")
    y = np.array([[1.0], [0.0], [1.0]], "float32")
    history = model.fit(x, y, epochs=60, batch_size=3, verbose=0).history["loss"]
    assert history[-1] < 0.1 < 0.3 < history[0]
