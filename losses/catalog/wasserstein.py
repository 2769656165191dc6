"""The loss of a Wasserstein critic and of the generator it judges."""

from __future__ import annotations

import keras
import tensorflow as tf

from losses.catalog.bases import align
from losses.objective import register_loss


@register_loss
class Wasserstein(keras.losses.Loss):
    """Wasserstein critic loss: the critic's score times a sign.

        value = mean over the last axis of y_true * y_pred

    The sign is -1 for real examples and +1 for generated ones: a critic that minimises the loss
    raises the score of real examples and lowers that of generated ones. The generator minimises
    the same loss of its own examples labelled -1. Over a batch of as many real as generated
    examples the critic's loss is half of mean(score of generated) - mean(score of real), so the
    estimate of the Wasserstein distance is -2 times it.

    Args:
      name, reduction, dtype: as in `keras.losses.Loss`.
    Call args:
      y_true: [examples, ...], -1 or +1.
      y_pred: floating, the same shape (a last axis of 1 may be left out on either side); the
        score, without an activation.
    Returns:
      float32 [examples, ...] without the last axis.
    Raises:
      ValueError: labels and scores of different shapes.
    Source: Arjovsky et al. 2017, algorithm 1.

    Example:
      >>> loss = Wasserstein()
      >>> float(loss([-1.0, 1.0], [3.0, 1.0]))                 # (-3 + 1) / 2
      -1.0
    """

    def call(self, y_true, y_pred):
        y_true, y_pred = align(y_true, y_pred, self.name)
        return tf.reduce_mean(y_true * y_pred, axis=-1)

    def get_config(self):
        return {**super().get_config(), "dtype": self.dtype}
