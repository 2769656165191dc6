"""A run from its command to its files: trained, continued, evaluated and described."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments import run

ROOT = Path(__file__).resolve().parents[2]

EXPERIMENT = '''
"""A line fitted to twenty points; what goes wrong is up to its configuration."""
import keras
import numpy as np
import tensorflow as tf
import losses
from experiments.experiment import Experiment
from trainer import Trainer


def experiment(config, *, strategy, workdir):
    keras.utils.set_random_seed(config.seed)
    if config.wrong == "bug":
        return None.nothing
    if config.wrong == "returns":
        return "nothing"

    def penalty(step):
        if config.wrong == "shape":
            return tf.zeros([7, 7])
        return config.size * (config.size * tf.reduce_mean(tf.square(step.y_pred), axis=-1))

    class Holds(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            import os, time
            while os.environ.get("HOLD_AT") == str(batch + 1) and not os.path.exists("go"):
                time.sleep(0.01)
            if config.wrong == "callback":
                raise ValueError("a bug while training")

    x = np.linspace(-1, 1, 20, dtype="float32")[:, None]
    trainer = Trainer(
        lambda: keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, name="line")]),
        optimizer=keras.optimizers.Adam(config.optimizer.learning_rate),
        loss="mse",
        terms=[losses.term(penalty, name="penalty", weight=0.1)],
        strategy=strategy,
        workdir=workdir,
        seed=config.seed,
        config=config.to_dict(),
    )
    return Experiment(
        trainer,
        (x, 2 * x + 1),
        validation_data=(x[:5], 2 * x[:5] + 1),
        test_data=(x[5:], 2 * x[5:] + 1),
        fit={"steps": config.steps, "batch_size": 8, "log_every": 2, "checkpoint_every": 2,
             "steps_per_loop": 1, "callbacks": [Holds()]},
    )
'''

CONFIG = """
from ml_collections import ConfigDict
def get_config():
    return ConfigDict(dict(experiment="line", seed=0, steps=4, size=0.0, wrong="",
                           sizes=(1, 2), optimizer=dict(learning_rate=0.1)))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current directory with the experiment `line` and its configuration, line_config.py."""
    (tmp_path / "line.py").write_text(EXPERIMENT, encoding="utf-8")
    (tmp_path / "line_config.py").write_text(CONFIG, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("line", None)


CONFIGURED = "--config=line_config.py"


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def written(folder):
    return {path.name for path in folder.iterdir() if path.name != "__pycache__"}


def test_a_run_leaves_its_files_and_prints_its_ledger(folder, capfd):
    assert run.main([CONFIGURED, "--workdir=q1"]) == 0
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert lines[0] == "run q1 | cpu, 1 replica | 4 steps | global batch 8 | new"
    assert any(line.startswith("step 2/4  total ") for line in lines)
    assert any(line.startswith("total ") for line in lines)
    assert lines[-1].startswith("test  total ")
    assert "mean_squared_error" in lines[-1]
    assert err == ""
    workdir = folder / "q1"
    for name in ("config.json", "starts.jsonl", "metrics.jsonl", "DONE.json", "checkpoints", "tb"):
        assert (workdir / name).exists()
    assert json.loads((workdir / "config.json").read_text()) == {
        "experiment": "line",
        "optimizer": {"learning_rate": 0.1},
        "seed": 0,
        "size": 0.0,
        "sizes": [1, 2],
        "steps": 4,
        "wrong": "",
    }


def test_an_override_is_what_is_trained_and_saved(folder, capfd):
    argv = [CONFIGURED, "--workdir=q1", "--config.steps=2", "--config.optimizer.learning_rate=1"]
    assert run.main(argv) == 0
    config = json.loads((folder / "q1" / "config.json").read_text())
    assert (config["steps"], config["optimizer"]["learning_rate"]) == (2, 1.0)
    assert {row["learning_rate"] for row in rows(folder / "q1") if row["split"] == "train"} == {1}


def test_a_finished_run_says_so_and_changes_nothing(folder, capfd):
    assert run.main([CONFIGURED, "--workdir=q1"]) == 0
    first = capfd.readouterr().out.splitlines()
    before = (folder / "q1" / "metrics.jsonl").read_bytes()
    saved = (folder / "q1" / "config.json").stat().st_mtime_ns
    for argv in (["--workdir=q1"], [CONFIGURED, "--workdir=q1"]):
        assert run.main(argv) == 0
        again = capfd.readouterr().out.splitlines()
        ledger = slice(first.index(next(x for x in first if x.startswith("term  "))), None)
        assert again[0].endswith("| resumed from 4")
        assert [x for x in again if x.startswith(("penalty", "total"))] == [
            x for x in first[ledger] if x.startswith(("penalty", "total"))
        ]
        assert again[-1] == first[-1]
    assert (folder / "q1" / "metrics.jsonl").read_bytes() == before
    assert (folder / "q1" / "config.json").stat().st_mtime_ns == saved
    assert (folder / "q1" / "DONE.json").exists()


def test_a_run_is_evaluated_as_it_was_at_its_end(folder, capfd):
    assert run.main([CONFIGURED, "--workdir=q1"]) == 0
    test_line = capfd.readouterr().out.splitlines()[-1]
    before = {path: path.stat().st_mtime_ns for path in (folder / "q1").rglob("*")}
    assert run.main(["--workdir=q1", "--mode=evaluate"]) == 0
    validation, test = capfd.readouterr().out.splitlines()
    assert validation.startswith("validation  total ")
    assert test == test_line
    assert {path: path.stat().st_mtime_ns for path in (folder / "q1").rglob("*")} == before


def test_the_examples_of_a_run_are_written_beside_it(folder, capfd):
    assert run.main([CONFIGURED, "--workdir=q1"]) == 0
    capfd.readouterr()
    assert run.main(["--workdir=q1", "--mode=examples"]) == 0
    lines = [line.split() for line in capfd.readouterr().out.splitlines()]
    assert [split for split, *_ in lines] == ["train", "validation", "test"]
    with np.load(folder / "q1" / "examples" / "test.npz") as arrays:
        assert arrays["value/mean_squared_error"].shape == (15,)
    table = (folder / "q1" / "examples" / "test.txt").read_text().splitlines()
    assert table[0] == "test, step 4: the 20 hardest examples of each term"
    assert table[2].split() == ["example", "mean_squared_error", "penalty", "y", "y_pred", "x"]


def test_an_experiment_is_described_without_a_step_or_a_file(folder, capfd):
    before = written(folder)
    assert run.main([CONFIGURED, "--workdir=q1", "--mode=describe"]) == 0
    shown = capfd.readouterr().out
    assert "mean_squared_error  compiled  1" in shown
    assert "penalty             term      0.1" in shown
    assert written(folder) == before


def test_without_a_workdir_nothing_is_kept(folder, capfd):
    before = written(folder)
    assert run.main([CONFIGURED, "--config.steps=2"]) == 0
    assert "done 2 steps" in capfd.readouterr().out
    assert written(folder) == before


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--strategy=multi_worker"], "strategy='multi_worker' needs to know its workers"),
        (["--config.steps=-4"], "steps=-4: give a whole number of at least 1."),
        (["--config.wrong=shape"], "Term 'penalty' returned shape (7, 7). Accepted: "),
        (["--config.wrong=returns"], "line.experiment() returned str. Return an experiments."),
        (["--config.seed=-1"], "ValueError: Seed must be between 0 and 2**32 - 1\n  from "),
        (["--virtual_devices=64"], "--virtual_devices=64: TensorFlow has started with"),
        (["--config.experiment=json"], "--config.experiment: json defines no experiment()."),
    ],
)
def test_what_building_finds_wrong_is_a_line_or_two(folder, capfd, argv, message):
    before = written(folder)
    assert run.main([CONFIGURED, "--workdir=q1", *argv]) == 2
    err = capfd.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) <= 2
    assert written(folder) == before


def test_an_experiment_that_needs_a_missing_package_says_which(folder, capfd):
    (folder / "needy.py").write_text("import no_such_package")
    assert run.main([CONFIGURED, "--config.experiment=needy"]) == 2
    assert capfd.readouterr().err.startswith(
        "error: needy needs the package no_such_package, which is not installed."
    )


def test_a_term_that_becomes_infinite_is_named(folder, capfd):
    assert run.main([CONFIGURED, "--workdir=q1", "--config.size=1e25", "--config.steps=6"]) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: term '")
    assert "penalty" in error
    assert len(error.splitlines()) <= 2


def test_a_bug_keeps_its_traceback(folder):
    with pytest.raises(AttributeError):
        run.main([CONFIGURED, "--config.wrong=bug"])
    with pytest.raises(ValueError, match="a bug while training"):
        run.main([CONFIGURED, "--config.wrong=callback"])


def command(folder, *argv, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.run", *argv],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process, folder, pattern):
    """Returns once a process has written a file; it must not end before."""
    end = time.monotonic() + 300
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_a_run_that_was_killed_is_continued_by_its_workdir_alone(folder, capfd):
    assert run.main([CONFIGURED, "--workdir=whole", "--config.steps=12"]) == 0
    whole = rows(folder / "whole")
    start = [CONFIGURED, "--workdir=cut", "--config.steps=12"]
    process = command(folder, *start, HOLD_AT="5")
    wait_for(process, folder / "cut", "checkpoints/ckpt-4.json")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / "cut" / "DONE.json").exists()

    process = command(folder, "--workdir=cut")
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    assert "| resumed from " in out.splitlines()[0]
    assert (folder / "cut" / "DONE.json").exists()
    timed = {"time", "steps_per_second", "examples_per_second"}
    assert [{k: v for k, v in row.items() if k not in timed} for row in rows(folder / "cut")] == [
        {k: v for k, v in row.items() if k not in timed} for row in whole
    ]


@pytest.mark.slow
def test_an_interrupted_run_exits_130_and_can_be_continued(folder):
    process = command(folder, CONFIGURED, "--workdir=q1", "--config.steps=1000", HOLD_AT="5")
    wait_for(process, folder / "q1", "checkpoints/ckpt-4.json")
    process.send_signal(signal.SIGINT)
    (folder / "go").touch()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.startswith("stopped by SIGINT at step")
