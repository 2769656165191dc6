"""Weights inside the loss of a sequence model: one objective two ways, exported without weights."""

import numpy as np
import pytest

from experiments.configs import weighted_sequence as config_file
from experiments.gallery.weighted_sequence import (
    OF_OUTPUT,
    data_of,
    experiment,
    loss_of,
    sequences,
)


def trained(variant, steps=5):
    config = config_file.get_config()
    config.variant, config.steps, config.units = variant, steps, 4
    one = experiment(config.lock(), strategy="one_device", workdir=None)
    one.trainer.fit(one.train_data, steps=steps, batch_size=100, verbose=False)
    return one


def test_the_labels_are_noisy_where_an_example_weighs_less():
    (x, noisy, s), (again, true, _) = sequences(5, 400), sequences(5, 400, noisy=False)
    assert (x.shape, noisy.shape, s.shape) == ((400, 10, 4), (400, 100), (400,))
    np.testing.assert_array_equal(x, again)
    assert set(s.tolist()) == {1.0, np.float32(0.1)}
    np.testing.assert_array_equal(noisy[s == 1], true[s == 1])
    assert np.std(noisy[s < 1] - true[s < 1]) == pytest.approx(1, rel=0.02)


def test_the_weights_of_the_labels_and_those_of_the_loss_are_one_objective():
    x, y, s = sequences(1, 8)
    predicted = np.zeros_like(y) + 0.5
    error = (y.astype("float64") - 0.5) ** 2
    weights = s[:, None].astype("float64") * OF_OUTPUT
    by_hand = np.sum(weights * error) / np.sum(weights)
    _, labels = data_of("labels", x, y, s)
    assert float(loss_of("labels")(labels, predicted)) == pytest.approx(by_hand, rel=1e-5)
    given = float(loss_of("loss")(y, predicted, sample_weight=s))
    assert given == pytest.approx(by_hand, rel=1e-5)
    assert data_of("unweighted", x, y, s) == (x, y) and loss_of("unweighted") == "mse"


def test_both_train_to_the_same_model_and_what_is_exported_predicts_the_same():
    one, other = trained("labels"), trained("loss")
    for a, b in zip(one.trainer.model.weights, other.trainer.model.weights, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)
    checks = one.check(one.trainer)
    x, y, _ = sequences(3000, 1000, noisy=False)
    error = (one.trainer.predict(x).astype("float64") - y) ** 2
    by_hand = np.sum(error.mean(0) * OF_OUTPUT) / np.sum(OF_OUTPUT)
    assert checks["weighted error"].value == pytest.approx(by_hand, rel=1e-5)
    assert checks["error, all outputs alike"].value == pytest.approx(error.mean(), rel=1e-5)
    assert checks["exported: largest difference"].reached
    assert one.picture(one.trainer).axes[0].get_title() == "labels"
