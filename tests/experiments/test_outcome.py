"""What a run came to: checked after training, noted, drawn, told by its exit code."""

import json
import sys
from types import SimpleNamespace

import pytest

from experiments import run
from experiments.cli import ConfigurationError
from experiments.experiment import Check, Experiment
from experiments.outcome import check_all
from trainer.launch import exit_codes

EXPERIMENT = '''
"""A line fitted to twenty points."""
import keras
import numpy as np
from experiments.experiment import Check, Experiment
from trainer import Trainer


def experiment(config, *, strategy, workdir):
    keras.utils.set_random_seed(0)
    x = np.linspace(-1, 1, 20, dtype="float32")[:, None]
    trainer = Trainer(
        lambda: keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, name="line")]),
        optimizer=keras.optimizers.SGD(0.5), loss="mse", strategy=strategy, workdir=workdir,
        config=config.to_dict(),
    )

    def check(trainer):
        kernel = trainer.model.get_layer("line").kernel.numpy()[0, 0]
        return {"slope": Check(kernel, at_least=config.slope), "step": Check(trainer.step.numpy())}

    def picture(trainer):
        from matplotlib.figure import Figure
        figure = Figure(figsize=(2, 1))
        figure.subplots().plot(x[:, 0], trainer.predict(x)[:, 0])
        return figure

    return Experiment(
        trainer, (x, 2 * x + 1), fit={"steps": config.steps, "batch_size": 20},
        check=check if config.checks else None, picture=picture if config.draws else None,
    )
'''
CONFIG = """
from ml_collections import ConfigDict
def get_config():
    return ConfigDict(dict(experiment="checked_line", slope=1.9, steps=40, checks=True,
                           draws=True))
"""
CONFIGURED = "--config=line_config.py"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current directory with the experiment `checked_line` and its configuration."""
    (tmp_path / "checked_line.py").write_text(EXPERIMENT, encoding="utf-8")
    (tmp_path / "line_config.py").write_text(CONFIG, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("TERMWISE_MISSED", raising=False)
    yield tmp_path
    sys.modules.pop("checked_line", None)


def done(folder):
    return json.loads((folder / "q1" / "DONE.json").read_text())


def told(text):
    return [line for line in text.splitlines() if line.startswith("check  ")]


def test_what_is_reached_is_printed_and_noted_beside_the_final_values(folder, capfd):
    assert run.main([CONFIGURED, "--workdir=q1"]) == 0
    slope, step = told(capfd.readouterr().out)
    assert slope.startswith("check  slope 1.9") or slope.startswith("check  slope 2 ")
    assert slope.endswith(" >= 1.9  reached") and step == "check  step 40"
    noted = done(folder)
    assert noted["seconds"] > 0 and noted["step"] == 40
    assert noted["checks"]["slope"]["value"] == pytest.approx(2, abs=0.1)
    assert noted["checks"]["slope"]["at_least"] == 1.9 and noted["checks"]["slope"]["reached"]
    assert noted["checks"]["step"] == {"value": 40.0, "reached": True}


def test_a_missed_check_is_exit_code_1_also_when_the_finished_run_is_called_again(folder, capfd):
    missed = run.main([CONFIGURED, "--workdir=q1", "--config.slope=3.0"])
    first, noted = told(capfd.readouterr().out), done(folder)
    assert missed == exit_codes.MISSED == 1 and first[0].endswith(" >= 3  missed")
    assert noted["checks"]["slope"]["reached"] is False
    without = {key: value for key, value in noted.items() if key != "checks"}
    (folder / "q1" / "DONE.json").write_text(json.dumps(without))
    assert run.main(["--workdir=q1"]) == 1
    assert told(capfd.readouterr().out) == first
    assert done(folder) == noted


def test_a_launcher_may_ask_for_a_code_that_no_bug_has(folder, monkeypatch, capfd):
    monkeypatch.setenv("TERMWISE_MISSED", "43")
    assert run.main([CONFIGURED, "--config.slope=3.0"]) == 43
    for code in ("0", "2", "75", "many", "128"):
        monkeypatch.setenv("TERMWISE_MISSED", code)
        capfd.readouterr()
        assert run.main([CONFIGURED, "--workdir=q1"]) == 2
        assert f"TERMWISE_MISSED='{code}'" in capfd.readouterr().err
        assert not (folder / "q1").exists()


def test_evaluation_checks_and_draws_what_training_did_and_writes_nothing_else(folder, capfd):
    """There is no data to evaluate here, so nothing but the check needs the weights."""
    assert run.main([CONFIGURED, "--workdir=q1", "--picture=drawn/one.png"]) == 0
    out = capfd.readouterr().out
    first, drawn = told(out), (folder / "drawn" / "one.png").read_bytes()
    assert out.splitlines()[-1] == "picture  drawn/one.png" and drawn.startswith(b"\x89PNG")
    before = {path: path.stat().st_mtime_ns for path in (folder / "q1").rglob("*")}
    assert run.main(["--workdir=q1", "--mode=evaluate", "--picture=drawn/two.png"]) == 0
    assert told(capfd.readouterr().out) == first
    assert {path: path.stat().st_mtime_ns for path in (folder / "q1").rglob("*")} == before
    assert (folder / "drawn" / "two.png").read_bytes() == drawn
    assert sorted(path.name for path in (folder / "drawn").iterdir()) == ["one.png", "two.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--picture=a.jpg"], "--picture=a.jpg: give a file whose name ends in .png."),
        (["--picture=line_config.py/a.png"], "--picture=line_config.py/a.png: its folder: "),
        (["--picture=a.png", "--config.draws=False"], "--picture: checked_line draws none."),
        (["--picture=a.png", "--mode=describe"], "--picture: goes with --mode=train or"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_trained(
    folder, arguments, message, capfd
):
    assert run.main([CONFIGURED, "--workdir=q1", *arguments]) == 2
    assert message in capfd.readouterr().err
    assert not (folder / "q1").exists() and not (folder / "a.png").exists()


def answering(answer):
    """An experiment whose check gives `answer`."""
    trainer = SimpleNamespace(is_chief=True, workdir=None)
    return Experiment(trainer, None, check=lambda trainer: answer())


@pytest.mark.parametrize("answer", [[Check(1)], {"a": 1.0}, {1: Check(1)}, None])
def test_a_check_that_gives_no_checks_is_told(answer):
    with pytest.raises(
        ConfigurationError, match=r"check\(\) of the experiment returned .* Return a"
    ):
        check_all(answering(lambda: answer), keep=True)


def test_all_must_be_reached_and_none_is_none_missed(capsys):
    assert check_all(answering(lambda: {"a": Check(1), "b": Check(2, at_most=3)}), keep=True)
    assert capsys.readouterr().out == "check  a 1\ncheck  b 2 <= 3  reached\n"
    assert not check_all(answering(lambda: {"a": Check(1), "b": Check(4, at_most=3)}), keep=True)
    assert check_all(answering(dict), keep=True)


def test_a_bug_in_a_check_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        check_all(answering(lambda: 1 / 0), keep=True)


def test_an_experiment_without_a_check_ends_as_ever(folder, capfd):
    assert run.main([CONFIGURED, "--workdir=q1", "--config.checks=False"]) == 0
    assert "checks" not in done(folder) and told(capfd.readouterr().out) == []
