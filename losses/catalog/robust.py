"""Barron's general robust loss, of given shape or as a likelihood that learns its shape."""

from __future__ import annotations

import math

import keras
import numpy as np
import tensorflow as tf

from losses.catalog.bases import align
from losses.checks import number, whole, without_fraction
from losses.errors import TermwiseError
from losses.naming import own_name
from losses.objective import Parameter, register_loss


@register_loss
class GeneralRobust(keras.losses.Loss):
    """One family from least squares to losses that ignore outliers.

        value = mean over the last axis of rho(e, alpha, scale),   e = y_true - y_pred
        rho = |alpha - 2| / alpha ((s / |alpha - 2| + 1)^(alpha / 2) - 1),   s = (e / scale)^2

    and its limits: alpha = 2: s / 2 (least squares); 1: pseudo-Huber; 0: log(s / 2 + 1) (Cauchy);
    -2: Geman-McClure; -inf: 1 - exp(-s / 2) (Welsch); +inf: exp(s / 2) - 1.

    Args:
      alpha: float, -inf and +inf included; the smaller, the less an outlier counts.
      scale: float > 0, the residual at which rho turns from quadratic.
      name, reduction, dtype: as in `keras.losses.Loss`.
    Call args:
      y_true: floating [examples, ..., outputs].
      y_pred: floating, the same shape.
    Returns:
      float32 [examples, ...]; above alpha = 2 the exponent is held below 80, so as to stay finite.
    Raises:
      ValueError: `alpha` is NaN, or `scale` is not positive.
    Source: Barron 2019, eq. 8 and 13.

    Example:
      >>> loss = GeneralRobust(alpha=1.0, scale=1.0)
      >>> round(float(loss([[0.0]], [[1.0]])), 4)                 # sqrt(2) - 1
      0.4142
    """

    def __init__(self, alpha, scale, name=None, reduction="sum_over_batch_size", dtype=None):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        if math.isnan(float(alpha)):
            raise TermwiseError(
                f"GeneralRobust(alpha={alpha!r}): give a number, float('inf') or float('-inf')."
            )
        self.alpha = float(alpha)
        self.scale = number("scale", scale, above=0, owner=self, accepted="a number > 0")

    def call(self, y_true, y_pred):
        y_true, y_pred = align(y_true, y_pred, self.name)
        squared = tf.square((y_true - y_pred) / self.scale)
        value = 0.5 * squared if self.alpha == 2 else rho(squared, self.alpha)
        return tf.reduce_mean(value, axis=-1)

    def get_config(self):
        # JSON has no infinity; float() reads the text
        alpha = self.alpha if math.isfinite(self.alpha) else str(self.alpha)
        return {**super().get_config(), "dtype": self.dtype, "alpha": alpha, "scale": self.scale}


