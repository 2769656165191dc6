"""Adversarial regularization: the attack it is measured by, and its three variants."""

import keras
import numpy as np
import pytest

from experiments.configs import adversarial as config_file
from experiments.gallery import adversarial
from experiments.gallery.adversarial import accuracy, attack


def configured(**changes):
    config = config_file.get_config()
    config.update(changes)
    return config.lock()


def linear(slope):
    """Two logits of 64 pixels: 0, and the image's product with a slope of [64]."""
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    model.set_weights([np.stack([np.zeros(64), slope], axis=1), np.zeros(2)])
    return model


def test_the_attack_of_a_linear_model_ends_at_the_corner():
    draw = np.random.default_rng(0)
    slope = draw.normal(size=64)
    images = draw.uniform(size=(6, 8, 8, 1)).astype("float32")
    labels = np.array([0, 1, 0, 1, 0, 1])
    away = np.where(labels == 0, 1.0, -1.0)[:, None] * np.sign(slope)
    worst = np.clip(images + 0.1 * away.reshape(images.shape), 0.0, 1.0)
    np.testing.assert_allclose(attack(linear(slope), images, labels), worst, atol=1e-6)


def test_the_attack_keeps_within_epsilon_and_the_pixels_range():
    images = np.random.default_rng(0).uniform(size=(6, 8, 8, 1)).astype("float32")
    one = adversarial.experiment(configured(variant="plain"), strategy="one_device", workdir=None)
    moved = attack(one.trainer.model, images, np.arange(6), epsilon=0.2, steps=3)
    assert np.abs(moved - images).max() <= 0.2 + 1e-6
    assert moved.min() >= 0 and moved.max() <= 1
    assert not np.array_equal(moved, images)


def test_the_accuracy_is_a_share():
    images = np.ones((4, 8, 8, 1), "float32")
    assert accuracy(linear(np.ones(64)), images, np.array([1, 1, 1, 0])) == 0.75


def test_the_data_are_scaled():
    for x, _ in adversarial.scaled_digits().values():
        assert (x.min(), x.max()) == (0.0, 1.0)


@pytest.mark.parametrize("variant", ["fgsm", "pgd"])
def test_a_variant_trains_and_is_measured(variant):
    config = configured(variant=variant, steps=4, batch_size=16, log_every=4)
    one = adversarial.experiment(config, strategy="one_device", workdir=None)
    row = one.trainer.fit(one.train_data, verbose=False, **one.fit).rows[-1]
    assert row["raw/adversarial"] > row["raw/cross_entropy"] > 0
    assert row["total"] == pytest.approx(row["raw/adversarial"] + row["raw/cross_entropy"])
    checks = one.check(one.trainer)
    x, y = one.test_data
    guesses = one.trainer.predict(x).argmax(-1)
    assert checks["accuracy"].value == pytest.approx((guesses == y).mean())
    assert checks["accuracy under PGD-20"].value <= checks["accuracy"].value
    assert checks["accuracy under PGD-20"].at_least is not None


def test_the_plain_variant_is_told_and_compared():
    config = configured(variant="plain", steps=2, batch_size=16, log_every=2)
    one = adversarial.experiment(config, strategy="one_device", workdir=None)
    row = one.trainer.fit(one.train_data, verbose=False, **one.fit).rows[-1]
    assert "raw/adversarial" not in row
    assert one.check(one.trainer)["accuracy under PGD-20"].at_least is None
    x, y = one.test_data
    figure = adversarial.draw(one.trainer.model, x[:16], y[:16])
    assert len(figure.subfigs[1].axes) == 2 * adversarial.SHOWN


def test_another_variant_is_refused_by_name():
    with pytest.raises(ValueError, match="variant='fsgm': accepted are 'plain', 'fgsm', 'pgd'"):
        adversarial.experiment(configured(variant="fsgm"), strategy="one_device", workdir=None)
