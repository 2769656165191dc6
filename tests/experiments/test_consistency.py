"""The worked subclass: two views, a term that needs no label, and what it is good for."""

import inspect
import types
from pathlib import Path

import numpy as np
import pytest

from experiments.configs import consistency as config_file
from experiments.consistency import ConsistencyTrainer, experiment, labelled, view
from trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]


def configured(**changes):
    config = config_file.get_config()
    config.update(changes)
    return config.lock()


def test_the_subclass_is_two_methods():
    own = {n for n, value in vars(ConsistencyTrainer).items() if type(value) is types.FunctionType}
    assert own == {"build_model", "compute_terms"}
    assert ConsistencyTrainer.__bases__ == (Trainer,)


def test_the_page_shows_the_method_that_is_run():
    page = (ROOT / "docs" / "subclassing.md").read_text(encoding="utf-8")
    assert inspect.getsource(ConsistencyTrainer.compute_terms) in page


def test_a_view_is_one_of_five_shifts():
    images = np.random.default_rng(0).uniform(0, 16, (200, 8, 8, 1)).astype("float32")
    padded = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)])
    shifts = [
        padded[:, row : row + 8, column : column + 8]
        for row, column in [(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)]
    ]
    seen = view(images, 0.0, (1, 0)).numpy()
    which = np.array([[np.array_equal(a, b) for a, b in zip(seen, s, strict=True)] for s in shifts])
    assert (which.sum(axis=0) == 1).all()
    assert (which.sum(axis=1) > 20).all()  # each about 40 times of 200


def test_views_differ_by_seed_and_only_by_seed():
    images = np.ones((4, 8, 8, 1), "float32")
    np.testing.assert_array_equal(view(images, 1.0, (1, 7)), view(images, 1.0, (1, 7)))
    assert not np.allclose(view(images, 1.0, (1, 7)), view(images, 1.0, (2, 7)))
    assert not np.allclose(view(images, 1.0, (1, 7)), view(images, 1.0, (1, 8)))


def test_noise_has_its_standard_deviation():
    noise = view(np.zeros((500, 8, 8, 1), "float32"), 3.0, (1, 0)).numpy()
    assert noise.std() == pytest.approx(3.0, rel=0.02)
    assert abs(noise.mean()) < 0.05


def test_ten_of_each_digit_have_a_label():
    y = np.repeat(np.arange(10), 50)
    mask = labelled(y, 100, seed=0)
    assert mask.dtype == "float32"
    assert [int(mask[y == digit].sum()) for digit in range(10)] == [10] * 10
    assert not np.array_equal(mask, labelled(y, 100, seed=1))


def test_the_term_is_logged_under_its_name_with_a_rising_weight():
    config = configured(steps=8, ramp_steps=8, log_every=4, batch_size=16)
    one = experiment(config, strategy="one_device", workdir=None)
    history = one.trainer.fit(one.train_data, verbose=False, **one.fit)
    assert ["consistency", "subclass"] in [
        r.split()[:2] for r in one.trainer.describe().split("\n")
    ]
    first, last = history.rows
    # of the steps 0 to 3 and 4 to 7 of 8, weighted by what the term was worth at each
    assert 0 < first["weight/consistency"] < 3 / 8
    assert 4 / 8 <= last["weight/consistency"] <= 7 / 8
    for row in history.rows:
        assert 0 <= row["raw/consistency"] <= 2
        assert row["total"] == pytest.approx(
            row["terms/cross_entropy"] + row["terms/consistency"], rel=1e-6
        )


def test_an_example_without_a_label_has_no_part_in_the_cross_entropy():
    one = experiment(configured(), strategy="one_device", workdir=None)
    x, y, mask = one.train_data
    some = slice(0, 200)
    shown = one.trainer.evaluate((x[some], y[some], mask[some]), batch_size=32)
    hidden = np.where(mask > 0, y, 9 - y)  # other labels where none is to be seen
    again = one.trainer.evaluate((x[some], hidden[some], mask[some]), batch_size=32)
    assert again["terms/cross_entropy"] == pytest.approx(shown["terms/cross_entropy"], rel=1e-6)
    alone = one.trainer.evaluate((x[some][mask[some] > 0], y[some][mask[some] > 0]))
    assert alone["terms/cross_entropy"] == pytest.approx(shown["terms/cross_entropy"], rel=1e-5)


@pytest.mark.very_slow
def test_the_term_helps():
    accuracy = {}
    for weight in (0.0, 1.0):
        config = configured(steps=300, ramp_steps=150, loss_weights={"consistency": weight})
        one = experiment(config, strategy="one_device", workdir=None)
        one.trainer.fit(one.train_data, verbose=False, **one.fit)
        accuracy[weight] = one.trainer.evaluate(one.test_data)["metrics/accuracy"]
    assert accuracy[1.0] > accuracy[0.0] + 0.01
