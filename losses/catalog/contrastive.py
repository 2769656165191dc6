"""Contrastive losses: what belongs together drawn close, the rest of the global batch apart."""

from __future__ import annotations

import keras
import tensorflow as tf

from losses.catalog.bases import BatchLoss, align, weight_of_examples, widen
from losses.catalog.embeddings import Neighbours, as_embeddings, as_labels, normalize
from losses.checks import number
from losses.errors import TermwiseError
from losses.objective import mask_of, reduce_values, register_loss

ABSENT = -1e9  # the logit of a key that takes no part; its softmax is 0 in every dtype


class _AmongAll(BatchLoss):
    """Gives each example a value that depends on all examples but those of weight 0."""

    def call(self, y_true, y_pred):
        return self._values(y_true, y_pred, None)

    def ratio(self, y_true, y_pred, sample_weight=None):
        weight = weight_of_examples(y_pred, sample_weight, self.name)
        return reduce_values(
            self._values(y_true, y_pred, weight),
            reduction=self.reduction,
            sample_weight=sample_weight,
            mask=mask_of(y_pred),
            term=self.name,
        )

    def _values(self, y_true, y_pred, weight):
        raise NotImplementedError


@register_loss
class NTXent(_AmongAll):
    """Normalized-temperature cross-entropy of two views of each example (SimCLR).

        l(i, j) = -log( exp(s_ij / temperature) / sum over k != i of exp(s_ik / temperature) )
        value = (l(a_i, b_i) + l(b_i, a_i)) / 2 for the pair i;   s: cosine similarity

    k runs over both views of all examples of the global batch: those of the other replicas are
    gathered, with gradient. A pair of sample weight 0 is absent, from the others' sums too; other
    weights multiply the pair's own value. On several replicas it needs `jit_compile=False`. Under
    gradient accumulation each step compares its own pairs alone.

    Args:
      temperature: float > 0.
      name, reduction, dtype: as in `keras.losses.Loss`.
    Call args:
      y_true (z_a): floating [pairs, features], the first views.
      y_pred (z_b): floating [pairs, features], the second views. Or [pairs, 2, features]: both
        views as one output of the model, `y_true` is then not read.
    Returns:
      float32 [pairs].
    Raises:
      ValueError: a temperature that is not positive; views of different shapes.
    Source: Chen et al. 2020, eq. 1.

    Example:
      >>> loss = NTXent(temperature=1.0)
      >>> views = tf.constant([[1.0, 0.0], [0.0, 1.0]])
      >>> round(float(loss.call(views, views)[0]), 4)                 # log(e + 1 + 1) - 1
      0.5514
    """

    def __init__(self, temperature=0.1, name=None, reduction="sum_over_batch_size", dtype=None):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.temperature = number(
            "temperature", temperature, above=0, owner=self, accepted="a number above 0"
        )

    def __call__(self, y_true, y_pred, sample_weight=None):
        if y_true is None:  # both views in y_pred; Keras would convert the label
            y_true = 0.0
        return super().__call__(y_true, y_pred, sample_weight)

    def _values(self, y_true, y_pred, weight):
        a, b = self._views(y_true, widen(y_pred))
        near = Neighbours.of((a, b), weight)
        a, b, all_a, all_b = map(normalize, (*near.anchors, *near.keys))
        between = tf.matmul(a, all_b, transpose_b=True) / self.temperature
        back = tf.matmul(b, all_a, transpose_b=True) / self.temperature
        positive = tf.reduce_sum(tf.where(near.itself, between, 0.0), axis=1)
        value = tf.zeros_like(positive)
        for view, all_views, across in ((a, all_a, between), (b, all_b, back)):
            within = tf.matmul(view, all_views, transpose_b=True) / self.temperature
            within = tf.where(near.present & ~near.itself, within, ABSENT)
            # an anchor that is absent keeps its own pair: a sum over nothing has no logarithm
            across = tf.where(near.present | near.itself, across, ABSENT)
            others = tf.reduce_logsumexp(tf.concat([within, across], axis=1), axis=1)
            value += 0.5 * (others - positive)
        return value

    def _views(self, y_true, y_pred):
        if y_pred.shape.rank == 3:
            if y_pred.shape[1] != 2:
                raise TermwiseError(
                    f"{self.name} takes two views [pairs, 2, features], received the shape "
                    f"{tuple(y_pred.shape)}. Stack the views on axis 1."
                )
            a, b = tf.unstack(y_pred, axis=1)
        else:
            a, b = widen(y_true), y_pred
            if not tf.TensorShape(a.shape).is_compatible_with(b.shape):
                raise TermwiseError(
                    f"{self.name} takes two views of one shape [pairs, features], received "
                    f"{tuple(a.shape)} and {tuple(b.shape)}. Give two embeddings of each example, "
                    "or both as one output [pairs, 2, features]."
                )
        return as_embeddings(a, self.name), as_embeddings(b, self.name)

    def get_config(self):
        return {**super().get_config(), "temperature": self.temperature}


