"""Contrastive losses: what belongs together drawn close, the rest of the global batch apart."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from losses.catalog.bases import AmongAll, align, widen
from losses.catalog.embeddings import ABSENT, Neighbours, as_embeddings, as_labels, normalize
from losses.checks import number
from losses.errors import TermwiseError
from losses.naming import own_name
from losses.objective import Parameter, register_loss


@register_loss
class NTXent(AmongAll):
    """Normalized-temperature cross-entropy of two views of each example (SimCLR).

        l(i, j) = -log( exp(s_ij / temperature) / sum over k != i of exp(s_ik / temperature) )
        value = (l(a_i, b_i) + l(b_i, a_i)) / 2 for the pair i;   s: cosine similarity

    k runs over both views of all examples of the global batch: those of the other replicas are
    gathered, with gradient. A pair of sample weight 0 is absent, from the others' sums too; other
    weights multiply the pair's own value. On several replicas it needs `jit_compile=False`;
    gradient accumulation is refused: each step would compare its own pairs alone.

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
        return self._among(Neighbours.of((a, b), weight))

    def _among(self, near: Neighbours):
        """[pairs], the value of each pair of views beside all others."""
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


class _LogScale(keras.constraints.Constraint):
    """Keeps the logarithm of a scale from 0 to that of the largest.

    Args:
      largest: float, of the scale.
    """

    def __init__(self, largest: float):
        self.largest = largest

    def __call__(self, log_scale):
        return keras.ops.clip(log_scale, 0.0, math.log(self.largest))

    def get_config(self) -> dict:
        return {"largest": self.largest}


@register_loss
class InfoNCE(NTXent):
    """Which of all the others belongs to each: cross-entropy between the outputs of two towers.

        value = (-log softmax(scale s_i.)_i - log softmax(scale s_.i)_i) / 2   for the pair i
        s_ij  = cosine similarity of a_i and b_j;   scale = exp(log_scale)

    With `symmetric=False` the first half alone: of each a its b. Unlike in `NTXent`, views of the
    same tower are not compared with each other. The scale, one over the temperature, is learned as
    its logarithm, the loss parameter `log_scale`, and clipped after each update to at most
    `largest_scale` and at least 1, as CLIP does. Pairs of all replicas are compared, with
    gradient; one of sample weight 0 is absent, from the others' sums too, other weights multiply
    the pair's own value. On several replicas it needs `jit_compile=False`; gradient accumulation
    is refused.

    Args:
      temperature: float > 0, the first one (at least 1 / largest_scale, at most 1, where it is
        trained).
      trainable: bool; False keeps the temperature.
      largest_scale: float > 1.
      symmetric: bool; both directions, or from a to b.
      name, reduction, dtype: as in `keras.losses.Loss`.
    Call args:
      y_true (a): floating [pairs, features], the first tower's embeddings.
      y_pred (b): floating [pairs, features], the second's. Or [pairs, 2, features]: both as one
        output of the model, `keras.ops.stack([a, b], axis=1)`; `y_true` is then not read.
    Returns:
      float32 [pairs].
    Raises:
      ValueError: a number outside its range; embeddings of different shapes.
    Source: van den Oord et al. 2018, eq. 4; Radford et al. 2021, figure 3 and section 2.5 (both
      directions, the learned and clipped scale).

    Example:
      >>> loss = InfoNCE(temperature=1.0)
      >>> towers = tf.constant([[1.0, 0.0], [0.0, 1.0]])
      >>> round(float(loss.call(towers, towers)[0]), 4)               # log(e + 1) - 1
      0.3133
    """

    def __init__(
        self,
        temperature=0.07,
        trainable=True,
        largest_scale=100.0,
        symmetric=True,
        name=None,
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(temperature, name=name, reduction=reduction, dtype=dtype)
        self.largest_scale = number("largest_scale", largest_scale, above=1, owner=self)
        self.trainable, self.symmetric = bool(trainable), bool(symmetric)
        if self.trainable:
            least = 1.0 / self.largest_scale
            if not least <= self.temperature <= 1.0:
                raise TermwiseError(
                    f"InfoNCE(temperature={temperature!r}): give one from {least:g} "
                    "(1 / largest_scale) to 1, or trainable=False."
                )
            dtype = "float64" if self.dtype == "float64" else "float32"
            with keras.name_scope(own_name(self)):
                self.log_scale = Parameter(
                    "log_scale",
                    -math.log(self.temperature),
                    constraint=_LogScale(self.largest_scale),
                    dtype=dtype,
                )

    @property
    def scale(self) -> tf.Tensor:
        """Floating [], one over the temperature as it is now."""
        if self.trainable:
            return tf.exp(tf.convert_to_tensor(self.log_scale))
        wide = "float64" if self.dtype == "float64" else "float32"
        return tf.constant(1.0 / self.temperature, wide)

    def _among(self, near: Neighbours):
        a, b, all_a, all_b = map(normalize, (*near.anchors, *near.keys))
        scale = tf.cast(self.scale, a.dtype)
        directions = [(a, all_b)] + ([(b, all_a)] if self.symmetric else [])
        values = [self._missed(near, scale, tower, keys) for tower, keys in directions]
        return tf.add_n(values) / len(values)

    def _missed(self, near: Neighbours, scale, tower, keys):
        """[pairs], minus the log-probability of each embedding's own partner among the keys."""
        logits = scale * tf.matmul(tower, keys, transpose_b=True)
        positive = tf.reduce_sum(tf.where(near.itself, logits, 0.0), axis=1)
        # an anchor that is absent keeps its own pair: a sum over nothing has no logarithm
        logits = tf.where(near.present | near.itself, logits, ABSENT)
        return tf.reduce_logsumexp(logits, axis=1) - positive

    def get_config(self):
        return {
            **super().get_config(),
            "trainable": self.trainable,
            "largest_scale": self.largest_scale,
            "symmetric": self.symmetric,
        }


@register_loss
class SupCon(AmongAll):
    """Supervised contrastive loss: the other examples of a class are an anchor's positives.

        value = -1/|P(i)| sum over p in P(i) of
                log( exp(s_ip / temperature) / sum over k != i of exp(s_ik / temperature) )

    P(i) are the other examples of i's class, s is the cosine similarity. An anchor without a
    positive has the value 0 and counts in the mean, as in the authors' code. The examples of all
    replicas are compared, with gradient. One of sample weight 0 is absent, from the others' sums
    too; other weights multiply the anchor's own value. On several replicas it needs
    `jit_compile=False`; gradient accumulation is refused.

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
