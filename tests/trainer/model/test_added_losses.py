"""What layers add before a normalization over replicas is that of each replica's own examples."""

import keras
import numpy as np
import pytest

from trainer import Trainer
from trainer.model.added_losses import added_losses_apart

LISTS = "_losses", "_loss_ids"


def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, use_bias=False, activity_regularizer=keras.regularizers.L2(0.1)),
            keras.layers.BatchNormalization(synchronized=True),
            keras.layers.Dense(1),
        ]
    )


def data():
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    x[4:] *= 3  # the second replica's examples add more
    return x, x[:, :1]


@pytest.mark.parametrize("accumulated", [None, 2])
def test_two_replicas_add_what_one_adds(accumulated, two_replicas):
    def train(strategy):
        optimizer = keras.optimizers.SGD(0.05, gradient_accumulation_steps=accumulated)
        trainer = Trainer(model, optimizer=optimizer, loss="mse", strategy=strategy)
        history = trainer.fit(
            data(), steps=4, batch_size=4, shuffle=False, log_every=1, verbose=False
        )
        return [row["total"] for row in history.rows], trainer.model.get_weights()

    (one, weights), (two, weights_of_two) = train("one_device"), train(two_replicas)
    np.testing.assert_allclose(two, one, rtol=1e-6)
    for mine, theirs in zip(weights_of_two, weights, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=5e-6)


def test_layers_have_their_own_lists_again():
    layers = model().layers
    before = [vars(layer)[name] for layer in layers for name in LISTS]
    with added_losses_apart(keras.Sequential(layers), 2):
        lent = [vars(layer)[name] for layer in layers for name in LISTS]
        assert not any(mine is theirs for mine, theirs in zip(lent, before, strict=True))
    after = [vars(layer)[name] for layer in layers for name in LISTS]
    assert all(mine is theirs for mine, theirs in zip(after, before, strict=True))
