"""Losses of boxes by how they overlap: IoU and its generalized, distance and complete forms."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from losses.catalog.bases import widen
from losses.errors import TermwiseError
from losses.objective import register_loss

MODES = ("iou", "giou", "diou", "ciou")


@register_loss
class IoU(keras.losses.Loss):
    """One minus the overlap of a box with its label.

        iou:   1 - I / U
        giou:  1 - I / U + (E - U) / E
        diou:  1 - I / U + d^2 / c^2
        ciou:  1 - I / U + d^2 / c^2 + alpha v
               v = 4 / pi^2 (arctan(w / h of the label) - arctan(w / h))^2
               alpha = v / (1 - I / U + v)

    I and U are the areas of intersection and union, E that of the smallest box around both and c
    its diagonal, d the distance of the centres, w and h a box's sides. `alpha` is a constant in
    the gradient, as in the paper.

    A box whose maximum is below its minimum has area 0. A quotient over 0 is 0: two boxes that
    are the same point have overlap 0 and loss 1, with gradient 0. Give padding a sample weight of
    0.

    Args:
      mode: "iou", "giou", "diou" or "ciou".
      name, reduction, dtype: as in `keras.losses.Loss`.
    Call args:
      y_true: floating [..., 4], boxes [ymin, xmin, ymax, xmax] in any unit.
      y_pred: floating [..., 4].
    Returns:
      float32 [...], one value per box: iou in [0, 1], giou and diou in [0, 2], ciou at least 0.
    Raises:
      ValueError: an unknown mode; a last axis that is not 4.
    Source: Rezatofighi et al. 2019 (GIoU); Zheng et al. 2020, eq. 7 and 10 to 12 (DIoU, CIoU).

    Example:
      >>> loss = IoU(mode="iou")
      >>> round(float(loss([[0.0, 0.0, 2.0, 2.0]], [[0.0, 1.0, 2.0, 3.0]])), 4)     # 1 - 2 / 6
      0.6667
    """

    def __init__(self, mode="iou", name="iou", reduction="sum_over_batch_size", dtype=None):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        if mode not in MODES:
            raise TermwiseError(f"IoU(mode={mode!r}): accepted are {', '.join(map(repr, MODES))}.")
        self.mode = mode

    def call(self, y_true, y_pred):
        y_true, y_pred = widen(y_true), widen(y_pred)
        for what, boxes in (("labels", y_true), ("predictions", y_pred)):
            if boxes.shape[-1] not in (4, None):
                raise TermwiseError(
                    f"{self.name} takes boxes [ymin, xmin, ymax, xmax] on a last axis of 4, "
                    f"received {what} of shape {tuple(boxes.shape)}."
                )
        low, high = y_pred[..., :2], y_pred[..., 2:]
        low_true, high_true = y_true[..., :2], y_true[..., 2:]
        sides, sides_true = tf.maximum(high - low, 0.0), tf.maximum(high_true - low_true, 0.0)
        common = tf.maximum(tf.minimum(high, high_true) - tf.maximum(low, low_true), 0.0)
        intersection = _area(common)
        union = _area(sides) + _area(sides_true) - intersection
        iou = tf.math.divide_no_nan(intersection, union)
        if self.mode == "iou":
            return 1.0 - iou
        around = tf.maximum(tf.maximum(high, high_true) - tf.minimum(low, low_true), 0.0)
        if self.mode == "giou":
            enclosing = _area(around)
            return 1.0 - iou + tf.math.divide_no_nan(enclosing - union, enclosing)
        apart = tf.reduce_sum(tf.square(low + high - low_true - high_true), axis=-1) / 4.0
        diagonal = tf.reduce_sum(tf.square(around), axis=-1)
        value = 1.0 - iou + tf.math.divide_no_nan(apart, diagonal)
        if self.mode == "diou":
            return value
        v = 4.0 / math.pi**2 * tf.square(_aspect_angle(sides_true) - _aspect_angle(sides))
        alpha = tf.stop_gradient(tf.math.divide_no_nan(v, 1.0 - iou + v))
        return value + alpha * v

    def get_config(self):
        return {**super().get_config(), "dtype": self.dtype, "mode": self.mode}


def _area(sides):
    return sides[..., 0] * sides[..., 1]


def _aspect_angle(sides):
    """arctan(width / height) [...], 0 with gradient 0 where both sides are nearly 0."""
    height, width = sides[..., 0], sides[..., 1]
    # below this the slope, 1 / side, is beyond any use
    some = height + width > 1e-6
    return tf.where(some, tf.atan2(tf.where(some, width, 0.0), tf.where(some, height, 1.0)), 0.0)
