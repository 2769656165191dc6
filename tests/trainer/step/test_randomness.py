"""Random draws on several replicas: different on each, and the same in a resumed run."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import Trainer


class Masks(keras.layers.Layer):
    """Keeps the mask that its dropout drew, [replica, units]."""

    def __init__(self, seed=None, seeded=True):
        super().__init__()
        self.dropout = keras.layers.Dropout(0.5, seed=seed) if seeded else None
        self.kept = self.add_weight(shape=(64,), initializer="zeros", trainable=False, name="kept")

    def call(self, x, training=False):
        ones = tf.ones([1, 64])
        if self.dropout is None:
            mask = tf.cast(keras.random.uniform((1, 64)) > 0.5, tf.float32) * 2.0
        else:
            mask = self.dropout(ones, training=training)
        if training:
            self.kept.assign(mask[0])
        return x * mask[0, 0]


def masks(strategy, steps=1, workdir=None, seeded=True, **arguments):
    """Trains and returns the masks of the last step: their mean over the replicas, [64]."""

    def build():
        return keras.Sequential(
            [keras.Input((3,)), Masks(7, seeded), keras.layers.Dense(1, kernel_initializer="ones")]
        )

    trainer = Trainer(
        build, optimizer="sgd", loss="mse", strategy=strategy, workdir=workdir, **arguments
    )
    x, y = np.ones((8, 3), "float32"), np.zeros((8, 1), "float32")
    trainer.fit((x, y), batch_size=4, steps=steps, verbose=False)
    return np.asarray(trainer.model.layers[0].kept.value.read_value())


# a moving statistic is averaged over the replicas: 1 where one of two dropped it
@pytest.mark.parametrize("seeded", [True, False])
def test_replicas_draw_different_masks(two_replicas, seeded):
    assert 1.0 in masks(two_replicas, seeded=seeded)


def test_replicas_draw_the_same_masks_when_asked(two_replicas):
    found = masks(two_replicas, replica_randomness="same")
    assert set(found) == {0.0, 2.0}
    np.testing.assert_array_equal(found, masks("one_device"))


def test_masks_are_reproducible_from_the_seed(two_replicas):
    np.testing.assert_array_equal(masks(two_replicas), masks(two_replicas))
    assert (masks(two_replicas) != masks(two_replicas, steps=2)).any()


@pytest.mark.parametrize("seeded", [True, False])
def test_a_resumed_run_draws_what_the_undisturbed_one_would_have(two_replicas, workdir, seeded):
    keras.utils.set_random_seed(3)
    whole = masks(two_replicas, steps=6, seeded=seeded)
    keras.utils.set_random_seed(3)
    masks(two_replicas, steps=4, workdir=workdir, seeded=seeded)
    keras.utils.set_random_seed(99)  # another process draws other initial seeds
    np.testing.assert_array_equal(
        masks(two_replicas, steps=6, workdir=workdir, seeded=seeded), whole
    )


def test_an_unknown_kind_of_randomness_is_an_error():
    with pytest.raises(ValueError, match="accepted are 'different' and 'same'"):
        masks("one_device", replica_randomness="equal")
