"""Robust losses against squared error: the data, the check by hand, each loss for a few steps."""

import numpy as np
import pytest

from experiments.configs import robust_regression as config_file
from experiments.gallery.robust_regression import (
    LOSSES,
    TRUE,
    coefficients,
    contaminated_line,
    experiment,
)


def config(**fields):
    made = config_file.get_config()
    made.update(fields)
    return made.lock()


def test_of_the_labels_30_percent_are_wrong_and_the_others_are_near_the_line():
    x, y, outlier = contaminated_line(3)
    off = y[:, 0] - (x @ TRUE[:-1] + TRUE[-1])
    assert (x.shape, y.shape, x.dtype, y.dtype) == ((2000, 5), (2000, 1), "float32", "float32")
    assert outlier.mean() == 0.3
    assert np.abs(off[outlier]).min() > 1.5 and np.abs(off[outlier]).max() < 10.5
    assert np.std(off[~outlier]) == pytest.approx(0.1, rel=0.06)
    assert 0.5 < (off[outlier] > 0).mean() < 0.7


def test_least_squares_by_numpy_misses_what_the_table_says_it_misses():
    x, y, outlier = contaminated_line(0)
    columns = np.column_stack([x, np.ones(len(x))])

    def off(kept):
        found = np.linalg.lstsq(columns[kept], y[kept, 0], rcond=None)[0]
        return np.abs(found / TRUE - 1).max()

    assert off(slice(None)) > 0.1
    assert off(~outlier) < 0.01


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_each_loss_moves_towards_the_line_and_its_check_is_the_largest_relative_error(loss):
    one = experiment(config(loss=loss, steps=3), strategy="one_device", workdir=None)
    one.trainer.fit(one.train_data, **(one.fit | {"validate_every": None}), verbose=False)
    found = coefficients(one.trainer.model)
    (check,) = one.check(one.trainer).values()
    assert check.value == pytest.approx(
        max(abs(a / b - 1) for a, b in zip(found, TRUE, strict=True))
    )
    assert (check.at_most, check.reached) == ((None, True) if loss == "squared" else (0.02, False))
    one.trainer.model.get_layer("line").kernel.assign(TRUE[:-1, None] * 1.01)
    one.trainer.model.get_layer("line").bias.assign(TRUE[-1:])
    (check,) = one.check(one.trainer).values()
    assert check.value == pytest.approx(0.01, rel=1e-4) and check.reached
    assert one.picture(one.trainer).axes[0].get_title() == loss
