"""The norm of all gradients together."""

from __future__ import annotations

import tensorflow as tf

LANES = 16  # parts of a long sum that are added up side by side


def global_norm(gradients: list, xla: bool) -> tf.Tensor:
    """float32 [], the norm of gradients, dense or sparse.

    Args:
      xla: whether XLA compiles it; on a CPU it does not vectorize a long sum.
    """
    if not xla or any(isinstance(g, tf.IndexedSlices) for g in gradients):
        return tf.linalg.global_norm([_in_float32(g) for g in gradients])
    return tf.sqrt(tf.add_n([_square_sum(tf.reshape(_in_float32(g), [-1])) for g in gradients]))


def _in_float32(gradient):
    if isinstance(gradient, tf.IndexedSlices):
        gradient = gradient.values  # the norm that TensorFlow takes of a sparse one
    return tf.cast(gradient, tf.float32)


def _square_sum(values):
    """float32 [], the sum of squares of values [n], in `LANES` parts; one where n is unknown."""
    size = (values.shape.num_elements() or 0) // LANES
    squares = tf.square(values)
    if not size:
        return tf.reduce_sum(squares)
    folded = tf.add_n([squares[lane * size : (lane + 1) * size] for lane in range(LANES)])
    return tf.reduce_sum(folded) + tf.reduce_sum(squares[LANES * size :])
