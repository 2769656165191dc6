"""Triplet and N-pairs losses: an anchor nearer to its positive than to its negatives."""

from __future__ import annotations

import keras
import tensorflow as tf

from losses.catalog.bases import AmongAll, BatchLoss, weight_of_examples, widen
from losses.catalog.embeddings import (
    ABSENT,
    Neighbours,
    as_embeddings,
    as_labels,
    check_distance,
    length,
    normalize,
    pairwise_distances,
)
from losses.checks import number
from losses.distributed import sees_whole_batch
from losses.errors import TermwiseError
from losses.objective import Ratio, register_loss


@register_loss
class Triplet(BatchLoss):
    """Triplet loss with negatives mined from the global batch.

        value = mean of max(d_ap - d_an + margin, 0), or of log(1 + exp(d_ap - d_an)) if soft

        semihard: over all pairs of an anchor a and another example p of its class; d_an is the
                  smallest distance of a from another class that is above d_ap, or if there is
                  none the largest.
        hard:     over all anchors; d_ap is the largest distance within the class, d_an the
                  smallest to another class.

    The reductions are TensorFlow Addons'. So are the edges: with "hard", an anchor alone in its
    class is its own positive (d_ap = 0); without any other class d_an is the largest distance in
    the batch for "hard", 0 for "semihard". A batch without any pair of one class has the value 0
    with "semihard" (NaN in Addons).

    The examples of all replicas are compared, with gradient. An example of sample weight 0 is
    absent: neither anchor nor compared with. Other weights multiply an anchor's part; the mean
    divides by the number of pairs (anchors) present, with reduction "mean_with_sample_weight" by
    their anchors' weights. On several replicas it needs `jit_compile=False`; gradient accumulation
    is refused.

    Args:
      margin: float >= 0; not used if `soft`.
      mining: "semihard" or "hard".
      soft: bool.
      distance: "L2", "squared-L2" or "angular" (1 - cosine).
      name, reduction, dtype: as in `keras.losses.Loss`.
    Call args:
      y_true: [examples] or [examples, 1], class numbers. They are compared in the loss's dtype:
        in float32 exact up to 2^24.
      y_pred: floating [examples, features], embeddings; normalize them in the model if need be.
    Returns:
      float32 [].
    Raises:
      ValueError: an argument outside its range; shapes other than these.
    Source: Schroff et al. 2015 (semihard); Hermans et al. 2017 (hard, soft).

    Example:
      >>> loss = Triplet(margin=1.0, mining="hard")
      >>> round(float(loss([0, 0, 1], [[0.0], [2.0], [3.0]])), 4)     # (0, 2 - 1 + 1, 0) / 3
      0.6667
    """

    def __init__(
        self,
        margin=1.0,
        mining="semihard",
        soft=False,
        distance="L2",
        name="triplet",
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.margin = number("margin", margin, least=0, owner=self, accepted="a number >= 0")
        if mining not in ("semihard", "hard"):
            raise TermwiseError(
                f"Triplet(mining={mining!r}): accepted are 'semihard' and 'hard'. Triplets that "
                "the data names are for losses.TripletMargin."
            )
        self.mining = mining
        self.soft = bool(soft)
        self.distance = check_distance("Triplet", distance)

    def call(self, y_true, y_pred):
        return self.ratio(y_true, y_pred).value()

    def ratio(self, y_true, y_pred, sample_weight=None):
        weight = weight_of_examples(y_pred, sample_weight, self.name)
        labels, embeddings = as_labels(y_true, self.name), as_embeddings(y_pred, self.name)
        near = Neighbours.of((labels, embeddings), weight)
        anchor_labels, anchors = near.anchors
        key_labels, keys = near.keys
        distances = pairwise_distances(anchors, keys, self.distance)
        distances = tf.where(near.itself, tf.zeros_like(distances), distances)
        alike = tf.equal(anchor_labels[:, tf.newaxis], key_labels[tf.newaxis, :])
        positives = alike & near.present & ~near.itself
        negatives = ~alike & near.present
        if self.mining == "hard":
            values, counts = self._hard(distances, positives, negatives, near.present)
        else:
            values, counts = self._semihard(distances, positives, negatives)
        values, counts = tf.cast(values, embeddings.dtype), tf.cast(counts, embeddings.dtype)
        if weight is not None:
            values = values * weight
            weighted = self.reduction == "mean_with_sample_weight"
            counts = counts * (weight if weighted else tf.cast(weight != 0, counts.dtype))
        denominator = None if self.reduction == "sum" else tf.reduce_sum(counts)
        of_anchors = {"values": values, "counts": counts, "weights": weight}
        return Ratio(tf.reduce_sum(values), denominator, **of_anchors)

    def _hard(self, distances, positives, negatives, present):
        """The value of each anchor, [anchors], and how often it counts: once."""
        farthest = tf.reduce_max(tf.where(positives, distances, 0.0), axis=1)
        any_negative = tf.reduce_any(negatives, axis=1)
        nearest = tf.reduce_min(tf.where(negatives, distances, distances.dtype.max), axis=1)
        largest = tf.reduce_max(tf.where(present, distances, 0.0), axis=1)
        values = self._hinge(farthest, tf.where(any_negative, nearest, largest))
        return values, tf.ones_like(values)

    def _semihard(self, distances, positives, negatives):
        """The sum over the pairs of each anchor, [anchors], and their number."""
        farthest = distances.dtype.max
        order = tf.argsort(tf.where(negatives, distances, farthest), axis=1)
        rising = tf.gather(tf.where(negatives, distances, farthest), order, batch_dims=1)
        number = tf.reduce_sum(tf.cast(negatives, tf.int32), axis=1, keepdims=True)
        # the first negative beyond each d_ap; the last one of all where none is
        chosen = tf.raw_ops.UpperBound(sorted_inputs=rising, values=distances)
        chosen = tf.maximum(tf.minimum(chosen, number - 1), 0)
        keys = tf.gather(order, chosen, batch_dims=1)
        negative = tf.where(number > 0, tf.gather(distances, keys, batch_dims=1), 0.0)
        values = tf.where(positives, self._hinge(distances, negative), 0.0)
        return tf.reduce_sum(values, axis=1), tf.reduce_sum(tf.cast(positives, tf.int32), axis=1)

    def _hinge(self, positive, negative):
        if self.soft:
            return tf.math.softplus(positive - negative)
        return tf.maximum(positive - negative + self.margin, 0.0)

    def get_config(self):
        return {
            **super().get_config(),
            "margin": self.margin,
            "mining": self.mining,
            "soft": self.soft,
            "distance": self.distance,
        }


@register_loss
class TripletMargin(keras.losses.Loss):
    """Triplet loss of triplets that the data names: anchor, positive, negative.

        value = max(d(a, p) - d(a, n) + margin, 0), or log(1 + exp(d(a, p) - d(a, n))) if soft

    Args:
      margin, soft, distance: as in `Triplet`.
      name, reduction, dtype: as in `keras.losses.Loss`.
    Call args:
      y_true: not read; the data need no label.
      y_pred: floating [triplets, 3, features], the embeddings of anchor, positive and negative
        in this order: `keras.ops.stack([anchor, positive, negative], axis=1)`.
    Returns:
      float32 [triplets].
    Raises:
      ValueError: an argument outside its range; predictions of another shape.
    Source: Schroff et al. 2015, eq. 1, there with the squared distance.

    Example:
      >>> loss = TripletMargin(margin=1.0)
      >>> float(loss(None, [[[0.0], [2.0], [-2.5]]]))                 # 2 - 2.5 + 1
      0.5
    """

    def __init__(
        self,
        margin=1.0,
        soft=False,
        distance="L2",
        name=None,
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.margin = number("margin", margin, least=0, owner=self, accepted="a number >= 0")
        self.soft = bool(soft)
        self.distance = check_distance("TripletMargin", distance)

    def __call__(self, y_true, y_pred, sample_weight=None):
        # Keras would convert the label, which may be missing
        return super().__call__(0.0, y_pred, sample_weight)

    def call(self, y_true, y_pred):
        y_pred = widen(y_pred)
        if y_pred.shape.rank not in (3, None) or y_pred.shape[1] not in (3, None):
            raise TermwiseError(
                f"{self.name} takes embeddings [triplets, 3, features], received the shape "
                f"{tuple(y_pred.shape)}. Stack anchor, positive and negative on axis 1."
            )
        anchor, positive, negative = tf.unstack(y_pred, num=3, axis=1)
        difference = self._distance(anchor, positive) - self._distance(anchor, negative)
        if self.soft:
            return tf.math.softplus(difference)
        return tf.maximum(difference + self.margin, 0.0)

    def _distance(self, a, b):
        if self.distance == "angular":
            return 1.0 - tf.reduce_sum(normalize(a) * normalize(b), axis=-1)
        square = tf.reduce_sum(tf.square(a - b), axis=-1)
        return square if self.distance == "squared-L2" else length(square)

    def get_config(self):
        return {
            **super().get_config(),
            "dtype": self.dtype,
            "margin": self.margin,
            "soft": self.soft,
            "distance": self.distance,
        }


@register_loss
class NPairs(AmongAll):
    """N-pairs loss of a matrix of similarities.

        value = -sum over j of t_ij log softmax(s_i)_j + l2 mean over j of s_ij^2
        t_ij = 1 / (number of examples of i's class) where j is of that class, else 0

    The matrix is what the model makes of its own batch, so on several replicas an anchor is
    compared with the examples of its replica. A column whose example has sample weight 0 is
    absent; other weights multiply the row's value. Gradient accumulation is refused.

    Args:
      l2: float >= 0, a penalty on the similarities. (The paper's is on the embeddings, which the
        matrix does not hold: regularize those in the model.)
      name, reduction, dtype: as in `keras.losses.Loss`.
    Call args:
      y_true: [examples] or [examples, 1], class numbers; compared in the loss's dtype.
      y_pred: floating [examples, examples], the similarity of anchor i and positive j, most often
        the product of their embeddings.
    Returns:
      float32 [examples].
    Raises:
      ValueError: a negative `l2`; a matrix that is not square.
    Source: Sohn 2016, eq. 5; as in TensorFlow Addons for l2 = 0.

    Example:
      >>> loss = NPairs()
      >>> round(float(loss([0, 1], [[1.0, 0.0], [0.0, 1.0]])), 4)     # log(e + 1) - 1
      0.3133
    """

    def __init__(self, l2=0.0, name=None, reduction="sum_over_batch_size", dtype=None):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.l2 = number("l2", l2, least=0, owner=self, accepted="a number >= 0")

    def _values(self, y_true, y_pred, weight):
        sees_whole_batch()
        labels, similarities = as_labels(y_true, self.name), widen(y_pred)
        shape = similarities.shape
        rows = shape[0] or labels.shape[0]
        if shape.rank not in (2, None) or (rows and shape[1] not in (rows, None)):
            raise TermwiseError(
                f"{self.name} takes similarities [examples, examples], received the shape "
                f"{tuple(shape)}. Give tf.matmul(anchors, positives, transpose_b=True)."
            )
        alike = tf.equal(labels[:, tf.newaxis], labels[tf.newaxis, :])
        present = tf.ones_like(alike)
        if weight is not None:  # what is absent may hold anything, NaN included
            present &= (weight != 0)[tf.newaxis, :]
            counted = present & (weight != 0)[:, tf.newaxis]
            similarities = tf.where(counted, similarities, 0.0)
        logits = tf.where(present, similarities, ABSENT)
        targets = tf.cast(alike & present, logits.dtype)
        targets = tf.math.divide_no_nan(targets, tf.reduce_sum(targets, axis=1, keepdims=True))
        value = -tf.reduce_sum(targets * tf.nn.log_softmax(logits, axis=1), axis=1)
        if self.l2:
            counts = tf.cast(present, logits.dtype)
            square = tf.reduce_sum(tf.square(similarities) * counts, axis=1)
            value += self.l2 * tf.math.divide_no_nan(square, tf.reduce_sum(counts, axis=1))
        return value

    def get_config(self):
        return {**super().get_config(), "l2": self.l2}
