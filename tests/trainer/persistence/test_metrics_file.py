"""Rows that were lost, cut in half or doubled since the last checkpoint are noticed and told."""

import json

import keras
import numpy as np
import pytest

from trainer import Trainer
from trainer.persistence.metrics_file import find_damage, size_of

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")


def train(workdir, steps, **fit):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    trainer = Trainer(model, optimizer="sgd", loss="mse", workdir=workdir)
    given = {"batch_size": 8, "log_every": 2, "verbose": False, **fit}
    return [row["step"] for row in trainer.fit((X, X[:, :1]), steps=steps, **given).rows]


DAMAGES = {
    "deleted": (lambda lines: None, "is missing or empty, and held"),
    "empty": (lambda lines: [], "is missing or empty, and held"),
    "the second half": (lambda lines: lines[3:], "Rows were lost"),
    "the first half": (lambda lines: lines[:3], "Rows were lost"),
    "every other row": (lambda lines: lines[::2], "Rows were lost"),
    "half a row at the end": (lambda lines: [*lines[:-1], lines[-1][:20]], "Rows were lost"),
    "doubled": (lambda lines: lines * 2, "comes after later rows, or twice"),
    "a row twice": (lambda lines: [lines[0], *lines], "line 2: the train row of step 2 comes"),
    "moved": (lambda lines: [*lines[1:], lines[0]], "line 6: the train row of step 2 comes after"),
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("case", DAMAGES)
def test_a_run_that_goes_on_tells_what_became_of_its_rows(case, workdir, capsys):
    assert train(workdir, 12) == [2, 4, 6, 8, 10, 12]
    damage, words = DAMAGES[case]
    file = workdir / "metrics.jsonl"
    lines = damage(file.read_text().splitlines(keepends=True))
    if lines is None:
        file.unlink()
    else:
        file.write_text("".join(lines))
    capsys.readouterr()
    train(workdir, 14)
    told = capsys.readouterr().err
    assert told.startswith(f"warning: {file}") and told.count("\n") == 1 and words in told


@pytest.mark.parametrize(
    "fit",
    [
        {"checkpoint_every": 3},
        {"checkpoint_every": 4, "validation_data": (X, X[:, :1]), "validate_every": 4},
        {"log_every": 100, "checkpoint_every": 2},  # checkpoints before there is a row
        {"checkpoint_every": 3, "keep_best": 2},
    ],
    ids=str,
)
def test_an_undamaged_run_is_told_nothing(fit, workdir, capsys):
    for steps in (5, 5, 9, 20):
        train(workdir, steps, **fit)
    (workdir / "checkpoints" / "ckpt-20.json").unlink()  # as if killed before its end
    train(workdir, 20, **fit)
    assert capsys.readouterr().err == ""


def test_a_run_that_a_callback_stops_inside_a_window_is_whole(workdir, capsys):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch >= 6

    given = {"validation_data": (X, X[:, :1]), "validate_every": 20, "steps_per_loop": 1}
    train(workdir, 20, callbacks=[Stop()], log_every=4, checkpoint_every=7, **given)
    train(workdir, 20, log_every=4, **given)
    assert capsys.readouterr().err == ""


def test_rows_that_were_not_counted_are_not_missed(tmp_path):
    file = tmp_path / "metrics.jsonl"
    row = {"step": 2, "split": "train", "total": 1.0}
    file.write_text(json.dumps(row) + "\n")
    assert find_damage(file, 2, None) is None  # a checkpoint of an older version
    assert find_damage(file, 2, size_of(file)) is None
    assert find_damage(file, 1, 0) is None  # rows after the checkpoint are about to be cut
    assert "held 1000 when ckpt-2 was saved" in find_damage(file, 2, 1000)
    file.write_text("not a row\n")
    assert find_damage(file, 2, 1000) is None  # an error of its own


def test_evaluation_of_a_run_that_another_process_writes_tells_nothing(workdir):
    train(workdir, 4)
    (workdir / "metrics.jsonl").unlink()
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    trainer = Trainer(model, optimizer="sgd", loss="mse", workdir=workdir)
    assert trainer.evaluate((X, X[:, :1]))["total"] >= 0  # warnings are errors here


def test_rows_lost_between_two_fits_of_one_trainer_are_told(workdir, capsys):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    trainer = Trainer(model, optimizer="sgd", loss="mse", workdir=workdir)
    for steps in (4, 8, 12):
        trainer.fit((X, X[:, :1]), steps=steps, batch_size=8, log_every=2, verbose=False)
        told = capsys.readouterr().err
        if steps == 12:
            assert "metrics.jsonl is missing or empty, and held" in told
        else:
            assert told == ""
        if steps == 8:
            (workdir / "metrics.jsonl").unlink()
