"""Balls of the l2, l-infinity and l1 norm, row by row: steepest step, projection, random point."""

from __future__ import annotations

import tensorflow as tf

from losses.errors import TermwiseError
from losses.example_random import normal, uniform

NORMS = ("l2", "infinity", "l1")


def check_norm(owner: str, norm) -> str:
    """`norm`, if it is one; else a ValueError that names `owner`."""
    if norm not in NORMS:
        raise TermwiseError(
            f"{owner}(norm={norm!r}): accepted are {', '.join(map(repr, NORMS[:-1]))} and "
            f"{NORMS[-1]!r}."
        )
    return norm


def steepest(gradient, norm: str) -> tf.Tensor:
    """The vector of norm 1 along which a gradient rises most; 0 where the gradient is 0.

        l2: g / ||g||_2        infinity: sign(g)
        l1: sign(g) at the largest |g|, shared evenly among equals, 0 elsewhere

    Args:
      gradient: floating [examples, features]; of any scale, finite.
    """
    if norm == "infinity":
        return tf.sign(gradient)
    size = tf.abs(gradient)
    largest = tf.reduce_max(size, axis=1, keepdims=True)
    if norm == "l1":
        chosen = tf.where(size == largest, tf.sign(gradient), 0.0)
        return tf.math.divide_no_nan(chosen, tf.reduce_sum(tf.abs(chosen), 1, keepdims=True))
    # scaled to 1 first: squares of small gradients vanish, those of large ones overflow
    gradient = tf.where(largest > 0, gradient / tf.where(largest > 0, largest, 1.0), 0.0)
    length = tf.sqrt(tf.reduce_sum(tf.square(gradient), axis=1, keepdims=True))
    return tf.math.divide_no_nan(gradient, length)


def project(vectors, norm: str, radius: float) -> tf.Tensor:
    """The nearest vectors (in the l2 sense) whose norm is at most `radius`.

    Args:
      vectors: float32 [examples, features].
    Source: for l1, Duchi et al. 2008, figure 1.
    """
    if norm == "infinity":
        return tf.clip_by_value(vectors, -radius, radius)
    size = tf.abs(vectors)
    if norm == "l2":
        largest = tf.reduce_max(size, axis=1, keepdims=True)
        scaled = tf.math.divide_no_nan(vectors, largest)
        length = largest * tf.sqrt(tf.reduce_sum(tf.square(scaled), axis=1, keepdims=True))
        return tf.where(length > radius, vectors * tf.math.divide_no_nan(radius, length), vectors)
    ordered = tf.sort(size, axis=1, direction="DESCENDING")
    count = tf.range(1.0, tf.cast(tf.shape(size)[1], size.dtype) + 1.0)
    excess = (tf.cumsum(ordered, axis=1) - radius) / count
    # the last place where the ordered sizes still exceed what all before it must give up
    exceeding = tf.reduce_sum(tf.cast(ordered > excess, tf.int32), axis=1, keepdims=True)
    give_up = tf.gather(excess, tf.maximum(exceeding - 1, 0), batch_dims=1)
    inside = tf.reduce_sum(size, axis=1, keepdims=True) <= radius
    return tf.where(inside, vectors, tf.sign(vectors) * tf.nn.relu(size - give_up))


def random_point(keys, size, norm: str, radius: float) -> tf.Tensor:
    """Uniform in the ball of `radius`: float32 [examples, size].

    Args:
      keys: int64 [examples], of `example_keys`.
      size: int or int [], the number of features.
    """
    draws = uniform(keys, size + 1)
    draws, depth = draws[:, 1:], draws[:, :1]
    if norm == "infinity":
        return radius * (2.0 * draws - 1.0)
    # of a ball in `size` dimensions the part below the radius r is r^size
    depth = depth ** (1.0 / tf.cast(size, tf.float32))
    if norm == "l2":
        return radius * depth * steepest(normal(keys ^ 1, size), "l2")
    # exponential draws over their sum are uniform on the simplex
    signed = 2.0 * draws - 1.0
    sizes = -tf.math.log(tf.maximum(tf.abs(signed), 2.0**-24))
    return radius * depth * tf.sign(signed) * sizes / tf.reduce_sum(sizes, 1, keepdims=True)
