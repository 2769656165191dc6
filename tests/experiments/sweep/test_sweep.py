"""A sweep from its command to its table: failures apart, resumed, stopped, refused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.sweep.__main__ import main
from experiments.sweep.results import final_values

ROOT = Path(__file__).resolve().parents[3]
EXPERIMENT = """
import keras, numpy as np
from experiments.experiment import Experiment
from trainer import Trainer


def experiment(config, *, strategy, workdir):
    if config.size == 0:
        raise ValueError("size=0: give more")
    net = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    x = np.ones((8, 1), "float32")
    trainer = Trainer(net, optimizer="sgd", loss="mse", workdir=workdir, config=config.to_dict())
    return Experiment(trainer, (x, x * config.size), fit={"steps": 4, "batch_size": 4})
"""
CONFIG = """
from ml_collections import ConfigDict


def get_config():
    return ConfigDict({"experiment": "line", "size": 1.0, "seed": 0})
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where an experiment `line` can be imported."""
    (tmp_path / "line.py").write_text(EXPERIMENT)
    (tmp_path / "config.py").write_text(CONFIG)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sweep=config.sise=1,2"], "--config.sise: no such field. Did you mean size?"),
        (["--sweep=config.size=a,2"], "--config.size="),
        ([], "--sweep: is missing"),
        (["--sweep=config.size=1,2", "--parallel=0"], "--parallel=0: give a number"),
        (["--sweep=config.size=1,2", "--paralel=2"], "--paralel: no such flag"),
        (["--sweep=config.size=1,2", "--mode=best"], "invalid choice: 'best'"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_written(folder, arguments, message, capsys):
    assert main(["--config=config.py", "--workdir=sweep", *arguments]) == 2
    assert message in capsys.readouterr().err and not (folder / "sweep").exists()


def test_a_dry_run_lists_and_writes_nothing(folder, capsys):
    words = ["--config=config.py", "--workdir=sweep", "--sweep=config.size=1,2", "--dry_run"]
    assert main(words) == 0
    assert capsys.readouterr().out.split() == ["size=1", "size=2"]
    assert not (folder / "sweep").exists()


@pytest.mark.very_slow
@pytest.mark.slow
def test_settings_that_fail_stand_apart_and_finished_ones_are_not_run_again(folder, capsys):
    words = ["--config=config.py", "--workdir=sweep", "--sweep=config.size=2.0,0.0", "--parallel=2"]
    assert main(words) == 3
    told = capsys.readouterr()
    assert "FAILED  size=0.0  exit code 2: error: " in told.out and "size=0: give more" in told.out
    assert told.err == "failed: size=0.0\n"
    done = json.loads((folder / "sweep" / "size=2.0" / "DONE.json").read_text())
    summary = json.loads((folder / "sweep" / "sweep.json").read_text())
    assert summary["by"] == "total"
    assert [entry["mean"] for entry in summary["settings"]] == [done["total"], None]
    assert main([*words[:2], "--sweep=config.size=2.0"]) == 0
    assert "1 settings, 1 of them finished" in capsys.readouterr().out


@pytest.mark.very_slow
def test_a_stopped_sweep_stops_its_runs_and_says_that_it_goes_on(folder):
    text = EXPERIMENT.replace('"steps": 4', '"steps": 10**8')
    (folder / "line.py").write_text(text)
    words = ["--config=config.py", "--workdir=sweep", "--sweep=config.size=2.0"]
    sweep = subprocess.Popen(
        [sys.executable, "-m", "experiments.sweep", *words], stderr=subprocess.PIPE, text=True
    )
    rows = folder / "sweep" / "size=2.0" / "metrics.jsonl"
    end = time.monotonic() + 120
    while not rows.exists() and sweep.poll() is None and time.monotonic() < end:
        time.sleep(0.2)
    sweep.send_signal(signal.SIGTERM)
    assert sweep.communicate(timeout=120)[1].endswith("stopped; the same command goes on\n")
    assert sweep.returncode == 143
    assert list((folder / "sweep" / "size=2.0" / "checkpoints").glob("ckpt-*.json"))


def test_the_checks_of_a_run_are_values_that_a_sweep_compares_by(tmp_path):
    checks = {"recall": {"value": 0.5, "at_least": 0.9, "reached": False}, "b": {"value": None}}
    done = {"total": 1.0, "seconds": 2.0, "eval": {"total": 3.0}, "checks": checks}
    (tmp_path / "DONE.json").write_text(json.dumps(done))
    assert final_values(tmp_path) == {
        "total": 1.0,
        "seconds": 2.0,
        "eval/total": 3.0,
        "checks/recall": 0.5,
    }


def test_a_sweep_draws_no_picture_that_all_its_runs_would_write(folder, capsys):
    words = ["--config=config.py", "--workdir=sweep", "--sweep=config.size=1,2", "--picture=a.png"]
    assert main(words) == 2
    assert (
        "--picture: every run of a sweep would draw into the same file." in capsys.readouterr().err
    )
