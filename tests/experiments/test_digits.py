"""The quickstart: real digits, four kinds of term, a learned noise, 97 % within a minute."""

import json
import math
import os
import resource
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from experiments.configs import digits as config_file
from experiments.configs import digits_mirrored
from experiments.digits import Reconstruction, experiment, split_digits

ROOT = Path(__file__).resolve().parents[2]


def program(*argv):
    return subprocess.run(
        [sys.executable, "-m", "experiments.run", *argv],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def train_rows(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["split"] == "train"]


def test_the_digits_are_split_into_three_parts_that_share_nothing():
    parts = split_digits()
    assert {name: len(y) for name, (_, y) in parts.items()} == {
        "train": 1078,
        "validation": 359,
        "test": 360,
    }
    for x, y in parts.values():
        assert (x.shape[1:], x.dtype, y.dtype) == ((8, 8, 1), "float32", "int32")
        counts = np.bincount(y, minlength=10) / len(y)
        assert counts.min() > 0.09
        assert counts.max() < 0.11
    images = [x.tobytes() for part, _ in parts.values() for x in part]
    assert len(set(images)) == len(images) == 1797


def test_the_split_does_not_depend_on_any_seed():
    first = split_digits()
    keras.utils.set_random_seed(5)
    for name, (x, y) in split_digits().items():
        np.testing.assert_array_equal(x, first[name][0])
        np.testing.assert_array_equal(y, first[name][1])


def reconstruction_of(error, log_variance):
    term = Reconstruction(log_variance=log_variance)
    x = tf.zeros([3, 8, 8, 1])
    step = losses.Step(x=x, model=None, step=0, training=True)
    step.y_pred = {"pixels": x + error}
    return term, step


@pytest.mark.parametrize(
    ("error", "log_variance", "value"),
    [(0.0, 0.0, 0.0), (2.0, 0.0, 2.0), (2.0, math.log(4), (math.log(4) + 1) / 2)],
)
def test_the_reconstruction_is_a_gaussian_likelihood(error, log_variance, value):
    term, step = reconstruction_of(error, log_variance)
    np.testing.assert_allclose(term.call(step), [value] * 3, rtol=1e-6)


def test_its_noise_is_best_at_the_mean_squared_error():
    term, step = reconstruction_of(3.0, math.log(9.0))
    with tf.GradientTape() as tape:
        value = tf.reduce_mean(term.call(step))
    assert abs(float(tape.gradient(value, term.log_variance.value))) < 1e-6


def test_the_quickstart_has_four_kinds_of_term_and_a_loss_parameter():
    one = experiment(config_file.get_config().lock(), strategy="one_device", workdir=None)
    one.trainer.build(one.train_data, **one.batch)
    described = [line.split() for line in one.trainer.describe().splitlines()]
    assert described[1:5] == [
        ["digit", "compiled", "1"],
        ["reconstruction", "term", "0.05"],
        ["regularization/embedding/kernel", "model", "1"],
        ["add_loss/embedding", "model", "1"],
    ]
    assert list(one.trainer.loss_parameters) == ["reconstruction/log_variance"]


def test_the_mirrored_configuration_is_the_quickstart():
    assert digits_mirrored.get_config().to_dict() == config_file.get_config().to_dict()


@pytest.mark.slow
def test_the_quickstart_reaches_97_percent_within_a_minute_and_learns_its_noise(tmp_path):
    workdir = tmp_path / "digits"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = program("--config=experiments/configs/digits.py", f"--workdir={workdir}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # computed for, not waited: other programs on the machine may make it wait
    seconds = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
    assert (done.returncode, done.stderr) == (0, "")
    name, accuracy = done.stdout.splitlines()[-1].rpartition(" | ")[2].split()
    assert name == "digit_accuracy"
    assert float(accuracy) >= 0.97
    assert seconds < 60
    noise = [row["loss_parameters/reconstruction/log_variance"] for row in train_rows(workdir)]
    assert noise == sorted(noise, reverse=True)
    assert noise[-1] < 2.5 < 3.5 < noise[0] < 4.0
    assert (workdir / "DONE.json").exists()


@pytest.mark.very_slow
@pytest.mark.slow
def test_two_replicas_train_the_quickstart_as_one_does(tmp_path):
    short = ["--config.steps=20", "--config.log_every=5"]
    done = [
        program("--config=experiments/configs/digits.py", f"--workdir={tmp_path}/one", *short),
        program(
            "--config=experiments/configs/digits_mirrored.py",
            "--strategy=mirrored",
            "--virtual_devices=2",
            f"--workdir={tmp_path}/two",
            *short,
        ),
    ]
    assert [process.returncode for process in done] == [0, 0], done[1].stderr
    assert "| cpu, 2 replicas |" in done[1].stdout.splitlines()[0]
    one, two = train_rows(tmp_path / "one"), train_rows(tmp_path / "two")
    assert [row["total"] for row in two] == pytest.approx([r["total"] for r in one], rel=1e-4)
    assert two[0]["total"] == pytest.approx(one[0]["total"], rel=1e-6)
