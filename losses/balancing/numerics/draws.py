"""Draws of the Gramian and Jacobian balancers: functions of (seed, step), with XLA or without."""

from __future__ import annotations

import tensorflow as tf


def draw_uniform(shape, seed: int, step) -> tf.Tensor:
    """Uniform multiples of 2^-24 in [0, 1), exact in float32.

    Args:
      shape: of the result.
      seed: int, of the balancer.
      step: int [], the global step.
    Returns:
      float32, in `shape`; the same on every replica.
    """
    return tf.cast(_draw_bits(shape, seed, step) // 2**8, tf.float32) * 2.0**-24


def draw_orders(terms: int, seed: int, step) -> tf.Tensor:
    """int32 [terms, terms]: each row is a random order of the terms, independent of the others."""
    # Sorting is the shuffle that XLA compiles.
    return tf.argsort(_draw_bits([terms, terms], seed, step), axis=1, stable=True)


def _draw_bits(shape, seed: int, step):
    """int64 in [0, 2^32). Random floats differ between XLA and not; random integers do not."""
    key = tf.stack([tf.constant(seed, tf.int64), tf.cast(step, tf.int64)])
    bits = tf.random.stateless_uniform(
        shape, key, minval=None, maxval=None, dtype=tf.uint32, alg="philox"
    )
    return tf.cast(bits, tf.int64)
