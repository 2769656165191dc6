"""The YOLOv3 detection loss: five named parts, of one scale or of all three."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from losses.catalog.bases import BatchLoss, weight_of_examples, widen
from losses.checks import number, whole, without_fraction
from losses.errors import TermwiseError
from losses.objective import reduce_values, register_loss

PARTS = ("xy", "wh", "objectness", "no_object", "class")
SMALLEST_SIDE = 1e-6  # of the image; a box without width has no logarithm


@register_loss
class YOLOv3(BatchLoss):
    """YOLOv3's loss: the sum over grid cells and anchors, divided by the number of images.

        xy          y_o s  sum over x, y of  bce(y_xy grid - cell, p_xy)
        wh          y_o s  sum over w, h of  (log(y_wh / anchor) - p_wh)^2 / 2
        objectness  y_o bce(y_o, p_o)
        no_object   (1 - y_o) bce(y_o, p_o)  where no true box of the image overlaps the
                    predicted box by `ignore_threshold` (IoU) or more
        class       y_o  sum over classes of  bce(y_c, p_c)

    with s = 2 - y_w y_h, bce the cross-entropy of a label and a logit, and the predicted box
    ((sigmoid(p_xy) + cell) / grid, anchor exp(p_wh)). The parts are terms of their own,
    `<name>/xy` and so on: log, weigh and balance each.

    One scale is one output of the model, with its own instance: `loss={"coarse":
    YOLOv3(anchors[0], 80), "fine": YOLOv3(anchors[1], 80), ...}`. A compiled loss sees one output,
    so no_object then looks at the true boxes of its own scale. Anchors of several scales make
    one loss of lists of tensors, which looks at the true boxes of all scales as the original
    does: `terms=[losses.term(lambda step: yolo.ratio(step.y, step.y_pred), name="yolo")]`.

    Args:
      anchors: [anchors, 2] of one scale, or a list of these, one for each scale: width and
        height as parts of the image's (anchors in pixels / image size).
      num_classes: int >= 1.
      ignore_threshold: float in [0, 1].
      name, reduction, dtype: as in `keras.losses.Loss`.
    Call args, one tensor or a list with one for each scale:
      y_true: floating [images, rows, columns, anchors, 5 + classes]: x, y of the centre, width
        and height as parts of the image's, objectness (0 or 1; boxes where it is 0 are not read),
        classes (one-hot or soft). A centre outside its cell counts as on the cell's edge, a side
        of 0 as 1e-6.
      y_pred: floating, the same shape or [images, rows, columns, anchors * (5 + classes)]; raw
        x, y, w, h, objectness and class logits.
    Returns:
      float32 [images], the sum of the parts.
    Raises:
      ValueError: an argument outside its range; tensors that do not fit anchors and classes.
    Source: Redmon & Farhadi 2018; s, ½ and the cross-entropy of x, y as in Darknet's successors
      (keras-yolo3).

    Example:
      >>> loss = YOLOv3(anchors=[[0.5, 0.5]], num_classes=1)
      >>> nothing = tf.zeros([1, 2, 2, 1, 6])                        # no object in the image
      >>> parts = loss.ratio(nothing, nothing)
      >>> round(float(parts["no_object"].value()), 4), float(parts["xy"].value())   # 4 log 2
      (2.7726, 0.0)
    """

    def __init__(
        self,
        anchors,
        num_classes,
        ignore_threshold=0.5,
        name="yolo_v3",
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self._scale_anchors = checked_anchors(anchors, "YOLOv3")
        of_scales = [scale.tolist() for scale in self._scale_anchors]
        self.anchors = of_scales[0] if np.ndim(anchors[0]) == 1 else of_scales
        self.num_classes = whole(
            "num_classes",
            without_fraction(num_classes),
            owner=self,
            accepted="a whole number from 1",
        )
        self.ignore_threshold = number(
            "ignore_threshold",
            ignore_threshold,
            least=0,
            most=1,
            owner=self,
            accepted="an IoU from 0 to 1",
        )

    def call(self, y_true, y_pred):
        return tf.add_n(list(self.parts(y_true, y_pred).values()))

    def ratio(self, y_true, y_pred, sample_weight=None):
        weight = weight_of_examples(tf.nest.flatten(y_pred)[0], sample_weight, self.name)
        return {
            name: reduce_values(
                values, reduction=self.reduction, sample_weight=weight, term=f"{self.name}/{name}"
            )
            for name, values in self.parts(y_true, y_pred).items()
        }

    def parts(self, y_true, y_pred) -> dict[str, tf.Tensor]:
        """The five parts by name, float32 [images] each; arguments as in `call`."""
        scales = self._scales(y_true, y_pred)
        flat = [
            _flat(predicted_boxes(raw, anchors))
            for (_, raw), anchors in zip(scales, self._scale_anchors, strict=True)
        ]
        overlap = _best_overlap(
            tf.concat(flat, 1),
            tf.concat([_flat(t[..., :4]) for t, _ in scales], 1),
            tf.concat([_flat(t[..., 4:5])[..., 0] for t, _ in scales], 1),
        )
        overlaps = tf.split(overlap, [tf.shape(f)[1] for f in flat], axis=1, num=len(flat))
        totals = dict.fromkeys(PARTS, 0.0)
        for (labels, raw), anchors, best in zip(scales, self._scale_anchors, overlaps, strict=True):
            best = tf.reshape(best, tf.shape(labels)[:-1])
            for name, values in self._of_scale(labels, raw, anchors, best).items():
                totals[name] += tf.reduce_sum(values, axis=[1, 2, 3])
        return totals

    def _of_scale(self, labels, raw, anchors, best_overlap):
        """The parts of one scale, [images, rows, columns, anchors] each."""
        bce = tf.nn.sigmoid_cross_entropy_with_logits
        cell, grid = _cells(raw)
        object_ = labels[..., 4]
        size = labels[..., 2:4]
        scale = object_ * (2.0 - size[..., 0] * size[..., 1])
        # outside [0, 1], for a label in another cell than its centre's, bce has no lower bound
        true_xy = tf.clip_by_value(labels[..., :2] * grid - cell, 0.0, 1.0)
        true_wh = tf.math.log(tf.maximum(size, SMALLEST_SIDE) / tf.constant(anchors, raw.dtype))
        confidence = bce(labels=object_, logits=raw[..., 4])
        counted = tf.cast(best_overlap < self.ignore_threshold, raw.dtype)
        xy = tf.reduce_sum(bce(labels=true_xy, logits=raw[..., :2]), -1)
        wh = tf.reduce_sum(tf.square(true_wh - raw[..., 2:4]), -1)
        classes = tf.reduce_sum(bce(labels=labels[..., 5:], logits=raw[..., 5:]), -1)
        return {
            "xy": scale * xy,
            "wh": 0.5 * scale * wh,
            "objectness": object_ * confidence,
            "no_object": (1.0 - object_) * counted * confidence,
            "class": object_ * classes,
        }

    def _scales(self, y_true, y_pred):
        """Labels and predictions of each scale, [images, rows, columns, anchors, 5 + classes]."""
        several = isinstance(y_pred, (list, tuple))
        pairs = list(zip(y_true, y_pred, strict=False)) if several else [(y_true, y_pred)]
        if len(pairs) != len(self._scale_anchors) or (several and len(y_true) != len(y_pred)):
            raise TermwiseError(
                f"{self.name} has anchors of {len(self._scale_anchors)} scales, but was given "
                f"predictions of {len(y_pred) if several else 1}. Give each output its own YOLOv3 "
                "with the anchors of its scale, or make one term of all: "
                "losses.term(lambda step: yolo.ratio(step.y, step.y_pred), name='yolo')."
            )
        depth = 5 + self.num_classes
        scales = []
        for pair, anchors in zip(pairs, self._scale_anchors, strict=True):
            shaped = []
            for what, tensor in zip(("labels", "predictions"), pair, strict=True):
                tensor = widen(tensor)
                fits = tensor.shape[3:] in ([len(anchors), depth], [len(anchors) * depth])
                if not fits:
                    raise TermwiseError(
                        f"{self.name} received {what} of shape {tuple(tensor.shape)}. With "
                        f"{len(anchors)} anchors and {self.num_classes} classes it takes [images, "
                        f"rows, columns, {len(anchors)}, {depth}] or [images, rows, columns, "
                        f"{len(anchors) * depth}]."
                    )
                images, rows, columns = tf.unstack(tf.shape(tensor)[:3])
                static = [*tensor.shape[:3], len(anchors), depth]
                tensor = tf.reshape(tensor, [images, rows, columns, len(anchors), depth])
                shaped.append(tf.ensure_shape(tensor, static))
            scales.append(tuple(shaped))
        return scales

    def get_config(self):
        return {
            **super().get_config(),
            "anchors": self.anchors,
            "num_classes": self.num_classes,
            "ignore_threshold": self.ignore_threshold,
        }


def checked_anchors(anchors, owner: str) -> list[np.ndarray]:
    """The anchors of each scale, float64 [anchors, 2], of one scale or of several.

    Args:
      owner: who was given them, for the messages.
    """
    try:
        one_scale = np.ndim(anchors) == 2
        scales = [np.asarray(s, "float64") for s in ([anchors] if one_scale else anchors)]
    except (TypeError, ValueError):
        scales = []
    if not scales or not all(s.ndim == 2 and s.shape[-1] == 2 and s.size for s in scales):
        raise TermwiseError(
            f"{owner}(anchors={anchors!r}): give [width, height] for each anchor of one scale, or "
            "a list of these, one for each scale."
        )
    if not all(np.all((s > 0) & (s <= 1)) for s in scales):
        raise TermwiseError(
            f"{owner}(anchors={anchors!r}): give widths and heights as parts of the image's, "
            "above 0, at most 1. Divide anchors in pixels by the image size."
        )
    return scales


def _cells(raw):
    """The column and row of each cell, [rows, columns, 1, 2], and (columns, rows), [2]."""
    rows, columns = tf.shape(raw)[1], tf.shape(raw)[2]
    x, y = tf.meshgrid(tf.range(columns), tf.range(rows))
    cell = tf.cast(tf.stack([x, y], axis=-1)[:, :, tf.newaxis, :], raw.dtype)
    return cell, tf.cast(tf.stack([columns, rows]), raw.dtype)


def predicted_boxes(raw, anchors):
    """Boxes [images, rows, columns, anchors, 4]: centre and size, as parts of the image's."""
    cell, grid = _cells(raw)
    centre = (tf.sigmoid(raw[..., :2]) + cell) / grid
    size = tf.exp(tf.clip_by_value(raw[..., 2:4], -20.0, 20.0)) * tf.constant(anchors, raw.dtype)
    return tf.concat([centre, size], axis=-1)


