"""Two digits laid over each other: the data, every kind of balancer, and the table."""

import math

import numpy as np
import pytest

from experiments import two_digits, two_digits_table
from experiments.configs import two_digits as config_file
from experiments.digits import split_digits
from experiments.two_digits import BALANCERS, experiment, load_pairs, overlay, pair_digits


@pytest.fixture
def few_pairs(monkeypatch):
    monkeypatch.setattr(two_digits, "PAIRS", {"train": 64, "validation": 32, "test": 32})


def configured(**changes):
    config = config_file.get_config()
    config.update(changes)
    return config.lock()


def test_the_brighter_pixel_is_seen():
    left, right = np.full((8, 8), 5.0), np.full((8, 8), 3.0)
    seen = overlay((left, (0, 1)), (right, (4, 3)))
    assert seen.shape == (12, 12)
    assert (seen[:8, 1:9] == 5).all()  # where both are, the left one is brighter
    assert (seen[8:, 3:11] == 3).all()
    assert (seen[4:8, 9:11] == 3).all()
    assert seen.sum() == 64 * 5 + (64 - 4 * 6) * 3


def test_the_pairs_do_not_depend_on_any_seed():
    first, again = load_pairs(), load_pairs()
    assert {split: x.shape for split, (x, _) in first.items()} == {
        "train": (12_000, 12, 12, 1),
        "validation": (2_000, 12, 12, 1),
        "test": (4_000, 12, 12, 1),
    }
    for split, (x, y) in first.items():
        assert (x.dtype, y["left"].dtype) == ("float32", "int32")
        np.testing.assert_array_equal(x, again[split][0])
        np.testing.assert_array_equal(y["right"], again[split][1]["right"])


def test_a_pair_is_made_of_its_splits_digits_with_their_labels():
    # Each digit is one grey level of its own, 1 + its place, so that a pixel tells the digit.
    grey = np.arange(1.0, 21.0, dtype="float32")
    images = np.broadcast_to(grey[:, None, None, None], (20, 8, 8, 1))
    labels = np.arange(20) % 10
    x, y = pair_digits(images, labels, 200, seed=0)
    left, right = x[:, 1, 1, 0], x[:, 10, 10, 0]  # seen whatever the shifts are
    np.testing.assert_array_equal(y["left"], (left - 1) % 10)
    np.testing.assert_array_equal(y["right"], (right - 1) % 10)
    np.testing.assert_array_equal(x.max(axis=(1, 2, 3)), np.maximum(left, right))
    corners = {(int(a), int(b)) for a, b in zip(x[:, 0, 4, 0] > 0, x[:, 4, 0, 0] > 0, strict=True)}
    assert corners == {(0, 0), (0, 1), (1, 0), (1, 1)}  # the left digit's four shifts


def test_no_digit_is_in_two_splits(monkeypatch):
    seen = {}
    numbers = {len(y): split for split, (_, y) in split_digits().items()}

    def drawn_from(images, labels, count, seed):
        seen[numbers[len(labels)]] = {image.tobytes() for image in images}
        return pair_digits(images, labels, 1, seed)

    monkeypatch.setattr(two_digits, "pair_digits", drawn_from)
    load_pairs()
    assert list(seen) == ["train", "validation", "test"]
    assert not seen["train"] & seen["test"]
    assert not seen["train"] & seen["validation"]
    assert not seen["validation"] & seen["test"]


@pytest.mark.parametrize("name", ["uncertainty", "pcgrad"])  # of values, of a Gramian
def test_each_kind_of_balancer_trains(name, few_pairs):
    config = configured(
        balancer=name, steps=2, batch_size=16, log_every=2, gradient_diagnostics_every=2
    )
    one = experiment(config, strategy="one_device", workdir=None)
    row = one.trainer.fit(one.train_data, verbose=False, **one.fit).rows[-1]
    named = {key[4:] for key in row if key.startswith("raw/")}
    assert {"left", "right"} <= named
    total = sum(row["weight/" + term] * row["raw/" + term] for term in named)
    assert row["total"] == pytest.approx(total, rel=1e-6)
    assert -1 <= row["grad_cosine/left:right"] <= 1


def test_every_method_of_the_table_has_a_balancer():
    assert set(two_digits_table.METHODS) == set(BALANCERS)


def test_an_unknown_balancer_is_an_error_that_names_those_there_are():
    with pytest.raises(ValueError, match=r"balancer='pc_grad': accepted are 'equal', 'uncert"):
        two_digits.make_balancer("pc_grad")


def test_the_standard_error_is_that_of_the_mean():
    # the deviations of 1, 2, 3, 6 from 3: (4 + 1 + 0 + 9) / 3 is the variance, over 4 values
    assert two_digits_table.mean_and_error([1.0, 2.0, 3.0, 6.0]) == pytest.approx(
        (3.0, math.sqrt(14 / 3 / 4))
    )
    assert math.isnan(two_digits_table.mean_and_error([1.0])[1])


def test_the_table_has_a_line_for_each_method():
    runs = {
        "equal": [
            {"left": 0.5, "right": 0.7, "mean": 0.6},
            {"left": 0.5, "right": 0.9, "mean": 0.7},
        ]
    }
    assert two_digits_table.table(runs).splitlines()[2] == (
        "| equal | 50.00 ± 0.00 | 80.00 ± 10.00 | 65.00 ± 5.00 |"
    )


def test_the_command_prints_the_table(few_pairs, capsys):
    assert (
        two_digits_table.main(["--methods", "equal", "mgda", "--seeds", "1", "--steps", "2"]) == 0
    )
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "| method | left % | right % | mean % |"
    assert [line.split()[1] for line in printed[2:]] == ["equal", "mgda"]


@pytest.mark.parametrize("wrong", [["--seeds=0"], ["--steps=-1"], ["--methods", "best"]])
def test_a_wrong_argument_ends_with_2(wrong, capsys):
    with pytest.raises(SystemExit) as ended:
        two_digits_table.main(wrong)
    assert ended.value.code == 2
    assert wrong[0].split("=")[0] in capsys.readouterr().err
