"""The autoencoder: its likelihood, its two KL terms, and the estimates it is checked by."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import losses
from experiments.configs import vae as config_file
from experiments.gallery import vae


def configured(**changes):
    config = config_file.get_config()
    config.update(changes)
    return config.lock()


@pytest.fixture(scope="module")
def trained():
    """A few steps of a small one."""
    config = configured(
        steps=20, batch_size=32, log_every=10, validate_every=20, model={"hidden": 8, "latents": 3}
    )
    one = vae.experiment(config, strategy="one_device", workdir=None)
    history = one.trainer.fit(
        one.train_data, validation_data=one.validation_data, verbose=False, **one.fit
    )
    return one, history


def test_the_reconstruction_is_a_binomial_likelihood():
    x = np.random.default_rng(0).integers(0, 17, (4, 8, 8, 1)).astype("float32")
    logits = np.random.default_rng(1).normal(size=x.shape).astype("float32")
    step = losses.Step(x=tf.constant(x), model=None, step=0, training=True)
    step.y_pred = {"logits": tf.constant(logits)}
    expected = -stats.binom.logpmf(x, 16, 1 / (1 + np.exp(-logits))).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(vae.reconstruction(step), expected, rtol=1e-5)


def test_the_weight_rises_in_cycles_and_ends_at_its_value():
    _, free, watched = vae.make_terms(configured(steps=100, cycles=4, kl_weight=0.5))
    # five spans of 20 steps: four that rise over their first ten, and one that stays
    weights = [float(free.weight(step)) for step in (0, 5, 10, 20, 65, 80, 99)]
    assert weights == pytest.approx([0, 0.25, 0.5, 0, 0.25, 0.5, 0.5])
    assert watched.weight == 0.0
    assert vae.make_terms(configured(cycles=0))[1].weight == 1.0


def test_what_is_watched_does_not_count_in_the_total(trained):
    _, history = trained
    for row in history.rows:
        counted = row["terms/reconstruction"] + row["terms/free_kl"]
        assert row["raw/kl"] > 0
        assert row["total"] == pytest.approx(counted, rel=1e-6)


def test_free_bits_are_a_floor_of_each_latent(trained):
    one, history = trained
    (images,) = one.validation_data
    read = one.trainer.predict(images)
    mean, log_variance = read["mean"].astype("float64"), read["log_variance"].astype("float64")
    nats = ((np.exp(log_variance) + mean**2 - 1 - log_variance) / 2).mean(axis=0)
    row = [row for row in history.rows if row["split"] == "eval"][-1]
    assert row["raw/kl"] == pytest.approx(nats.sum(), rel=1e-4)
    assert row["raw/free_kl"] == pytest.approx(np.maximum(nats, 0.05).sum(), rel=1e-4)


def test_the_bound_is_that_of_scipy_and_the_weighted_one_lies_above(trained):
    one, _ = trained
    (images,) = one.test_data
    found = vae.elbo(one.trainer, one.test_data)
    few, one_draw = vae.bounds(one.trainer, images, draws=1)
    assert one_draw == pytest.approx(few)  # one weight is its own mean
    again, weighted = vae.bounds(one.trainer, images, draws=20)
    assert found == pytest.approx(again, rel=0.01)
    assert weighted > again


def test_a_unit_is_active_where_its_mean_varies():
    means = np.array([[0.0, 0.3, 0.15], [0.0, -0.3, -0.03]])  # variances 0, 0.09, 0.0081
    reader = SimpleNamespace(predict=lambda images: {"mean": means})
    assert vae.active_units(reader, None) == 1


def test_the_checks_and_the_picture_are_of_the_trained_model(trained):
    one, _ = trained
    checks = one.check(one.trainer)
    assert list(checks) == [
        "ELBO",
        "ELBO, distance from SciPy's",
        "importance weighted bound, above the ELBO",
        "active units",
    ]
    assert not checks["ELBO"].reached  # of a few steps
    assert checks["importance weighted bound, above the ELBO"].reached
    assert len(one.picture(one.trainer).axes) == 3 * 10
