"""A run grows; started from elsewhere it says where its module was; a user's files hide nothing
without a word."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import run
from experiments.cli import ConfigurationError, saved
from experiments.experiment import check_name

ROOT = Path(__file__).resolve().parents[2]
MODULE = """
import keras
import numpy as np
from experiments.experiment import Experiment
from trainer import Trainer

def experiment(config, *, strategy, workdir):
    keras.utils.set_random_seed(config.seed)
    x = np.linspace(-1, 1, 20, dtype="float32")[:, None]
    trainer = Trainer(
        lambda: keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, name="line")]),
        optimizer="adam", loss="mse", strategy=strategy, workdir=workdir, config=config.to_dict(),
    )
    fit = {"steps": config.steps, "batch_size": 8, "log_every": config.log_every}
    return Experiment(trainer, (x, 2 * x), fit=fit)
"""
CONFIG = """
from ml_collections import ConfigDict
def get_config():
    return ConfigDict(dict(experiment="grown_line", seed=0, steps=4, log_every=2))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current directory with the experiment `grown_line` and its configuration."""
    (tmp_path / "grown_line.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "config.py").write_text(CONFIG, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("grown_line", None)


def rows(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def weights(workdir):
    import tensorflow as tf

    newest = tf.train.latest_checkpoint(workdir / "checkpoints")
    reader = tf.train.load_checkpoint(newest)
    names = [name for name in reader.get_variable_to_shape_map() if "model" in name]
    return {name: reader.get_tensor(name) for name in names}


def test_a_finished_run_grows_and_is_the_run_that_was_longer_from_the_start(folder, capsys):
    assert run.main(["--config=config.py", "--workdir=a"]) == 0
    assert run.main(["--workdir=a", "--config.steps=8", "--config.log_every=1"]) == 0
    out = capsys.readouterr().out
    assert "a: started with log_every=2, now 1; with steps=4, now 8; what is computed" in out
    assert "resumed from 4" in out
    assert rows(folder / "a") == [2, 4, 5, 6, 7, 8]
    # config.json is of the first start; what has changed stands with the start that changed it
    assert json.loads((folder / "a" / "config.json").read_text())["steps"] == 4
    starts = [json.loads(line) for line in (folder / "a" / "starts.jsonl").read_text().splitlines()]
    assert [start.get("changed") for start in starts] == [None, {"steps": 8, "log_every": 1}]
    # and the run goes on as it was grown
    assert run.main(["--workdir=a"]) == 0
    assert "step 8 is already reached: nothing to do" in capsys.readouterr().out
    assert run.main(["--config=config.py", "--workdir=b", "--config.steps=8"]) == 0
    grown, longer = weights(folder / "a"), weights(folder / "b")
    assert grown.keys() == longer.keys() and grown
    assert all((grown[name] == longer[name]).all() for name in grown)


def test_what_may_not_change_is_refused_beside_what_may(folder, capsys):
    saved_config = {"experiment": "grown_line", "seed": 0, "steps": 4}
    saved.check_same("q", saved_config, {**saved_config, "steps": 9, "epochs": 2}, ["steps"])
    with pytest.raises(ConfigurationError) as refused:
        saved.check_same("q", saved_config, {**saved_config, "steps": 9, "seed": 1}, ["seed"])
    assert str(refused.value) == (
        "q was started with seed=0, now 1. Use a new --workdir, or drop the override to resume."
    )


@pytest.mark.parametrize("changed", [{"seed": 3, "steps": 9}, "steps", None])
def test_only_what_may_change_is_taken_from_the_last_start(changed, tmp_path):
    (tmp_path / "starts.jsonl").write_text(json.dumps({"argv": [], "changed": changed}) + "\n{torn")
    started = {"seed": 0, "steps": 4}
    steps = 9 if isinstance(changed, dict) else 4
    assert saved.grown(str(tmp_path), started) == {"seed": 0, "steps": steps}
    assert saved.grown(str(tmp_path / "nothing"), started) == started


def test_a_run_that_is_started_elsewhere_says_where_its_module_was(tmp_path):
    before, workdir = tmp_path / "before", tmp_path / "run"
    workdir.mkdir()
    before.mkdir()
    (workdir / "starts.jsonl").write_text(json.dumps({"argv": [], "folder": str(before)}) + "\n")
    with pytest.raises(ConfigurationError) as refused:
        check_name("of_the_run", str(workdir))
    assert f"The run was started in {before}, where there is none now." in str(refused.value)
    (before / "of_the_run.py").write_text("raise SystemExit('this was run')")
    with pytest.raises(ConfigurationError) as refused:
        check_name("of_the_run", str(workdir))
    assert str(refused.value) == (
        f"--config.experiment: no module named of_the_run. It is in {before}, where the run was "
        f"started: go there, or set PYTHONPATH={before}."
    )


def program(folder, *arguments):
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("name", ["losses", "trainer"])
def test_a_file_that_hides_a_package_is_told_in_a_line(name, tmp_path):
    (tmp_path / f"{name}.py").write_text("raise SystemExit('this was run')")
    code, told = program(tmp_path, "-m", "experiments.run", "--config=any.py")
    assert (code, told) == (
        2,
        f"error: {name}.py hides the package {name} of Termwise. Rename it, or start from another "
        "folder.\n",
    )


def test_own_losses_beside_a_script_are_told_at_the_import_of_the_trainer(tmp_path):
    (tmp_path / "losses.py").write_text("mine = 1")
    (tmp_path / "train.py").write_text("import losses\nfrom trainer import Trainer")
    code, told = program(tmp_path, "train.py")
    line = told.strip().splitlines()[-1]
    assert code == 1 and line.startswith("ImportError: ")
    assert f"{tmp_path / 'losses.py'} hides the package losses of Termwise, which trainer" in line


def test_a_module_in_a_folder_that_a_package_hides_is_told(tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.py").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"experiments/mine\.py is hidden by the package"):
        check_name("experiments.mine", None)
