"""Embeddings of this replica beside those of the global batch, and the distances between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from losses.catalog.bases import widen
from losses.distributed import gather_examples
from losses.errors import TermwiseError

ABSENT = -1e9  # the logit of a key that takes no part; its softmax is 0 in every dtype
DISTANCES = ("L2", "squared-L2", "angular")


@dataclass(frozen=True)
class Neighbours:
    """This replica's examples (anchors) and the examples of all replicas (keys).

    Attributes:
      anchors: a nest of [anchors, ...].
      keys: the same nest, [keys, ...].
      itself: bool [anchors, keys], where the key is the anchor.
      present: bool [1, keys]; False: a key of weight 0, which takes no part.
    """

    anchors: Any
    keys: Any
    itself: tf.Tensor
    present: tf.Tensor

    @classmethod
    def of(cls, values, weight=None) -> Neighbours:
        """The neighbours of a nest of tensors, [examples, ...] each.

        Args:
          values: a nest of tensors.
          weight: None, or floating [examples]; an example of weight 0 may hold anything, NaN
            included: its vectors become 0.
        """
        if weight is not None:
            values = tf.nest.map_structure(lambda value: _without_absent(value, weight), values)
        count = tf.shape(tf.nest.flatten(values)[0])[0]
        if weight is None:
            keys, offset = gather_examples(values)
            size = tf.shape(tf.nest.flatten(keys)[0])[0]
            present = tf.ones([1, size], tf.bool)
        else:
            (keys, key_weight), offset = gather_examples((values, weight))
            size = tf.shape(key_weight)[0]
            present = tf.not_equal(key_weight, 0)[tf.newaxis, :]
        itself = tf.equal(tf.range(count)[:, tf.newaxis] + offset, tf.range(size))
        return cls(values, keys, itself, present)


def _without_absent(value, weight):
    absent = tf.reshape(weight == 0, [-1] + [1] * (value.shape.rank - 1))
    return tf.where(absent, tf.zeros_like(value), value)


def as_labels(labels, loss) -> tf.Tensor:
    """One label per example, [examples], of `[examples]` or `[examples, 1]`."""
    labels = tf.convert_to_tensor(labels)
    shape = tuple(labels.shape)
    if labels.shape.rank == 2 and labels.shape[-1] == 1:
        labels = tf.squeeze(labels, -1)
    if labels.shape.rank not in (None, 1):
        raise TermwiseError(
            f"{loss} takes one class number per example, received labels of shape {shape}. Give "
            "them the shape (examples,); of one-hot labels, tf.argmax(labels, -1)."
        )
    return labels


def as_embeddings(embeddings, loss) -> tf.Tensor:
    """float32 or float64 [examples, features]; a ValueError for another rank."""
    embeddings = widen(embeddings)
    if embeddings.shape.rank not in (None, 2):
        raise TermwiseError(
            f"{loss} takes embeddings [examples, features], received the shape "
            f"{tuple(embeddings.shape)}. Pool or flatten the other axes."
        )
    return embeddings


def normalize(vectors) -> tf.Tensor:
    """Vectors of length 1 along the last axis; those of length 0 stay 0, with gradient 0."""
    square = tf.reduce_sum(tf.square(vectors), axis=-1, keepdims=True)
    smallest = 1e-24 if vectors.dtype == tf.float32 else 1e-100
    some = square > smallest
    return vectors * tf.where(some, tf.math.rsqrt(tf.where(some, square, 1.0)), 0.0)


def length(square) -> tf.Tensor:
    """The square root of a sum of squares, with gradient 0 at 0."""
    some = square > 0
    return tf.where(some, tf.sqrt(tf.where(some, square, 1.0)), 0.0)


def pairwise_distances(anchors, keys, distance) -> tf.Tensor:
    """Distances of each anchor from each key.

        L2: |a - k|      squared-L2: |a - k|^2      angular: 1 - a.k / (|a| |k|)

    Computed in float64: |a|^2 + |k|^2 - 2 a.k cancels where embeddings lie close.

    Args:
      anchors: floating [anchors, features].
      keys: floating [keys, features].
      distance: one of `DISTANCES`.
    Returns:
      float64 [anchors, keys], at least 0; the gradient is 0 at distance 0.
    """
    anchors, keys = tf.cast(anchors, tf.float64), tf.cast(keys, tf.float64)
    if distance == "angular":
        product = tf.matmul(normalize(anchors), normalize(keys), transpose_b=True)
        return tf.maximum(1.0 - product, 0.0)
    of_anchors = tf.reduce_sum(tf.square(anchors), axis=1)[:, tf.newaxis]
    of_keys = tf.reduce_sum(tf.square(keys), axis=1)[tf.newaxis, :]
    square = of_anchors + of_keys - 2.0 * tf.matmul(anchors, keys, transpose_b=True)
    # what is left of equal embeddings is the rounding of the three sums
    square = tf.where(square > 1e-14 * (of_anchors + of_keys), square, 0.0)
    return square if distance == "squared-L2" else length(square)


def check_distance(loss, distance):
    """`distance`, if it is one of `DISTANCES`."""
    if distance not in DISTANCES:
        accepted = ", ".join(map(repr, DISTANCES))
        raise TermwiseError(f"{loss}(distance={distance!r}): accepted are {accepted}.")
    return distance
