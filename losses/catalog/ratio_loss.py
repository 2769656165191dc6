"""The base of losses whose value is no mean of per-element values: `ratio` is their definition."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from losses.objective.ratio import Ratio


class RatioLoss(keras.losses.Loss):
    """A `keras.losses.Loss` defined by two sums over the batch.

    Subclasses implement `ratio`. Termwise divides its sums after the global reduction;
    `Model.compile` calls the loss, which divides them over the one batch it is given.
    """

    def ratio(self, y_true, y_pred, sample_weight=None) -> Ratio | dict[str, Ratio]:
        """The batch's two sums; the Keras mask of the predictions is `y_pred._keras_mask`.

        A dict, name of a part -> Ratio, makes each part a term of its own; the loss is their sum.
        """
        raise NotImplementedError(f"{type(self).__name__} has no ratio(y_true, y_pred).")

    def call(self, y_true, y_pred):
        return _total(self.ratio(y_true, y_pred))

    def __call__(self, y_true, y_pred, sample_weight=None):
        mask = getattr(y_pred, "_keras_mask", None)
        y_true, y_pred = self._cast(y_true), self._cast(y_pred)
        if mask is not None:
            y_pred = tf.identity(y_pred)
            y_pred._keras_mask = mask
        value = _total(self.ratio(y_true, y_pred, sample_weight=sample_weight))
        if self.reduction not in ("sum", "none", None):
            # Model.fit sums the replicas' gradients, and expects this of a loss that is a mean
            value /= tf.distribute.get_strategy().num_replicas_in_sync
        return tf.cast(value, self.dtype)

    def _cast(self, given):
        """Tensors of the loss's dtype; nested lists of numbers are one tensor, None stays."""
        if given is None:
            return None
        nested = isinstance(given, (list, tuple))
        if nested and all(np.ndim(leaf) == 0 for leaf in tf.nest.flatten(given)):
            given = tf.convert_to_tensor(given)
        return tf.nest.map_structure(lambda t: tf.cast(tf.convert_to_tensor(t), self.dtype), given)


def _total(ratio):
    """The value of one Ratio, or of several parts together."""
    parts = ratio.values() if isinstance(ratio, dict) else [ratio]
    return tf.add_n([part.value() for part in parts])
