"""A quantity that is counted, with the gradient of another that stands in for it."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from losses.errors import TermwiseError
from losses.objective import Ratio


def stand_in(quantity: Ratio, proxy: Ratio, name: str) -> Ratio:
    """The value of a quantity, with the gradient of its proxy.

    Its sums are the proxy's and, as further numerators, both sums of the quantity: so the ratio
    counts, among accumulated steps too, by what the proxy is divided by.
    """
    if (quantity.denominator is None) != (proxy.denominator is None):
        raise TermwiseError(
            f"Constraint {name!r}: of fn and proxy one is a sum over the batch, the other a mean. "
            "Give both a denominator, or neither."
        )
    counted = tf.stop_gradient(quantity.numerator)
    divisor = tf.ones_like(counted) if quantity.denominator is None else quantity.denominator
    divisor = tf.broadcast_to(tf.stop_gradient(divisor), counted.shape)
    parts = [tf.reshape(proxy.numerator, [-1]), tf.reshape(counted, [-1])]
    sizes = [part.shape[0] for part in parts]
    parts.append(tf.reshape(divisor, [-1]))
    numerator = tf.concat([tf.cast(part, tf.float32) for part in parts], 0)

    def after(divided):
        slope, value, by = tf.split(divided, [sizes[0], sizes[1], sizes[1]])
        slope = after_of(proxy, tf.reshape(slope, proxy.numerator.shape))
        if quantity.denominator is not None:
            value = tf.math.divide_no_nan(value, by)
        value = after_of(quantity, tf.reshape(value, counted.shape))
        return tf.stop_gradient(value) + slope - tf.stop_gradient(slope)

    present = [ratio.present for ratio in (quantity, proxy) if ratio.present is not True]
    there: Any = True
    if present:
        there = tf.reduce_min(tf.stack([tf.cast(count, tf.float32) for count in present]))
    return Ratio(numerator, _divisors(proxy, sizes), after, None, there, proxy.alike)


def _divisors(proxy: Ratio, sizes: list[int]):
    """float32 [sizes[0] + 2 * sizes[1]], what a proxy is divided by, and their mean; or None."""
    if proxy.denominator is None:
        return None
    of_proxy = tf.reshape(tf.broadcast_to(proxy.denominator, proxy.numerator.shape), [-1])
    of_proxy = tf.cast(of_proxy, tf.float32)
    return tf.concat([of_proxy, tf.repeat(tf.reduce_mean(of_proxy), 2 * sizes[1])], 0)


def after_of(ratio: Ratio, divided) -> tf.Tensor:
    """float32 [], what a Ratio makes of its divided sums."""
    value = divided if ratio.after is None else ratio.after(divided)
    return tf.cast(value, tf.float32)
