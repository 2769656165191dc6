"""A rare class: the data, the weights by hand, two ways to weigh that are one, the check."""

import numpy as np
import pytest

from experiments.configs import imbalanced as config_file
from experiments.gallery.imbalanced import RARE, RECALL, class_weights, experiment, rare_digits


def trained(variant, steps=10):
    config = config_file.get_config()
    config.variant, config.steps = variant, steps
    one = experiment(config.lock(), strategy="one_device", workdir=None)
    fit = {
        name: one.fit[name] for name in ("steps", "batch_size", "class_weight") if name in one.fit
    }
    one.trainer.fit(one.train_data, **fit, verbose=False)
    return one


def test_the_rare_digit_is_2_percent_of_the_training_data_alone():
    parts = rare_digits()
    shares = {name: np.mean(y == RARE) for name, (_, y) in parts.items()}
    assert shares["train"] == pytest.approx(0.02, abs=0.001)
    assert all(0.09 < shares[name] < 0.11 for name in ("validation", "test"))
    images = [image.tobytes() for x, _ in parts.values() for image in x]
    assert len(set(images)) == len(images)


def test_a_class_weighs_what_it_would_in_balanced_data():
    y = np.array([0] * 6 + [1] * 2 + list(range(2, 10)))  # 16 examples of ten classes
    weights = class_weights(y)
    assert weights[:3].tolist() == pytest.approx([16 / 60, 16 / 20, 16 / 10])
    assert sum(weights[y]) == pytest.approx(16)


def test_class_weights_and_equal_sample_weights_train_to_the_same_model():
    one, other = trained("class_weight"), trained("sample_weight")
    for a, b in zip(one.trainer.model.weights, other.trainer.model.weights, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)
    assert "class_weight" in one.fit and "class_weight" not in other.fit
    assert len(one.train_data) == 2 and len(other.train_data) == 3


def test_the_check_is_the_recall_of_the_rare_digit_counted_by_hand():
    one = trained("focal", steps=60)
    x, y = rare_digits()["test"]
    found = one.trainer.predict(x).argmax(-1)
    right = sum(1 for a, b in zip(found, y, strict=True) if a == b == RARE)
    checks = one.check(one.trainer)
    assert checks[RECALL].value == pytest.approx(right / list(y).count(RARE))
    assert checks["accuracy"].value == pytest.approx(np.mean(found == y))
    assert checks["precision of the rare digit"].value == pytest.approx(
        right / max(1, list(found).count(RARE))
    )
    bars = one.picture(one.trainer).axes[0].patches
    assert bars[RARE].get_height() == pytest.approx(checks[RECALL].value)