def _flat(tensor):
    """The boxes of an image on one axis, [images, boxes, last axis]."""
    count = tf.reduce_prod(tf.shape(tensor)[1:-1])
    return tf.reshape(tensor, [tf.shape(tensor)[0], count, tensor.shape[-1]])


def _best_overlap(boxes, true_boxes, objectness):
    """The largest IoU of each predicted box with a true box of its image; no gradient.

    One true box of each image at a time: boxes x true boxes would not fit into memory.

    Args:
      boxes: floating [images, boxes, 4], centre and size.
      true_boxes: floating [images, labels, 4].
      objectness: floating [images, labels]; above 0 where there is a true box.
    Returns:
      floating [images, boxes], 0 for an image without objects.
    """
    boxes, true_boxes = tf.stop_gradient(boxes), tf.stop_gradient(true_boxes)
    there = tf.cast(objectness > 0, tf.int32)
    first = tf.argsort(there, axis=1, direction="DESCENDING", stable=True)
    true_boxes = tf.gather(true_boxes, first, batch_dims=1)
    counts = tf.reduce_sum(there, axis=1)
    most = tf.reduce_max(tf.concat([counts, [0]], 0))
    low, high, area = _corners(boxes)

    def with_next(index, best):
        low_true, high_true, area_true = _corners(true_boxes[:, index, tf.newaxis])
        common = tf.maximum(tf.minimum(high, high_true) - tf.maximum(low, low_true), 0.0)
        common = common[..., 0] * common[..., 1]
        iou = tf.math.divide_no_nan(common, area + area_true - common)
        real = (index < counts)[:, tf.newaxis]
        return index + 1, tf.maximum(best, tf.where(real, iou, 0.0))

    _, best = tf.while_loop(
        lambda index, best: index < most, with_next, (tf.constant(0), tf.zeros_like(area))
    )
    return tf.stop_gradient(best)


def _corners(boxes):
    """Lower and upper corner, [..., 2], and area, [...], of boxes given by centre and size."""
    half = boxes[..., 2:4] / 2.0
    return boxes[..., :2] - half, boxes[..., :2] + half, boxes[..., 2] * boxes[..., 3]
