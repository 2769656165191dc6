"""Boxes and the cells of a detection head, by hand and against a loop over boxes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses

ANCHORS = [[[0.5, 0.5], [0.3, 0.6]], [[0.1, 0.1], [0.2, 0.1]]]  # of 2x2 and 4x4 cells
GRIDS = [(2, 2), (4, 4)]


def assign(boxes, classes, num_classes=3, anchors=ANCHORS, grids=GRIDS):
    labels = losses.assign_boxes(
        boxes, classes, anchors=anchors, grids=grids, num_classes=num_classes
    )
    return [np.asarray(scale) for scale in labels]


def test_three_boxes_are_where_they_belong_by_hand():
    """A square of a half, a flat one of the fine scale, and a tall one."""
    boxes = [[[0.25, 0.75, 0.5, 0.4], [0.6, 0.1, 0.2, 0.1], [0.99, 0.3, 0.3, 0.7]]]
    coarse, fine = assign(boxes, [[2, 0, 1]])
    assert coarse.shape == (1, 2, 2, 2, 8) and fine.shape == (1, 4, 4, 2, 8)
    by_hand = [np.zeros_like(coarse), np.zeros_like(fine)]
    by_hand[0][0, 1, 0, 0] = [0.25, 0.75, 0.5, 0.4, 1, 0, 0, 1]  # row 0.75 * 2, column 0.25 * 2
    by_hand[0][0, 0, 1, 1] = [0.99, 0.3, 0.3, 0.7, 1, 0, 1, 0]
    by_hand[1][0, 0, 2, 1] = [0.6, 0.1, 0.2, 0.1, 1, 1, 0, 0]  # row 0.1 * 4, column 0.6 * 4
    np.testing.assert_allclose(coarse, by_hand[0], atol=1e-7)
    np.testing.assert_allclose(fine, by_hand[1], atol=1e-7)


def test_padding_and_boxes_whose_centre_is_outside_are_left_out():
    boxes = [[[0.5, 0.5, 0.0, 0.2], [0.5, 0.5, 0.2, -1.0], [1.0, 0.5, 0.2, 0.2], [0.1, -0.1, 1, 1]]]
    assert all((scale == 0).all() for scale in assign(boxes, [[0, 1, 2, -1]]))


def test_of_two_boxes_at_one_place_the_later_one_has_it():
    boxes = [[[0.3, 0.3, 0.5, 0.5], [0.2, 0.4, 0.5, 0.5], [0.2, 0.4, 0.0, 0.0]]]
    coarse, _ = assign(boxes, [[0, 1, 2]])
    np.testing.assert_allclose(coarse[0, 0, 0, 0], [0.2, 0.4, 0.5, 0.5, 1, 0, 1, 0], atol=1e-7)
    assert coarse[..., 4].sum() == 1


def by_loop(boxes, classes, num_classes):
    """One box after another, as one would write it down."""
    labels = [np.zeros((len(boxes), *grid, 2, 5 + num_classes), "float32") for grid in GRIDS]
    for i, image in enumerate(boxes):
        for (x, y, w, h), c in zip(image, classes[i], strict=True):
            if min(w, h) <= 0:
                continue
            fits = []
            for scale in ANCHORS:
                for aw, ah in scale:
                    common = min(w, aw) * min(h, ah)
                    fits.append(common / (w * h + aw * ah - common))
            scale, anchor = divmod(int(np.argmax(fits)), 2)
            rows, columns = GRIDS[scale]
            here = labels[scale][i, int(y * rows), int(x * columns), anchor]
            here[:] = 0
            here[:5], here[5 + c] = (x, y, w, h, 1), 1
    return labels


@pytest.mark.parametrize("compiled", [False, True])
def test_many_boxes_are_those_of_a_loop(compiled):
    rng = np.random.default_rng(0)
    boxes = rng.uniform(0.01, 0.99, (16, 12, 4)).astype("float32")
    boxes[..., 2:] *= 0.7
    boxes[rng.uniform(size=(16, 12)) < 0.3] = 0.0
    classes = rng.integers(5, size=(16, 12))
    function = tf.function(assign_raw, jit_compile=compiled)
    found = [np.asarray(scale) for scale in function(tf.constant(boxes), tf.constant(classes))]
    for scale, expected in zip(found, by_loop(boxes, classes, 5), strict=True):
        np.testing.assert_allclose(scale, expected, atol=1e-6)
    assert sum(scale[..., 4].sum() for scale in found) > 80


def assign_raw(boxes, classes):
    return losses.assign_boxes(boxes, classes, anchors=ANCHORS, grids=GRIDS, num_classes=5)


def test_the_loss_of_perfect_predictions_is_nearly_nothing_and_the_boxes_come_back():
    """Raw outputs made by hand of the labels: the loss takes what is assigned, detection gives it
    back."""
    boxes = np.array([[[0.25, 0.75, 0.5, 0.4], [0.6, 0.1, 0.2, 0.1]]], "float32")
    labels = assign(boxes, [[2, 0]])
    raw = []
    for label, anchors, (rows, columns) in zip(labels, ANCHORS, GRIDS, strict=True):
        cells = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1)[None, :, :, None]
        within = np.clip(label[..., :2] * [columns, rows] - cells, 1e-4, 1 - 1e-4)
        sizes = np.log(np.where(label[..., 2:4] > 0, label[..., 2:4], anchors) / anchors)
        sure = np.where(label[..., 4:] > 0, 20.0, -20.0)
        raw.append(np.concatenate([np.log(within / (1 - within)), sizes, sure], -1))
    raw = [scale.astype("float32") for scale in raw]
    parts = losses.YOLOv3(ANCHORS, 3).ratio(labels, raw)
    for name in ("wh", "objectness", "no_object", "class"):
        assert float(parts[name].value()) < 1e-4
    found, scores = (np.asarray(t) for t in losses.detected_boxes(raw, ANCHORS))
    assert found.shape == (1, 40, 4) and scores.shape == (1, 40, 3)
    where, which = np.nonzero(scores[0] > 0.5)
    np.testing.assert_allclose(found[0, where], boxes[0], atol=1e-4)
    assert which.tolist() == [2, 0]


def test_of_one_scale_too():
    labels = assign([[[0.5, 0.5, 0.2, 0.4]]], [[1]], 2, [[0.4, 0.2], [0.2, 0.4]], [(4, 4)])
    assert len(labels) == 1 and labels[0][0, 2, 2, 1, 4] == 1
    boxes, _ = losses.detected_boxes(tf.zeros([2, 4, 4, 2, 7]), [[0.4, 0.2], [0.2, 0.4]])
    np.testing.assert_allclose(boxes[1, 1], [0.125, 0.125, 0.2, 0.4], atol=1e-6)


def test_in_a_pipeline_of_one_image_each():
    boxes, classes = np.full((6, 3, 4), 0.4, "float32"), np.zeros((6, 3), "int64")
    data = tf.data.Dataset.from_tensor_slices((boxes, classes)).batch(2).map(assign_raw)
    assert [spec.shape[1:] for spec in data.element_spec] == [(2, 2, 2, 10), (4, 4, 2, 10)]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (dict(boxes=[[0.5, 0.5, 0.1, 0.1]]), r"received \(1, 4\) and \(1, 1\)"),
        (dict(grids=[(2, 2)]), "for each of the 2 scales"),
        (dict(grids=[(2, 2), (0, 4)]), "for each of the 2 scales"),
        (dict(anchors=[[[5.0, 5.0]]]), r"assign_boxes\(anchors=.*above 0, at most 1"),
        (dict(num_classes=0), "num_classes=0"),
    ],
)
def test_what_cannot_be_assigned_is_refused(arguments, said):
    arguments = {"boxes": [[[0.5, 0.5, 0.1, 0.1]]], "classes": [[0]], **arguments}
    with pytest.raises(losses.TermwiseError, match=said):
        assign(**arguments)


def test_predictions_of_other_scales_are_refused():
    with pytest.raises(losses.TermwiseError, match="anchors of 2 scales"):
        losses.detected_boxes(tf.zeros([1, 4, 4, 2, 7]), ANCHORS)
    with pytest.raises(losses.TermwiseError, match=r"shapes \[\(1, 4, 4, 14\)\]"):
        losses.detected_boxes(tf.zeros([1, 4, 4, 14]), ANCHORS[0])


def test_a_head_learns_what_was_assigned():
    """The labels made inside a term, of boxes in the data."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(4, 4, 4, 3)).astype("float32")
    boxes = rng.uniform(0.2, 0.8, (4, 1, 4)).astype("float32")
    classes = np.zeros((4, 1), "int32")
    yolo = losses.YOLOv3(ANCHORS[1], 1)

    def detection(step):
        labels = losses.assign_boxes(
            step.y["boxes"], step.y["classes"], anchors=ANCHORS[1], grids=[(4, 4)], num_classes=1
        )
        return yolo.ratio(labels[0], step.y_pred)

    from trainer import Trainer

    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Dense(12)])
    trainer = Trainer(model, optimizer=keras.optimizers.Adam(0.05), terms=[losses.term(detection)])
    data = images, {"boxes": boxes, "classes": classes}
    rows = trainer.fit(data, steps=30, batch_size=4, log_every=1, verbose=False).rows
    assert rows[-1]["total"] < rows[0]["total"] / 2
