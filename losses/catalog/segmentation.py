"""Losses of masks by how they overlap: Dice and Tversky, over the whole batch."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from losses.catalog.bases import BatchLoss, widen
from losses.checks import is_whole, number
from losses.errors import TermwiseError
from losses.objective import Ratio, mask_of, reduce_values, register_loss, with_trailing_axes


class _Overlap(BatchLoss):
    """What Dice and Tversky share: sums over `axis`, those over the examples taken last."""

    def __init__(self, *, axis, smoothing, exclude, name, reduction, dtype):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.smoothing = number("smoothing", smoothing, least=0, owner=self)
        channels = () if exclude is None else (exclude,) if is_whole(exclude) else tuple(exclude)
        if not all(is_whole(channel) and channel >= 0 for channel in channels):
            raise TermwiseError(
                f"{type(self).__name__}(exclude={exclude!r}): give the index of a class on the "
                "last axis, from 0, a list of them, or None."
            )
        self.exclude = list(channels) if channels else None
        self.axis = axis if axis is None or is_whole(axis) else tuple(axis)
        if self.axis == () or not all(map(is_whole, self._given_axes())):
            raise TermwiseError(
                f"{type(self).__name__}(axis={axis!r}): give an axis, a tuple of axes, or "
                "None (all of them)."
            )

    def call(self, y_true, y_pred):
        y_true, y_pred = self._widen(y_true, y_pred)
        axes = self._axes(y_pred)
        y_true, y_pred = self._included(y_true), self._included(y_pred)
        sums = [tf.reduce_sum(product, axes) for product in self._products(y_true, y_pred)]
        return self._loss(sums)

    def ratio(self, y_true, y_pred, sample_weight=None):
        mask = mask_of(y_pred)
        y_true, y_pred = self._widen(y_true, y_pred)
        axes = self._axes(y_pred)
        if 0 not in axes:
            return reduce_values(
                self.call(y_true, y_pred),
                reduction=self.reduction,
                sample_weight=sample_weight,
                mask=mask,
                term=self.name,
            )
        weights = []
        for weight in (sample_weight, mask):
            if weight is not None:
                weight = self._beside(tf.cast(weight, y_pred.dtype), y_pred)
                # masked elements may hold anything, NaN included
                y_true = tf.where(weight != 0, y_true, 0.0)
                y_pred = tf.where(weight != 0, y_pred, 0.0)
                weights.append(self._included(weight) if weight.shape[-1] != 1 else weight)
        y_true, y_pred = self._included(y_true), self._included(y_pred)
        products = [math.prod(weights, start=p) for p in self._products(y_true, y_pred)]
        sums = tf.stack([tf.reduce_sum(product, axes) for product in products])

        def after(sums):
            values = self._loss(tf.unstack(sums))
            return tf.reduce_sum(values) if self.reduction == "sum" else tf.reduce_mean(values)

        return Ratio(sums, after=after)

    def _widen(self, y_true, y_pred):
        y_true, y_pred = widen(y_true), widen(y_pred)
        y_true = tf.cast(y_true, y_pred.dtype)
        if not y_true.shape.is_compatible_with(y_pred.shape):
            raise TermwiseError(
                f"{self.name} compares labels of shape {tuple(y_true.shape)} with predictions of "
                f"shape {tuple(y_pred.shape)}. Give both one shape; class numbers as tf.one_hot."
            )
        return y_true, y_pred

    def _included(self, values):
        """Values [..., classes] without the classes that are left out."""
        if self.exclude is None:
            return values
        classes = values.shape[-1]
        if values.shape.rank < 2 or classes is None or max(self.exclude) >= classes:
            raise TermwiseError(
                f"{self.name} leaves out the classes {self.exclude}, but the predictions have the "
                f"shape {tuple(values.shape)}. Give indices of classes on their last axis."
            )
        included = [index for index in range(classes) if index not in self.exclude]
        if not included:
            raise TermwiseError(f"{self.name} leaves out all {classes} classes. Leave some in.")
        return tf.gather(values, included, axis=-1)

    def _given_axes(self):
        if self.axis is None:
            return ()
        return (self.axis,) if is_whole(self.axis) else self.axis

    def _axes(self, y_pred):
        rank = y_pred.shape.rank
        if self.axis is None:
            return list(range(rank))
        if any(not -rank <= a < rank for a in self._given_axes()):
            raise TermwiseError(
                f"{self.name} sums over axis={self.axis}, but the predictions have the shape "
                f"{tuple(y_pred.shape)}. Give axes from 0 to {rank - 1}."
            )
        return sorted({a % rank for a in self._given_axes()})

    def _beside(self, weight, y_pred):
        """`weight` with axes of 1 at its end, so that it multiplies the elements."""
        aligned = with_trailing_axes(weight, y_pred)
        if aligned is None:
            raise TermwiseError(
                f"{self.name} has sample weights or a mask of shape {tuple(weight.shape)} beside "
                f"predictions of shape {tuple(y_pred.shape)}. Give one for each example, or one "
                "for each element."
            )
        return aligned

    def get_config(self):
        left_out = {"smoothing": self.smoothing, "exclude": self.exclude}
        return {**super().get_config(), "axis": self.axis, **left_out}


@register_loss
class Dice(_Overlap):
    """One minus the Dice coefficient.

        value = 1 - (2 sum(y p) + smoothing) / (sum(y) + sum(p) + smoothing + epsilon)

    The sums run over `axis`. With `axis=None`, or one that holds 0, they run over the global
    batch, and a sample weight (or mask) multiplies an example's part of each sum: weight 2 is the
    example twice. (Keras multiplies the finished value by the mean weight.) With `axis=(1, 2, 3)`
    there is one value per example. Where labels and predictions are all 0 the value is 1, as in
    Keras; with `smoothing` it is 0, and near there the slope is gentle. One value for each class,
    averaged, is of `axis=(0, 1, 2)`; `exclude=0` then leaves the background out.

    Args:
      axis: int or tuple of int, the axes to sum over; None: all. What is left is averaged.
      smoothing: float >= 0, in the unit of the sums (pixels).
      exclude: None, or the index of a class on the last axis, or several, that do not count.
      name, reduction, dtype: as in `keras.losses.Dice`.
    Call args:
      y_true: floating [examples, ...].
      y_pred: floating, the same shape; probabilities.
    Returns:
      float32, the shape without `axis`; [] for None.
    Raises:
      ValueError: an axis or a class that is not there; labels and predictions of different shapes.
    Source: Milletari et al. 2016; without smoothing the value is `keras.losses.Dice`'s. Smoothing
      and the background: as in Isensee et al. 2021 (nnU-Net), and in MONAI.

    Example:
      >>> loss = Dice()
      >>> round(float(loss([[1.0], [0.0]], [[0.5], [0.5]])), 4)     # 1 - 2 * 0.5 / (1 + 1)
      0.5
    """

    def __init__(
        self,
        reduction="sum_over_batch_size",
        name="dice",
        axis=None,
        dtype=None,
        *,
        smoothing=0.0,
        exclude=None,
    ):
        overlap = dict(axis=axis, smoothing=smoothing, exclude=exclude)
        super().__init__(**overlap, name=name, reduction=reduction, dtype=dtype)

    @staticmethod
    def _products(y_true, y_pred):
        return [y_true * y_pred, y_true, y_pred]

    def _loss(self, sums):
        both, labels, predictions = sums
        whole = labels + predictions + self.smoothing + keras.config.epsilon()
        return 1.0 - (2.0 * both + self.smoothing) / whole


@register_loss
class Tversky(_Overlap):
    """One minus the Tversky index.

        value = 1 - T / (T + alpha sum(y (1 - p)) + beta sum((1 - y) p) + epsilon)
        T = sum(y p) + smoothing

    As in Keras, `alpha` weighs what is missed (false negatives) and `beta` what is wrongly found
    (Keras's documentation has them the other way round, its computation does not). With ½ and ½
    it is `Dice`. Sums, weights and empty masks as there.

    Args:
      alpha, beta: float >= 0.
      axis: int or tuple of int, the axes to sum over; None: all.
      smoothing, exclude: as in `Dice`; here ½ is Dice's 1.
      name, reduction, dtype: as in `keras.losses.Tversky`.
    Call args:
      y_true: floating [examples, ...].
      y_pred: floating, the same shape; probabilities.
    Returns:
      float32, the shape without `axis`; [] for None.
    Raises:
      ValueError: a negative `alpha` or `beta`; as in `Dice`.
    Source: Salehi et al. 2017, eq. 3; without smoothing the value is `keras.losses.Tversky`'s.

    Example:
      >>> loss = Tversky(alpha=0.7, beta=0.3)
      >>> round(float(loss([[1.0], [0.0]], [[0.5], [0.5]])), 4)    # 1 - 0.5 / (0.5 + 0.35 + 0.15)
      0.5
    """

    def __init__(
        self,
        alpha=0.5,
        beta=0.5,
        reduction="sum_over_batch_size",
        name="tversky",
        axis=None,
        dtype=None,
        *,
        smoothing=0.0,
        exclude=None,
    ):
        overlap = dict(axis=axis, smoothing=smoothing, exclude=exclude)
        super().__init__(**overlap, name=name, reduction=reduction, dtype=dtype)
        self.alpha = number("alpha", alpha, least=0, owner=self, accepted="a number >= 0")
        self.beta = number("beta", beta, least=0, owner=self, accepted="a number >= 0")

    @staticmethod
    def _products(y_true, y_pred):
        return [y_true * y_pred, y_true * (1.0 - y_pred), (1.0 - y_true) * y_pred]

    def _loss(self, sums):
        both, missed, wrong = sums
        both += self.smoothing
        denominator = both + self.alpha * missed + self.beta * wrong + keras.config.epsilon()
        return 1.0 - both / denominator

    def get_config(self):
        return {**super().get_config(), "alpha": self.alpha, "beta": self.beta}
