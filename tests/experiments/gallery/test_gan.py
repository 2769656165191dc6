"""The GAN of a ring: its data, its two groups, and how its points are counted."""

import numpy as np
import pytest

from experiments.configs import gan as config_file
from experiments.gallery import gan


def configured(**changes):
    config = config_file.get_config()
    config.update(changes)
    return config.lock()


@pytest.fixture(scope="module")
def trained():
    config = configured(steps=10, batch_size=32, log_every=10, examples=320, model={"hidden": (8,)})
    one = gan.experiment(config, strategy="one_device", workdir=None)
    return one, one.trainer.fit(one.train_data, verbose=False, **one.fit).rows[-1]


def test_the_real_points_lie_on_a_ring():
    real = gan.draw_data(40_000, seed=0)["real"]
    counts, share = gan.quality(real)
    # of a Gaussian in the plane, exp(-9 / 2) lie beyond three sigma
    assert share == pytest.approx(1 - np.exp(-4.5), abs=0.003)
    assert counts.min() > 0.95 * 5000 * share
    squared = (real**2).sum(axis=1).mean()
    assert squared == pytest.approx(gan.RADIUS**2 + 2 * gan.SIGMA**2, rel=0.01)


def test_points_are_counted_by_the_mode_they_are_near():
    right, left = np.array([gan.RADIUS, 0.0]), np.array([-gan.RADIUS, 0.0])
    off = np.array([0.0, 3.01 * gan.SIGMA])
    points = np.array([right, right, left, right + off, left + 0.99 * off, [0.0, 0.0]])
    counts, share = gan.quality(points)
    assert counts.tolist() == [2, 0, 0, 0, 2, 0, 0, 0]
    assert share == pytest.approx(4 / 6)


def test_the_generator_moves_at_every_fifth_step(trained):
    one, _ = trained
    updates = {name: int(each.iterations) for name, each in one.trainer.optimizer.items()}
    assert updates == {"generator": 2, "critic": 10}


def test_each_term_trains_its_group(trained):
    _, row = trained
    assert {"raw/critic", "raw/gradient_penalty", "raw/generator"} <= row.keys()
    assert [term.trains for term in gan.make_terms(configured())] == [
        "critic",
        "critic",
        "generator",
    ]


def test_the_checks_count_what_is_generated(trained):
    one, _ = trained
    checks = one.check(one.trainer)
    points = one.trainer.predict((gan.draw_data(10_000, 1_000_000),))["fake"]
    counts, share = gan.quality(points)
    assert checks["share within 3 sigma of a mode"].value == pytest.approx(share)
    assert checks["modes covered"].value == (counts >= 312.5).sum()
    assert not checks["share within 3 sigma of a mode"].reached  # of ten steps
    assert len(one.picture(one.trainer).axes) == 2