@register_loss
class SupCon(_AmongAll):
    """Supervised contrastive loss: the other examples of a class are an anchor's positives.

        value = -1/|P(i)| sum over p in P(i) of
                log( exp(s_ip / temperature) / sum over k != i of exp(s_ik / temperature) )

    P(i) are the other examples of i's class, s is the cosine similarity. An anchor without a
    positive has the value 0 and counts in the mean, as in the authors' code. The examples of all
    replicas are compared, with gradient. One of sample weight 0 is absent, from the others' sums
    too; other weights multiply the anchor's own value. On several replicas it needs
    `jit_compile=False`.

    Args:
      temperature: float > 0.
      name, reduction, dtype: as in `keras.losses.Loss`.
    Call args:
      y_true: [examples] or [examples, 1], class numbers; compared in the loss's dtype, in
        float32 exact up to 2^24.
      y_pred: floating [examples, features], embeddings. Several views of an example are several
        examples with its label.
    Returns:
      float32 [examples].
    Raises:
      ValueError: a temperature that is not positive; shapes other than these.
    Source: Khosla et al. 2020, eq. 2 (the sum outside the logarithm).

    Example:
      >>> loss = SupCon(temperature=1.0)
      >>> embeddings = tf.constant([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
      >>> values = loss.call(tf.constant([0, 0, 1]), embeddings)
      >>> [round(float(value), 4) for value in values]                # log(e + 1) - 1, none
      [0.3133, 0.3133, 0.0]
    """

    def __init__(self, temperature=0.1, name=None, reduction="sum_over_batch_size", dtype=None):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.temperature = number(
            "temperature", temperature, above=0, owner=self, accepted="a number above 0"
        )

    def _values(self, y_true, y_pred, weight):
        labels = as_labels(y_true, self.name)
        embeddings = as_embeddings(y_pred, self.name)
        near = Neighbours.of((labels, embeddings), weight)
        (labels, anchors), (key_labels, keys) = near.anchors, near.keys
        others = near.present & ~near.itself
        logits = tf.matmul(normalize(anchors), normalize(keys), transpose_b=True)
        logits = logits / self.temperature
        logits = tf.where(others, logits, ABSENT)
        missed = -tf.nn.log_softmax(logits, axis=1)
        positives = others & tf.equal(labels[:, tf.newaxis], key_labels[tf.newaxis, :])
        total = tf.reduce_sum(tf.where(positives, missed, 0.0), axis=1)
        count = tf.reduce_sum(tf.cast(positives, missed.dtype), axis=1)
        return tf.math.divide_no_nan(total, count)

    def get_config(self):
        return {**super().get_config(), "temperature": self.temperature}


@register_loss
class Contrastive(keras.losses.Loss):
    """Contrastive loss of pairs: alike drawn together, unlike pushed beyond a margin.

        value = y d^2 + (1 - y) max(margin - d, 0)^2

    The label is 1 for alike and the factor 1, as in TensorFlow Addons; the paper has 0 for alike
    and a factor ½.

    Args:
      margin: float >= 0.
      name, reduction, dtype: as in `keras.losses.Loss`.
    Call args:
      y_true: [pairs, ...], 1 for a pair that is alike, 0 for one that is not.
      y_pred: floating, the same shape (a last axis of 1 may be left out on either side);
        distances, at least 0.
    Returns:
      float32 [pairs], the mean over the last axis where there are two.
    Raises:
      ValueError: a negative margin; labels and distances of different shapes.
    Source: Hadsell et al. 2006, eq. 4.

    Example:
      >>> loss = Contrastive(margin=1.0)
      >>> loss.call(tf.constant([1.0, 0.0]), tf.constant([0.5, 0.25])).numpy().tolist()
      [0.25, 0.5625]
    """

    def __init__(self, margin=1.0, name=None, reduction="sum_over_batch_size", dtype=None):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.margin = number("margin", margin, least=0, owner=self, accepted="a number >= 0")

    def call(self, y_true, y_pred):
        y_true, distance = align(y_true, y_pred, self.name)
        beyond = tf.square(tf.maximum(self.margin - distance, 0.0))
        value = y_true * tf.square(distance) + (1.0 - y_true) * beyond
        return tf.reduce_mean(value, axis=-1)

    def get_config(self):
        return {**super().get_config(), "dtype": self.dtype, "margin": self.margin}


@register_loss
class NPairs(_AmongAll):
    """N-pairs loss of a matrix of similarities.

        value = -sum over j of t_ij log softmax(s_i)_j + l2 mean over j of s_ij^2
        t_ij = 1 / (number of examples of i's class) where j is of that class, else 0

    The matrix is what the model makes of its own batch, so on several replicas an anchor is
    compared with the examples of its replica. A column whose example has sample weight 0 is
    absent; other weights multiply the row's value.

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
