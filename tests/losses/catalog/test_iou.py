"""IoU, GIoU, DIoU, CIoU: against a formula in float64, against torchvision, at degenerate boxes."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from losses import IoU

pytestmark = pytest.mark.one_in(2)

MODES = ("iou", "giou", "diou", "ciou")
TRUE = np.array([[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 1.0, 0.5], [0.3, 0.3, 0.4, 0.9]])
PRED = np.array([[0.2, 0.1, 0.6, 0.5], [0.1, 0.2, 0.8, 0.9], [0.6, 0.1, 0.9, 0.2]])
# torchvision 0.28.0 on torch 2.13.0, float64: ops.generalized_box_iou_loss, distance_box_iou_loss,
# complete_box_iou_loss of (PRED, TRUE) as [xmin, ymin, xmax, ymax]; gradients of the sum, in our
# order of coordinates. torchvision adds 1e-7 to its denominators.
TORCHVISION = {
    "giou": (
        [0.688695790306177, 0.8641025838045118, 1.812499830729202],
        [
            [1.5342149217787955, -0.9205286768028715, 0.9205286768028714, -1.5342149217787955],
            [0.6909927046252795, 0.8974357823800279, -0.6909927046252795, 0.4268024761187733],
            [0.20833328993056455, 0.3906247070313552, 0.10416692708322017, -0.6249998697916938],
        ],
    ),
    "diou": (
        [0.6486958143061659, 0.7818742348382033, 1.3624999637500035],
        [
            [1.3342150417787395, -0.8005287008028827, 0.8005287008028829, -1.3342150417787395],
            [0.21892400169748544, 1.06318162957639, -0.2741726174296061, 0.3565405233989243],
            [0.39999996000000393, 0.12999992900001278, -0.034999953000008965, -0.44999995500000434],
        ],
    ),
    "ciou": (
        [0.6486958143061659, 0.7841523321919008, 1.5160834706864594],
        [
            [1.3342150417787395, -0.8005287008028827, 0.8005287008028829, -1.3342150417787395],
            [0.22903874663428675, 1.0530668846395888, -0.2842873623664074, 0.3666552683357256],
            [0.11660865348713634, 0.9801738485386156, 0.24839135351285863, -1.300173874538607],
        ],
    ),
}


def by_formula(true, pred, mode):
    """One box at a time, in Python floats."""
    (ay0, ax0, ay1, ax1), (by0, bx0, by1, bx1) = true, pred
    common = max(min(ay1, by1) - max(ay0, by0), 0) * max(min(ax1, bx1) - max(ax0, bx0), 0)
    union = (ay1 - ay0) * (ax1 - ax0) + (by1 - by0) * (bx1 - bx0) - common
    loss = 1 - common / union
    high, wide = max(ay1, by1) - min(ay0, by0), max(ax1, bx1) - min(ax0, bx0)
    if mode == "giou":
        return loss + (high * wide - union) / (high * wide)
    if mode in ("diou", "ciou"):
        dy, dx = (ay0 + ay1 - by0 - by1) / 2, (ax0 + ax1 - bx0 - bx1) / 2
        penalty = (dy**2 + dx**2) / (high**2 + wide**2)
        if mode == "ciou":
            angles = [math.atan((x1 - x0) / (y1 - y0)) for y0, x0, y1, x1 in (true, pred)]
            v = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
            penalty += v * v / (loss + v) if v else 0
        loss += penalty
    return loss


def value_and_gradient(loss, true, pred):
    pred = tf.constant(pred)
    with tf.GradientTape() as tape:
        tape.watch(pred)
        values = loss.call(tf.constant(true), pred)
    return values.numpy(), tape.gradient(values, pred).numpy()


def test_a_box_that_covers_a_third_of_the_union_has_loss_two_thirds():
    loss = IoU()([[0.0, 0.0, 2.0, 2.0]], [[0.0, 1.0, 2.0, 3.0]])
    assert float(loss) == pytest.approx(1 - 2 / 6)


def test_boxes_apart_have_giou_loss_above_one():
    # areas 1 and 1, the box around them 3: 1 - 0 + (3 - 2) / 3
    loss = IoU(mode="giou")([[0.0, 0.0, 1.0, 1.0]], [[0.0, 2.0, 1.0, 3.0]])
    assert float(loss) == pytest.approx(4 / 3)


@pytest.mark.parametrize("mode", MODES)
def test_random_boxes_equal_the_formula(mode):
    rng = np.random.default_rng(0)
    low, size = rng.uniform(0, 1, (2, 50, 2)), rng.uniform(0.05, 1, (2, 50, 2))
    true, pred = np.concatenate([low, low + size], -1)
    expected = [by_formula(t, p, mode) for t, p in zip(true, pred, strict=True)]
    found = IoU(mode=mode, dtype="float64").call(tf.constant(true), tf.constant(pred))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    found = IoU(mode=mode).call(tf.cast(true, tf.float32), tf.cast(pred, tf.float32))
    np.testing.assert_allclose(found, expected, atol=3e-6)


@pytest.mark.parametrize("mode", TORCHVISION)
def test_values_and_gradients_are_torchvisions(mode):
    values, gradient = value_and_gradient(IoU(mode=mode, dtype="float64"), TRUE, PRED)
    np.testing.assert_allclose(values, TORCHVISION[mode][0], atol=1e-5)
    np.testing.assert_allclose(gradient, TORCHVISION[mode][1], atol=1e-5)


@pytest.mark.parametrize("mode", ["iou", "giou", "diou"])
def test_the_gradient_is_that_of_finite_differences(mode):
    loss = IoU(mode=mode, dtype="float64")
    (found,), (expected,) = tf.test.compute_gradient(
        lambda pred: loss.call(tf.constant(TRUE), pred), [tf.constant(PRED)], delta=1e-6
    )
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_the_ciou_gradient_holds_alpha_constant():
    loss = IoU(mode="ciou", dtype="float64")

    def v(box):
        angles = [math.atan((b[3] - b[1]) / (b[2] - b[0])) for b in (TRUE[1], box)]
        return 4 / math.pi**2 * (angles[0] - angles[1]) ** 2

    alpha = v(PRED[1]) / (by_formula(TRUE[1], PRED[1], "iou") + v(PRED[1]))
    expected = []
    for axis in range(4):
        ends = []
        for sign in (1, -1):
            box = PRED[1].copy()
            box[axis] += sign * 1e-6
            ends.append(by_formula(TRUE[1], box, "diou") + alpha * v(box))
        expected.append((ends[0] - ends[1]) / 2e-6)
    _, gradient = value_and_gradient(loss, TRUE[1:2], PRED[1:2])
    np.testing.assert_allclose(gradient[0], expected, atol=1e-7)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize(
    ("true", "pred", "expected"),
    [
        ([0.25, 0.25, 0.5, 0.75], [0.25, 0.25, 0.5, 0.75], 0),
        ([0, 0, 0, 0], [0, 0, 0, 0], 1),
        ([0.25, 0.25, 0.5, 0.75], [0, 0, 0, 0], None),
        ([0, 0, 0, 0], [0.25, 0.25, 0.5, 0.75], None),
        ([0.5, 0, 0.5, 1], [0.5, 0, 0.5, 1], 1),
        ([0, 0, 1, 1], [1, 1, 0, 0], None),
        ([0, 0, 400, 400], [0, 0, 400, 400], 0),
    ],
    ids=["same", "zero", "pred zero", "true zero", "line", "inverted", "pixels"],
)
def test_degenerate_boxes_are_finite_in_value_and_gradient(mode, dtype, true, pred, expected):
    loss = IoU(mode=mode, dtype=dtype)
    true, pred = np.array([true], dtype="float32"), np.array([pred], dtype="float32")
    values, gradient = value_and_gradient(loss, tf.cast(true, dtype), tf.cast(pred, dtype))
    assert np.all(np.isfinite(values)) and np.all(np.isfinite(gradient.astype("float32")))
    if expected is not None:
        np.testing.assert_allclose(values, [expected], atol=1e-6)


def test_one_pixel_boxes_far_apart_are_finite_under_xla():
    loss = IoU(mode="ciou")
    true = tf.constant([[0.0, 0.0, 1e-7, 1e-7], [0.0, 0.0, 1.0, 1e-12]])
    pred = tf.constant([[1e4, 1e4, 1e4, 1e4], [0.0, 0.0, 1e-12, 1.0]])
    compiled = tf.function(lambda: value_and_gradient_graph(loss, true, pred), jit_compile=True)
    assert all(np.all(np.isfinite(found)) for found in compiled())


def value_and_gradient_graph(loss, true, pred):
    with tf.GradientTape() as tape:
        tape.watch(pred)
        values = loss.call(true, pred)
    return values, tape.gradient(values, pred)


@settings(max_examples=25, deadline=None)
@given(
    scale=st.floats(0.1, 100.0),
    shift=st.floats(-1.0, 1.0),
    mode=st.sampled_from(MODES),
    seed=st.integers(0, 1000),
)
def test_the_loss_does_not_depend_on_the_unit_nor_on_the_origin(scale, shift, mode, seed):
    rng = np.random.default_rng(seed)
    low, size = rng.uniform(0, 1, (2, 5, 2)), rng.uniform(0.1, 1, (2, 5, 2))
    true, pred = np.concatenate([low, low + size], -1)
    loss = IoU(mode=mode, dtype="float64")
    plain = loss.call(true, pred)
    np.testing.assert_allclose(loss.call((true + shift) * scale, (pred + shift) * scale), plain)
    if mode != "ciou":
        return
    assert np.all(plain >= IoU(mode="diou", dtype="float64").call(true, pred) - 1e-12)


def test_padding_is_left_out_by_a_weight_for_each_box():
    true = np.array([[[0, 0, 1, 1], [0, 0, 0, 0]]], "float32")
    pred = np.array([[[0, 0, 1, 0.5], [0, 0, 0, 0]]], "float32")
    loss = IoU(reduction="mean_with_sample_weight")(true, pred, [[1.0, 0.0]])
    assert float(loss) == pytest.approx(0.5)


def test_a_mode_or_a_shape_it_does_not_know_is_an_error():
    with pytest.raises(ValueError, match=r"IoU\(mode='box'\): accepted are 'iou', 'giou'"):
        IoU(mode="box")
    with pytest.raises(ValueError, match=r"last axis of 4, received predictions of shape \(1, 5\)"):
        IoU()(np.zeros((1, 4)), np.zeros((1, 5)))


def test_boxes_are_learned_by_fit():
    whole_image = keras.initializers.Constant(np.array([0.0, 0.0, 1.0, 1.0]))
    boxes = keras.layers.Dense(4, kernel_initializer="zeros", bias_initializer=whole_image)
    model = keras.Sequential([keras.Input((2,)), boxes])
    model.compile(keras.optimizers.Adam(0.02), IoU(mode="giou"))
    x = np.eye(2, dtype="float32")
    y = np.array([[0.1, 0.1, 0.5, 0.5], [0.4, 0.2, 0.9, 0.8]], "float32")
    history = model.fit(x, y, epochs=60, verbose=0).history["loss"]
    assert history[-1] < 0.15 < 0.5 < history[0]