@register_loss
class AdaptiveRobust(keras.losses.Loss):
    """The general robust loss as a likelihood: shape and scale are learned for each channel.

        value = mean over channels of rho(e, alpha, c) + log c + log Z(alpha)
        alpha = lo + (hi - lo) sigmoid(alpha_logit)
        c     = scale_lo + (scale_init - scale_lo) exp(log_scale)

    The parameters `alpha_logit` and `log_scale` are [num_channels]; log Z keeps alpha from
    sinking to where every residual is an outlier.

    Args:
      num_channels: int, the last axis of the labels.
      alpha_range: (lo, hi) within [0, 4]; equal: alpha is fixed.
      alpha_init: float between lo and hi; their middle by default.
      scale_lo: float > 0, the least scale.
      scale_init: float >= scale_lo; equal: the scale is fixed.
      name, reduction, dtype: as in `keras.losses.Loss`.
    Call args:
      y_true: floating [examples, ..., num_channels].
      y_pred: floating, the same shape.
    Returns:
      float32 [examples, ...]; may be negative.
    Raises:
      ValueError: an argument outside its range, or another number of channels.
    Source: Barron 2019, section 2 and appendix; there the scale is a softplus.

    Example:
      >>> loss = AdaptiveRobust(num_channels=1, alpha_range=(2.0, 2.0))     # a normal density
      >>> round(float(loss([[0.0]], [[0.0]])), 4)                 # log(2 pi) / 2
      0.9189
    """

    def __init__(
        self,
        num_channels,
        alpha_range=(0.001, 1.999),
        alpha_init=None,
        scale_lo=1e-5,
        scale_init=1.0,
        name=None,
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        if not (0 < scale_lo <= scale_init and math.isfinite(scale_init)):
            raise TermwiseError(
                f"AdaptiveRobust(scale_lo={scale_lo!r}, scale_init={scale_init!r}): give "
                "0 < scale_lo <= scale_init."
            )
        self.num_channels = whole(
            "num_channels", without_fraction(num_channels), owner=self, accepted="an int > 0"
        )
        self.alpha_range, start = _checked_shapes(alpha_range, alpha_init)
        self.alpha_init = alpha_init
        self.scale_lo = float(scale_lo)
        self.scale_init = float(scale_init)
        with keras.name_scope(own_name(self)):
            self._make_parameters(start)

    def _make_parameters(self, start: float) -> None:
        """The parameters of what is learned, with the shape at `start` in every channel."""
        ones = np.ones(self.num_channels)
        dtype = "float64" if self.dtype == "float64" else "float32"
        low, high = self.alpha_range
        if low < high:
            logit = math.log(start - low) - math.log(high - start)
            self.alpha_logit = Parameter("alpha_logit", logit * ones, dtype=dtype)
        if self.scale_lo < self.scale_init:
            self.log_scale = Parameter("log_scale", 0 * ones, dtype=dtype)

    @property
    def alpha(self) -> tf.Tensor:
        """Floating [num_channels], the shape as it is now."""
        low, high = self.alpha_range
        if low == high:
            return self._fixed(low)
        return low + (high - low) * tf.sigmoid(tf.convert_to_tensor(self.alpha_logit))

    @property
    def scale(self) -> tf.Tensor:
        """Floating [num_channels], the scale as it is now."""
        if self.scale_lo == self.scale_init:
            return self._fixed(self.scale_lo)
        factor = tf.exp(tf.convert_to_tensor(self.log_scale))
        return self.scale_lo + (self.scale_init - self.scale_lo) * factor

    def _fixed(self, value):
        dtype = "float64" if self.dtype == "float64" else "float32"
        return tf.fill([self.num_channels], tf.constant(value, dtype))

    def call(self, y_true, y_pred):
        y_true, y_pred = align(y_true, y_pred, self.name)
        if y_pred.shape[-1] not in (None, self.num_channels):
            raise TermwiseError(
                f"AdaptiveRobust(num_channels={self.num_channels}) beside predictions of shape "
                f"{tuple(y_pred.shape)}. Give num_channels={y_pred.shape[-1]}."
            )
        alpha, scale = tf.cast(self.alpha, y_pred.dtype), tf.cast(self.scale, y_pred.dtype)
        constant = tf.reduce_mean(tf.math.log(scale) + log_partition(alpha))
        value = rho(tf.square((y_true - y_pred) / scale), alpha)
        return constant + tf.reduce_mean(value, axis=-1)

    def get_config(self):
        return {
            **super().get_config(),
            "dtype": self.dtype,
            "num_channels": self.num_channels,
            "alpha_range": list(self.alpha_range),
            "alpha_init": self.alpha_init,
            "scale_lo": self.scale_lo,
            "scale_init": self.scale_init,
        }


def _checked_shapes(alpha_range, alpha_init) -> tuple[tuple[float, float], float]:
    """The least and largest shape, and the one to start from."""
    low, high = map(float, alpha_range)
    if not 0 <= low <= high <= 4:
        raise TermwiseError(
            f"AdaptiveRobust(alpha_range={alpha_range!r}): give (lo, hi) with "
            "0 <= lo <= hi <= 4; below 0 the density has no finite integral."
        )
    start = (low + high) / 2 if alpha_init is None else float(alpha_init)
    if not (low < start < high or low == start == high):
        raise TermwiseError(
            f"AdaptiveRobust(alpha_init={alpha_init!r}): give a number between the ends of "
            f"alpha_range={alpha_range!r}."
        )
    return (low, high), start


def rho(squared, alpha) -> tf.Tensor:
    """Barron's rho of s = (e / scale)^2, for every alpha and smooth in it.

        b = |alpha - 2|,  l = log(1 + s / b) / 2:   rho = b (e^(alpha l) - 1) / alpha

    Args:
      squared: floating, s >= 0.
      alpha: a float, or floating of a shape that broadcasts; -inf and +inf included.
    Returns:
      floating, the shape of both together.
    """
    alpha = tf.convert_to_tensor(alpha, squared.dtype)
    finite = tf.abs(alpha) < 1e12  # beyond, s / b would leave float32; the limits are as near
    shape = tf.where(finite, alpha, 1.0)
    b = _distance_from_two(shape)
    value = _power(b, shape, 0.5 * tf.math.log1p(squared / b))
    welsch = -tf.math.expm1(-0.5 * squared)
    steep = tf.math.expm1(tf.minimum(0.5 * squared, 80.0))
    return tf.where(finite, value, tf.where(alpha < 0, welsch, steep))


# Trapezoidal rule in y, with e = scale sqrt(b) sinh(y): l_k = log cosh(y_k), weights 2 h cosh(y_k).
_STEP = 0.125
_LOG_COSH = np.logaddexp(_STEP * np.arange(161), -_STEP * np.arange(161)) - math.log(2.0)
_LOG_WEIGHT = _LOG_COSH + math.log(2 * _STEP) - math.log(2.0) * (np.arange(161) == 0)


def log_partition(alpha) -> tf.Tensor:
    """log Z(alpha), Z the integral of exp(-rho(e, alpha, 1)) over e, with its exact gradient.

        Z = 2 sqrt(b) integral over y > 0 of cosh(y) exp(-b (e^(alpha l) - 1) / alpha),
        l = log cosh(y),  b = |alpha - 2|

    The integrand is analytic around the real axis and falls at least as e^-y, so that 161 equally
    spaced points give it to 3e-9 at every alpha; no table, and the gradient is that of the sum.

    Args:
      alpha: floating [...], from 0 to 4.
    Returns:
      The same dtype and shape.

    Example:
      >>> round(float(log_partition(tf.constant(0.0))), 4)        # log(pi sqrt(2))
      1.4913
    """
    # float64: near alpha = 2 the two terms of the result are large and of opposite sign
    wide = tf.cast(alpha, tf.float64)
    b = _distance_from_two(wide)
    exponent = _power(b[..., tf.newaxis], wide[..., tf.newaxis], tf.constant(_LOG_COSH))
    log_sum = tf.reduce_logsumexp(tf.constant(_LOG_WEIGHT) - exponent, axis=-1)
    return tf.cast(0.5 * tf.math.log(b) + log_sum, alpha.dtype)


def _distance_from_two(alpha):
    """|alpha - 2|, kept off 0, where the slope in alpha grows as its logarithm."""
    return tf.maximum(tf.abs(alpha - 2.0), 1e-8 if alpha.dtype == tf.float32 else 1e-12)


def _power(b, alpha, log):
    """b (e^(alpha log) - 1) / alpha, and its gradients, near alpha = 0 too."""
    u = tf.minimum(alpha * log, 80.0)
    near = tf.abs(u) < 0.5
    small = tf.where(near, u, 0.0)
    series = tf.ones_like(u)  # of (e^u - 1) / u
    for k in range(14, 1, -1):
        series = 1.0 + small / k * series
    far = ~near
    whole = b / tf.where(far, alpha, 1.0) * tf.math.expm1(tf.where(far, u, 1.0))
    return tf.where(near, b * log * series, whole)
