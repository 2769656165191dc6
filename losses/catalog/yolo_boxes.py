"""Between boxes and a detection head: what each cell is to say of true boxes, and what it says."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from losses.catalog.yolo import checked_anchors, predicted_boxes
from losses.checks import whole, without_fraction
from losses.errors import TermwiseError


def assign_boxes(boxes, classes, *, anchors, grids, num_classes) -> list[tf.Tensor]:
    """The labels of a YOLOv3 head: each true box at one anchor of the cell of its centre.

    The anchor is that whose shape fits best, of all scales: of the largest IoU with the box where
    both have one centre; the first of two alike. Where two boxes of an image come to one anchor of
    one cell, the later one has it. All else is 0. Works in a graph, in `tf.data` and under XLA.

    Args:
      boxes: floating [images, boxes, 4], x, y of the centre, width and height as parts of the
        image's. A box whose width or height is 0 or less is padding; so is one whose centre lies
        outside the image.
      classes: int [images, boxes]; of padding they are not read.
      anchors: [anchors, 2] of one scale, or a list of these, as `YOLOv3` takes them.
      grids: (rows, columns) of each scale: of the output at that scale.
      num_classes: int >= 1.
    Returns:
      list of float32 [images, rows, columns, anchors, 5 + num_classes], one for each scale: x, y,
      width, height, objectness 1, one-hot class; what `YOLOv3` takes as `y_true`.
    Raises:
      ValueError: shapes or arguments other than these. A class that is not below `num_classes` has
        no bit: its box has an object of no class.
    Source: Redmon and Farhadi 2018, section 2.1.

    Example: one box at the centre of the image; of its two anchors the second fits.
      >>> labels, = assign_boxes([[[0.5, 0.5, 0.2, 0.4]]], [[1]], num_classes=2,
      ...                        anchors=[[0.4, 0.2], [0.2, 0.4]], grids=[(4, 4)])
      >>> " ".join(f"{v:g}" for v in labels[0, 2, 2, 1].numpy())
      '0.5 0.5 0.2 0.4 1 0 1'
    """
    scales = checked_anchors(anchors, "assign_boxes")
    num_classes = whole("num_classes", without_fraction(num_classes))
    grids = _checked_grids(grids, len(scales))
    boxes = tf.cast(tf.convert_to_tensor(boxes), tf.float32)
    classes = tf.convert_to_tensor(classes)
    if boxes.shape.rank != 3 or boxes.shape[-1] != 4 or classes.shape.rank != 2:
        raise TermwiseError(
            "assign_boxes takes boxes [images, boxes, 4] and classes [images, boxes], received "
            f"{tuple(boxes.shape)} and {tuple(classes.shape)}. Put one image's into a batch of one."
        )
    best = tf.argmax(_shape_overlap(boxes[..., 2:], np.concatenate(scales)), -1, tf.int32)
    inside = tf.reduce_all((boxes[..., :2] >= 0) & (boxes[..., :2] < 1), -1)
    real = inside & tf.reduce_all(boxes[..., 2:] > 0, -1)
    ones = tf.ones_like(boxes[..., :1])
    values = tf.concat([boxes, ones, tf.one_hot(classes, num_classes)], -1)
    labels, first = [], 0
    for scale, grid in zip(scales, grids, strict=True):
        here = real & (best >= first) & (best < first + len(scale))
        labels.append(_placed(values, here, best - first, len(scale), grid))
        first += len(scale)
    return labels


def detected_boxes(y_pred, anchors) -> tuple[tf.Tensor, tf.Tensor]:
    """The boxes that a YOLOv3 head predicts, of all scales, with their scores; before suppression.

        centre = (sigmoid(p_xy) + cell) / grid,   size = anchor exp(p_wh)
        score  = sigmoid(p_o) sigmoid(p_c)        for each class c

    Args:
      y_pred: floating [images, rows, columns, anchors, 5 + classes] of one scale, raw as `YOLOv3`
        takes it, or a list of these.
      anchors: as there.
    Returns:
      boxes float32 [images, boxes, 4]: x, y of the centre, width and height as parts of the
      image's; scores float32 [images, boxes, classes].
    Raises:
      ValueError: predictions of another number of scales or anchors.
    Source: Redmon and Farhadi 2018, section 2.1; the score is the product of YOLO's first paper.

    Example: an untrained head predicts the middle of each cell at the size of its anchor.
      >>> boxes, scores = detected_boxes(tf.zeros([1, 2, 2, 1, 7]), [[0.5, 0.25]])
      >>> boxes[0, 1].numpy().tolist()
      [0.75, 0.25, 0.5, 0.25]
      >>> float(scores[0, 0, 0])
      0.25
    """
    scales = checked_anchors(anchors, "detected_boxes")
    outputs = list(y_pred) if isinstance(y_pred, (list, tuple)) else [y_pred]
    shapes = [tf.convert_to_tensor(raw).shape for raw in outputs]
    anchors_of = [shape[3] if len(shape) == 5 else None for shape in shapes]
    if anchors_of != [len(scale) for scale in scales]:
        raise TermwiseError(
            f"detected_boxes has anchors of {len(scales)} scales, {[len(s) for s in scales]} each, "
            f"but predictions of shapes {[tuple(s) for s in shapes]}. Give [images, rows, columns, "
            "anchors, 5 + classes] of each scale."
        )
    boxes, scores = [], []
    for raw, scale in zip(outputs, scales, strict=True):
        raw = tf.cast(raw, tf.float32)
        images, depth = tf.shape(raw)[0], raw.shape[-1]
        boxes.append(tf.reshape(predicted_boxes(raw, scale), [images, -1, 4]))
        score = tf.sigmoid(raw[..., 4:5]) * tf.sigmoid(raw[..., 5:])
        scores.append(tf.reshape(score, [images, -1, depth - 5]))
    return tf.concat(boxes, 1), tf.concat(scores, 1)


def _checked_grids(grids, scales: int) -> list[tuple[int, int]]:
    try:
        checked = [(int(rows), int(columns)) for rows, columns in grids]
    except (TypeError, ValueError):
        checked = []
    if len(checked) != scales or any(min(grid) < 1 for grid in checked):
        raise TermwiseError(
            f"assign_boxes(grids={grids!r}): give (rows, columns) for each of the {scales} scales "
            "that anchors= has."
        )
    return checked


def _shape_overlap(sizes, anchors) -> tf.Tensor:
    """float32 [images, boxes, anchors], the IoU of boxes and anchors around one centre."""
    anchors = tf.constant(anchors, tf.float32)
    sizes = tf.maximum(sizes, 0.0)[:, :, tf.newaxis]
    common = tf.reduce_prod(tf.minimum(sizes, anchors), -1)
    both = tf.reduce_prod(sizes, -1) + tf.reduce_prod(anchors, -1)
    return common / (both - common)


def _placed(values, here, anchor, anchors: int, grid: tuple[int, int]) -> tf.Tensor:
    """The values of the boxes that belong to a scale, each in its cell; of two the later one.

    Args:
      values: float32 [images, boxes, depth].
      here: bool [images, boxes], which boxes belong to the scale.
      anchor: int32 [images, boxes], at which of its anchors.
    """
    rows, columns = grid
    cell = tf.cast(values[..., :2] * [float(columns), float(rows)], tf.int32)
    # below 1, a centre may still be rounded up to the edge
    column, row = tf.minimum(cell[..., 0], columns - 1), tf.minimum(cell[..., 1], rows - 1)
    place = (row * columns + column) * anchors + anchor
    boxes = tf.shape(values)[1]
    order = tf.range(boxes)
    later = order[tf.newaxis, :] > order[:, tf.newaxis]
    same = tf.equal(place[:, :, tf.newaxis], place[:, tf.newaxis, :])
    taken = tf.reduce_any(same & later & here[:, tf.newaxis, :], -1)
    kept = here & ~taken
    # a sum over boxes of which at most one is at each place; no scatter, which XLA would serialise
    at = tf.one_hot(tf.where(kept, place, -1), rows * columns * anchors)
    labels = tf.einsum("ibp,ibd->ipd", at, values)
    return tf.reshape(labels, [-1, rows, columns, anchors, values.shape[-1]])
