"""No module is imported from the workdir, wherever the program is started."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import run

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("json", "re", "ml_collections", "absl", "difflib", "numpy", "keras", "losses", "trainer")


@pytest.mark.parametrize(
    ("argv", "folders", "stay"),
    [
        (["--workdir=."], ["", "/elsewhere"], ["/elsewhere"]),
        (["--workdir=q1"], ["", "q1", "q1/code", "q10"], ["", "q10"]),
        (["--workdir", "q1"], ["q1", "/elsewhere"], ["/elsewhere"]),
        (["-workdir=q1/../q1"], ["q1", "/elsewhere"], ["/elsewhere"]),
        (["--workdir=a", "--workdir=q1"], ["a", "q1"], ["a"]),  # the last one counts
        (["--workdir=link"], ["q1", "link"], []),
        (["--workdir=/"], [str(ROOT), sys.prefix, "/elsewhere"], [str(ROOT), sys.prefix]),
        (["--workdir"], ["", "q1"], ["", "q1"]),
        (["--workdir="], ["", "q1"], ["", "q1"]),
        (["--workdir=a\0b"], [""], [""]),
        (["--mode=train"], ["", "q1"], ["", "q1"]),
        ([], [""], [""]),
    ],
)
def test_the_workdir_is_left_out_of_the_import_path(argv, folders, stay, tmp_path, monkeypatch):
    (tmp_path / "q1" / "code").mkdir(parents=True)
    (tmp_path / "link").symlink_to("q1")
    monkeypatch.chdir(tmp_path)
    assert run.import_path(argv, folders) == stay


def test_a_workdir_below_home_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run.import_path(["--workdir=~/q1"], [f"{tmp_path}/q1", "a"]) == ["a"]


def test_the_import_path_is_as_before_when_the_program_has_ended(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(tmp_path))
    before = list(sys.path)
    assert run.main([f"--workdir={tmp_path}"]) == 2
    assert sys.path == before


def start_in(workdir, config, *argv, modules=MODULES):
    """The program, started in a workdir that is full of modules which must not be run."""
    workdir.mkdir()
    (workdir / "config.json").write_text(json.dumps(config))
    for name in modules:
        (workdir / f"{name}.py").write_text(f"open({name!r} + '.ran', 'w'); raise SystemExit(9)")
    done = subprocess.run(
        [sys.executable, "-m", "experiments.run", "--workdir=.", *argv],
        cwd=workdir,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert not list(workdir.glob("*.ran")), done.stderr
    return done


def test_what_is_typed_in_a_workdir_runs_nothing_there(tmp_path):
    done = start_in(tmp_path / "run", {"experiment": "mine"}, "--mode=describe")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --config.experiment: no module named mine.\n"


def test_an_experiment_that_lies_in_the_workdir_is_refused(tmp_path):
    done = start_in(tmp_path / "run", {"experiment": "mine"}, modules=(*MODULES, "mine"))
    assert done.returncode == 2
    assert done.stderr == (
        "error: --config.experiment: mine lies in the workdir ., and nothing there is run. "
        "Move the module out of it.\n"
    )


@pytest.mark.slow
def test_a_run_is_continued_from_inside_its_workdir(tmp_path):
    from experiments.configs import digits

    config = json.loads(digits.get_config().to_json())
    config |= {"steps": 2, "log_every": 1, "validate_every": 2, "checkpoint_every": 2}
    done = start_in(tmp_path / "run", config)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "DONE.json").exists()
