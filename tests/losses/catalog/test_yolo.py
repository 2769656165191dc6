"""YOLOv3: cell by cell in Python, at degenerate boxes, one scale and all three at once."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from losses import Ratio, YOLOv3, term
from losses.catalog.yolo import PARTS

ANCHORS = [[[0.5, 0.6], [0.9, 0.8]], [[0.2, 0.3], [0.3, 0.1]], [[0.05, 0.1], [0.1, 0.05]]]
GRIDS = [(2, 2), (4, 4), (8, 8)]
CLASSES = 3


def scene(seed=0, images=2, objects=4):
    """Labels and raw predictions of three scales; the last image has no object."""
    rng = np.random.default_rng(seed)
    y_true = [np.zeros((images, *grid, 2, 5 + CLASSES)) for grid in GRIDS]
    y_pred = [rng.normal(size=labels.shape) for labels in y_true]
    for image in range(images - 1):
        for _ in range(objects):
            scale, anchor = rng.integers(0, 3), rng.integers(0, 2)
            x, y = rng.uniform(0, 1, 2)
            w, h = np.clip(np.array(ANCHORS[scale][anchor]) * rng.uniform(0.5, 2, 2), 0, 1)
            rows, columns = GRIDS[scale]
            cell = (image, int(y * rows), int(x * columns), anchor)
            y_true[scale][cell] = [x, y, w, h, 1, *np.eye(CLASSES)[rng.integers(0, CLASSES)]]
            # the cell's other anchor predicts nearly the same box: it is ignored, or nearly
            size = np.log(np.array([w, h]) / ANCHORS[scale][1 - anchor])
            place = np.array([x * columns % 1, y * rows % 1])
            place = np.log(place / (1 - place))
            other = y_pred[scale][image, cell[1], cell[2], 1 - anchor]
            other[:4] = np.concatenate([place, size]) + rng.normal(size=4) * 0.2
    return y_true, y_pred


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cross_entropy(label, logit):
    return -label * np.log(sigmoid(logit)) - (1 - label) * np.log(sigmoid(-logit))


def overlap(a, b):
    """IoU of two boxes given by centre and size."""
    sides = [
        max(min(a[i] + a[i + 2] / 2, b[i] + b[i + 2] / 2)
            - max(a[i] - a[i + 2] / 2, b[i] - b[i + 2] / 2), 0)
        for i in (0, 1)
    ]  # fmt: skip
    common = sides[0] * sides[1]
    return common / (a[2] * a[3] + b[2] * b[3] - common)


def by_cell(y_true, y_pred, anchors, threshold=0.5):
    """The parts of each image, one grid cell and anchor at a time (as keras-yolo3 defines them)."""
    totals = {part: np.zeros(len(y_true[0])) for part in PARTS}
    for image in range(len(y_true[0])):
        boxes = [
            box[:4]
            for labels in y_true
            for box in labels[image].reshape(-1, labels.shape[-1])
            if box[4]
        ]
        for labels, raw, sizes in zip(y_true, y_pred, anchors, strict=True):
            rows, columns = labels.shape[1:3]
            for row, column, anchor in np.ndindex(rows, columns, len(sizes)):
                t, p = labels[image, row, column, anchor], raw[image, row, column, anchor]
                width, height = sizes[anchor]
                if t[4]:
                    s = 2 - t[2] * t[3]
                    totals["xy"][image] += s * (
                        cross_entropy(t[0] * columns - column, p[0])
                        + cross_entropy(t[1] * rows - row, p[1])
                    )
                    totals["wh"][image] += (
                        0.5
                        * s
                        * ((np.log(t[2] / width) - p[2]) ** 2 + (np.log(t[3] / height) - p[3]) ** 2)
                    )
                    totals["objectness"][image] += cross_entropy(1, p[4])
                    totals["class"][image] += np.sum(cross_entropy(t[5:], p[5:]))
                    continue
                found = [
                    (sigmoid(p[0]) + column) / columns,
                    (sigmoid(p[1]) + row) / rows,
                    width * np.exp(p[2]),
                    height * np.exp(p[3]),
                ]
                if max((overlap(found, box) for box in boxes), default=0) < threshold:
                    totals["no_object"][image] += cross_entropy(0, p[4])
    return totals


def as_tensors(arrays, dtype="float64"):
    return [tf.constant(array, dtype) for array in arrays]


def test_an_empty_image_counts_each_cell_as_no_object():
    loss = YOLOv3(anchors=[[0.5, 0.5]], num_classes=1)
    nothing = tf.zeros([1, 2, 2, 1, 6])
    values = {name: float(ratio.value()) for name, ratio in loss.ratio(nothing, nothing).items()}
    expected = {"xy": 0, "wh": 0, "objectness": 0, "no_object": 4 * np.log(2), "class": 0}
    assert values == pytest.approx(expected)


def test_one_object_by_hand():
    # a grid of 1 x 1: the centre (0.5, 0.25), half the anchor's width, its height; s = 2 - 1/8
    loss = YOLOv3(anchors=[[0.5, 0.5]], num_classes=2)
    y_true = tf.constant([0.5, 0.25, 0.25, 0.5, 1.0, 0.0, 1.0], shape=[1, 1, 1, 1, 7])
    parts = loss.ratio(y_true, tf.zeros([1, 1, 1, 7]))
    values = {name: float(ratio.value()) for name, ratio in parts.items()}
    expected = {
        "xy": (2 - 0.125) * 2 * np.log(2),
        "wh": 0.5 * (2 - 0.125) * np.log(0.5) ** 2,
        "objectness": np.log(2),
        "no_object": 0,
        "class": 2 * np.log(2),
    }
    assert values == pytest.approx(expected)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), threshold=st.sampled_from([0.3, 0.5, 0.7]))
def test_all_scales_at_once_are_the_sum_over_their_cells(seed, threshold):
    y_true, y_pred = scene(seed)
    loss = YOLOv3(ANCHORS, CLASSES, threshold, dtype="float64")
    expected = by_cell(y_true, y_pred, ANCHORS, threshold)
    found = loss.parts(as_tensors(y_true), as_tensors(y_pred))
    for part in PARTS:
        np.testing.assert_allclose(found[part], expected[part], rtol=1e-9, atol=1e-9)
    low = YOLOv3(ANCHORS, CLASSES, threshold).parts(
        as_tensors(y_true, "float32"), as_tensors(y_pred, "float32")
    )
    for part in PARTS:
        np.testing.assert_allclose(low[part], expected[part], rtol=1e-5, atol=1e-5)


def test_the_scene_has_cells_that_are_ignored():
    y_true, y_pred = scene()
    all_counted = by_cell(y_true, y_pred, ANCHORS, threshold=1.1)["no_object"]
    assert by_cell(y_true, y_pred, ANCHORS)["no_object"][0] < all_counted[0]


@pytest.mark.parametrize("scale", range(3))
def test_one_scale_is_one_output_raw_or_shaped(scale):
    y_true, y_pred = scene()
    labels, raw = y_true[scale], y_pred[scale]
    loss = YOLOv3(ANCHORS[scale], CLASSES, dtype="float64")
    expected = by_cell([labels], [raw], [ANCHORS[scale]])
    total = sum(values.mean() for values in expected.values())
    assert float(loss(labels, raw)) == pytest.approx(total)
    assert float(loss(labels, raw.reshape(*raw.shape[:3], -1))) == pytest.approx(total)
    np.testing.assert_allclose(loss.call(labels, raw), sum(expected.values()))


def test_a_lone_scale_looks_only_at_its_own_true_boxes():
    # the fine scale's prediction lies on a box labelled at the coarse one
    y_true = [np.zeros((1, 1, 1, 1, 6)), np.zeros((1, 2, 2, 1, 6))]
    y_true[0][0, 0, 0, 0] = [0.25, 0.25, 0.5, 0.5, 1, 1]
    y_pred = [np.zeros_like(labels) for labels in y_true]
    anchors = [[[0.5, 0.5]], [[0.5, 0.5]]]
    together = YOLOv3(anchors, 1).parts(y_true, y_pred)["no_object"]
    alone = YOLOv3(anchors[1], 1).parts(y_true[1], y_pred[1])["no_object"]
    np.testing.assert_allclose(together, [3 * np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(alone, [4 * np.log(2)], rtol=1e-6)


def test_the_gradient_is_that_of_finite_differences():
    y_true, y_pred = scene()
    loss = YOLOv3(ANCHORS[0], CLASSES, dtype="float64")
    labels = tf.constant(y_true[0])
    (found,), (expected,) = tf.test.compute_gradient(
        lambda p: loss(labels, p), [tf.constant(y_pred[0])], delta=1e-6
    )
    np.testing.assert_allclose(found, expected, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("logit", [-60.0, 0.0, 60.0])
@pytest.mark.parametrize("box", [[0, 0, 0, 0], [1, 1, 1, 1], [0.5, 0.5, 1e-9, 1]], ids=str)
def test_degenerate_boxes_and_far_logits_are_finite(dtype, logit, box):
    loss = YOLOv3(anchors=[[0.5, 0.5], [0.1, 0.1]], num_classes=1, dtype=dtype)
    y_true = np.zeros((1, 2, 2, 2, 6), "float32")
    y_true[0, 1, 1, 0] = [*box, 1, 1]
    y_pred = tf.fill([1, 2, 2, 2, 6], tf.constant(logit, dtype))
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        value = loss(y_true, y_pred)
    assert np.isfinite(float(value))
    assert np.all(np.isfinite(tf.cast(tape.gradient(value, y_pred), tf.float32)))


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
def test_weights_multiply_the_images_and_weight_2_is_twice(reduction):
    y_true, y_pred = scene(images=3)
    loss = YOLOv3(ANCHORS, CLASSES, dtype="float64", reduction=reduction)
    weight = np.array([2.0, 0.0, 1.0])
    repeated = [0, 0, 2]
    expected = loss([t[repeated] for t in y_true], [p[repeated] for p in y_pred])
    found = loss(as_tensors(y_true), as_tensors(y_pred), weight)
    assert float(found) == pytest.approx(float(expected), rel=1e-12)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), split=st.integers(0, 4))
def test_the_sums_of_two_parts_are_those_of_the_batch(seed, split):
    y_true, y_pred = scene(seed, images=4)
    loss = YOLOv3(ANCHORS, CLASSES, dtype="float64")
    order = np.random.default_rng(seed).permutation(4)
    whole = loss.ratio(as_tensors(y_true), as_tensors(y_pred))
    parts = [
        loss.ratio(*(as_tensors([a[part] for a in arrays]) for arrays in (y_true, y_pred)))
        for part in (order[:split], order[split:])
    ]
    for name in PARTS:
        one, other = parts[0][name], parts[1][name]
        total = Ratio(one.numerator + other.numerator, one.denominator + other.denominator)
        assert float(total.value()) == pytest.approx(float(whole[name].value()), rel=1e-9)


def test_xla_gives_the_same():
    y_true, y_pred = (as_tensors(a, "float32") for a in scene())
    loss = YOLOv3(ANCHORS, CLASSES)

    def step(y_pred):
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            value = loss(y_true, y_pred)
        return value, tape.gradient(value, y_pred)

    compiled, plain = tf.function(step, jit_compile=True)(y_pred), step(y_pred)
    np.testing.assert_allclose(compiled[0], plain[0], rtol=1e-6)
    for found, expected in zip(compiled[1], plain[1], strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_it_is_a_term_of_all_scales_with_named_parts():
    class Step:
        y, y_pred = scene()

    yolo = YOLOv3(ANCHORS, CLASSES, dtype="float64")
    of_all = term(lambda step: yolo.ratio(step.y, step.y_pred), name="yolo")
    assert set(of_all.call(Step)) == set(PARTS)


@pytest.mark.parametrize("anchors", [ANCHORS, ANCHORS[0]], ids=["three scales", "one"])
def test_it_is_restored_from_its_configuration(anchors):
    loss = YOLOv3(np.array(anchors), 4, ignore_threshold=0.7, reduction="sum", dtype="float64")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is YOLOv3 and again.get_config() == loss.get_config()
    assert loss.get_config()["anchors"] == anchors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: YOLOv3([[116, 90]], 80), r"parts of the image's.*Divide anchors in pixels"),
        (lambda: YOLOv3([0.1, 0.2], 80), r"give \[width, height\] for each anchor"),
        (lambda: YOLOv3("coco", 80), r"anchors='coco'"),
        (lambda: YOLOv3(ANCHORS[0], 0), r"num_classes=0"),
        (lambda: YOLOv3(ANCHORS[0], 3, ignore_threshold=50), r"ignore_threshold=50.*from 0 to 1"),
        (
            lambda: YOLOv3(ANCHORS, 3)(np.zeros((1, 2, 2, 2, 8)), np.zeros((1, 2, 2, 2, 8))),
            r"anchors of 3 scales.*predictions of 1. Give each output its own YOLOv3",
        ),
        (
            lambda: YOLOv3(ANCHORS[0], 4)(np.zeros((1, 2, 2, 2, 9)), np.zeros((1, 2, 2, 16))),
            r"predictions of shape \(1, 2, 2, 16\). With 2 anchors and 4 classes.*18\]",
        ),
    ],
)
def test_a_wrong_argument_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_two_scales_are_learned_by_fit():
    y_true, _ = scene(images=3)
    x = np.eye(3, dtype="float32")
    inputs = keras.Input((3,))
    outputs = {
        name: keras.layers.Reshape((*GRIDS[i], 2 * (5 + CLASSES)))(
            keras.layers.Dense(GRIDS[i][0] * GRIDS[i][1] * 2 * (5 + CLASSES))(inputs)
        )
        for i, name in enumerate(["coarse", "middle"])
    }
    model = keras.Model(inputs, outputs)
    names = {"coarse": 0, "middle": 1}
    model.compile(
        keras.optimizers.Adam(0.1), {n: YOLOv3(ANCHORS[i], CLASSES) for n, i in names.items()}
    )
    labels = {n: y_true[i].astype("float32") for n, i in names.items()}
    history = model.fit(x, labels, epochs=30, batch_size=3, verbose=0).history["loss"]
    assert history[-1] < 0.2 * history[0]
