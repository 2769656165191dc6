"""The table of the gallery: its entries, their runs, what they came to, the page that says so."""

import json
import math
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from experiments.check import Check
from experiments.cli import ConfigurationError
from experiments.gallery.__main__ import MOST_BYTES, Gallery, keep_picture, main
from experiments.gallery.table import Entry, Measured, find_entries
from experiments.gallery.table.page import measured_of, page, read_results
from experiments.gallery.table.runs import CONFIGS, check_runs, runs_of

ROOT = Path(__file__).resolve().parents[3]


def run_of(seconds=1.0, **checks):
    """What a run noted: a number, or (value, at_least), by the check's name."""
    plain = {
        name: Check(*given).plain() if isinstance(given, tuple) else Check(given).plain()
        for name, given in checks.items()
    }
    return {"seconds": seconds, "checks": plain}


def runs(*values, at_least=0.5):
    return {str(seed): run_of(recall=(value, at_least)) for seed, value in enumerate(values)}


def test_every_entry_runs_a_configuration_that_is_there_with_arguments_that_it_takes(tmp_path):
    """Nothing is run: the program's own check of what is typed, of every variant."""
    entries = find_entries()
    assert "trainable_loss" in entries
    for name, entry in entries.items():
        assert (CONFIGS / f"{name}.py").is_file(), name
        check_runs(runs_of(name, entry, tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_module_without_an_entry_is_told(tmp_path, monkeypatch):
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "__init__.py").touch()
    (tmp_path / "room" / "empty.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(TypeError, match=r"room.empty defines no entry. Write ENTRY = Entry"):
        find_entries("room")
    for name in ("room.empty", "room"):
        sys.modules.pop(name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variants": {}}, "at least one variant"),
        ({"seeds": (1, 1)}, "seeds that differ"),
        ({"variants": {"a/b": ()}}, "a name of letters"),
        ({"variants": {"a": "--config.x=1"}}, "a tuple of arguments"),
        ({"pictured": "b"}, "no such variant. There are: as it is"),
    ],
)
def test_an_entry_that_cannot_be_run_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Entry("A line.", **arguments)


def test_the_runs_of_an_entry_are_its_variants_seed_by_seed_and_one_draws(tmp_path):
    entry = Entry("A line.", variants={"a": (), "b b": ("--config.x=1",)}, seeds=(3, 4))
    made = runs_of("line", entry, tmp_path, Path("configs"))
    assert [run.name for run in made] == ["a,seed=3", "b_b,seed=3", "a,seed=4", "b_b,seed=4"]
    assert made[1].arguments == (
        "--config=configs/line.py",
        "--config.x=1",
        "--config.seed=3",
        f"--workdir={tmp_path}/line/b_b,seed=3",
    )
    assert made[0].arguments[-1] == f"--picture={tmp_path}/line/picture.png"
    assert [run.picture is not None for run in made] == [True, False, False, False]
    undrawn = runs_of("line", Entry("A line.", pictured=""), tmp_path)
    assert [run.picture for run in undrawn] == [None] * 3


def test_a_run_is_finished_once_its_checks_are_noted_and_its_picture_is_drawn(tmp_path):
    run, _ = runs_of("line", Entry("A line.", seeds=(0, 1)), tmp_path)
    assert not run.finished
    run.workdir.mkdir(parents=True)
    for text in ("", "[]", '{"seconds": 2.0}'):
        (run.workdir / "DONE.json").write_text(text)
        assert run.noted is None
    (run.workdir / "DONE.json").write_text('{"seconds": 2.0, "checks": {}, "total": 1.0}')
    assert run.noted == {"seconds": 2.0, "checks": {}} and not run.finished
    run.picture.touch()
    assert run.finished


def test_means_errors_and_gaps_are_those_of_statistics():
    """Of 1, 2, 3: mean 2, standard error 1 / √3; of 4, 4, 7: mean 5, standard error 1."""
    measured = Measured({"plain": runs(1, 2, 3), "focal": runs(4, 4, 7)})
    assert measured.mean("plain", "recall") == 2.0
    assert measured.error("plain", "recall") == pytest.approx(1 / math.sqrt(3))
    gap = measured.gap("recall", "focal", "plain")
    assert (gap.mean, gap.error) == (3.0, pytest.approx(math.sqrt(1 / 3 + 1)))
    assert gap.in_errors == pytest.approx(3 / math.sqrt(4 / 3))
    assert math.isnan(Measured({"plain": runs(1)}).error("plain", "recall"))
    still = Measured({"plain": runs(1, 1), "focal": runs(2, 2)})
    assert still.gap("recall", "focal", "plain").in_errors == math.inf
    assert still.gap("recall", "focal", "focal").in_errors == 0.0
    with pytest.raises(KeyError, match="precision: no run of the variant 'plain'"):
        measured.mean("plain", "precision")


def test_what_is_not_finite_is_no_mean():
    measured = Measured({"plain": {"0": run_of(recall=math.nan), "1": run_of(recall=1.0)}})
    assert math.isnan(measured.mean("plain", "recall"))


def test_by_default_the_first_variant_must_reach_its_bounds_on_the_mean():
    measured = Measured({"focal": runs(0.4, 0.8), "plain": runs(0.1, 0.1)})
    entry = Entry("x", variants={"focal": (), "plain": ()}, seeds=(0, 1))
    (check,) = entry.reached(measured).values()
    assert (check.value, check.at_least, check.reached) == (pytest.approx(0.6), 0.5, True)


TWO = Entry("Two | lines.", variants={"focal": (), "plain": ("--config.x=1",)}, seeds=(0, 1))


def test_the_page_tells_results_aims_and_what_is_missed():
    results = {"two": {"cores": 2, "runs": {"focal": runs(0.4, 0.8), "plain": runs(0.1, 0.2)}}}
    text = page({"other": Entry("One."), "two": TWO}, results)
    assert "| [other](#other) | One. | 3 | | not measured | | |" in text
    row = "| [two](#two) | Two \\| lines. | 2 | 1.0 | 0.60 ± 0.20 | recall ≥ 0.5 | reached |"
    assert row in text.splitlines()
    assert "| focal | 0.60 ± 0.20 | 1.0 |" in text and "| plain | 0.150 ± 0.050 | 1.0 |" in text
    command = "python -m experiments.run --config=experiments/configs/two.py --config.x=1 --workdir"
    assert command in text and "![two](gallery/two.png)" in text
    results["two"]["runs"]["focal"] = runs(0.4, 0.5)
    assert "| 0.450 ± 0.050 | recall ≥ 0.5 | **missed** |" in page({"two": TWO}, results)


def test_an_entry_that_was_changed_since_is_not_measured():
    result = {"runs": {"focal": runs(1, 1), "plain": runs(1)}}
    assert measured_of(TWO, result) is None
    result["runs"]["plain"] = runs(1, 1, 1)
    assert list(measured_of(TWO, result).runs["plain"]) == ["0", "1"]
    assert measured_of(TWO, None) is None


def test_a_page_of_no_results_is_a_page(tmp_path):
    assert read_results(tmp_path / "results.json") == {}
    (tmp_path / "results.json").write_text("[1]")
    with pytest.raises(ValueError, match="holds a list"):
        read_results(tmp_path / "results.json")


def test_the_page_in_the_documents_is_made_of_the_results_beside_it():
    docs = ROOT / "docs"
    made = page(find_entries(), read_results(docs / "gallery" / "results.json"))
    assert (docs / "gallery.md").read_text(encoding="utf-8") == made
    for picture in (docs / "gallery").glob("*.png"):
        assert picture.stat().st_size <= MOST_BYTES


def test_a_picture_is_kept_in_as_many_colours_as_fit(tmp_path):
    noise = Image.frombytes("RGB", (160, 160), os.urandom(160 * 160 * 3))
    noise.save(tmp_path / "drawn.png")
    keep_picture(tmp_path / "drawn.png", tmp_path / "kept.png")
    assert (tmp_path / "drawn.png").stat().st_size > 70_000
    assert (tmp_path / "kept.png").stat().st_size <= MOST_BYTES
    with Image.open(tmp_path / "kept.png") as kept:
        assert kept.size == (160, 160)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trainable_los"], "trainable_los: no such experiment. Did you mean trainable_loss?"),
        (["--paralel=2"], "--paralel=2"),
        (["--parallel=0"], "--parallel=0: give a number of at least 1."),
    ],
)
def test_what_is_typed_wrong_is_told_and_nothing_is_written(
    argv, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def gallery(folder, entries, names=()):
    arguments = SimpleNamespace(
        names=list(names),
        workdir=folder / "runs",
        docs=folder / "docs",
        parallel=2,
        page=False,
    )
    return Gallery(entries, arguments, configs=folder)


EXPERIMENT = """
import keras, numpy as np
from experiments.experiment import Check, Experiment
from trainer import Trainer


def experiment(config, *, strategy, workdir):
    if config.size == 0:
        raise ValueError("size=0: give more")
    net = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    x = np.ones((8, 1), "float32")
    trainer = Trainer(net, optimizer="sgd", loss="mse", workdir=workdir, config=config.to_dict())

    def picture(trainer):
        from matplotlib.figure import Figure
        return Figure(figsize=(1, 1))

    return Experiment(
        trainer, (x, x), fit={"steps": 4, "batch_size": 4},
        check=lambda trainer: {"size": Check(config.size + config.seed, at_least=2)},
        picture=picture,
    )
"""
CONFIG = """
from ml_collections import ConfigDict


def get_config():
    return ConfigDict({"experiment": "gallery_line", "size": 1.0, "seed": 0})
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where an experiment `gallery_line`, and the configuration `line`, can be found."""
    (tmp_path / "gallery_line.py").write_text(EXPERIMENT)
    (tmp_path / "line.py").write_text(CONFIG)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_arguments_that_no_run_takes_are_refused_before_any_is_run(folder):
    entries = {"line": Entry("A line.", variants={"a": (), "b": ("--config.sise=1",)})}
    with pytest.raises(ConfigurationError, match=r"--config.sise: no such field. Did you mean"):
        gallery(folder, entries).carry_out()
    assert not (folder / "runs").exists() and not (folder / "docs").exists()


@pytest.mark.very_slow
@pytest.mark.slow
def test_entries_are_run_measured_and_written_and_only_what_is_left_is_run_again(folder, capsys):
    line = Entry("A line.", seeds=(0, 2))
    entries = {"line": line, "other": Entry("Not asked for.")}
    assert gallery(folder, entries, ["line"]).carry_out() == 0
    told = capsys.readouterr().out
    # the run of seed 0 alone misses its check; the mean of 1 and 3 does not
    assert "line  done   as_it_is,seed=0  a check is missed" in told
    assert told.splitlines()[-1] == "line  size 2 >= 2  reached"
    results = json.loads((folder / "docs" / "gallery" / "results.json").read_text())
    found = results["line"]["runs"]["as it is"]
    assert [found[seed]["checks"]["size"]["value"] for seed in ("0", "2")] == [1.0, 3.0]
    with Image.open(folder / "docs" / "gallery" / "line.png") as kept:
        assert kept.size == (100, 100)
    text = (folder / "docs" / "gallery.md").read_text()
    assert "2.0 ± 1.0 | size ≥ 2 | reached |" in text and "Not asked for. | 3 | | not" in text
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("DONE.json")}
    assert gallery(folder, entries, ["line"]).carry_out() == 0
    assert "line: 2 runs, 2 of them finished" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in (folder / "runs").rglob("DONE.json")} == before
    assert (folder / "docs" / "gallery.md").read_text() == text


@pytest.mark.very_slow
@pytest.mark.slow
def test_runs_that_fail_are_named_and_leave_earlier_results_alone(folder, capsys):
    entries = {"line": Entry("x", variants={"a": ("--config.size=0.0",)}, seeds=(0,), pictured="")}
    assert gallery(folder, entries).carry_out() == 3
    told = capsys.readouterr()
    assert "FAILED  a,seed=0  exit code 2: error: " in told.out
    assert told.err == "failed: line/a,seed=0\n"
    assert not (folder / "docs" / "gallery" / "results.json").exists()
