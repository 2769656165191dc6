"""Runs below a folder: which are found, what they answer, what differs between them."""

import json
import subprocess
import sys
import time

import pytest

from tests.trainer.report.rows_by_hand import healthy, row, write_run
from trainer.report import ReportError, Runs, differences
from trainer.report.folders import find_runs


def names(folder):
    return [run.name for run in find_runs(folder)]


def test_runs_are_found_at_any_depth_and_links_are_not_followed(tmp_path):
    logdir = tmp_path / "logs"
    write_run(logdir / "a", healthy())
    write_run(logdir / "sweep" / "lr=1" / "ümlaut", healthy())
    outside = write_run(tmp_path / "outside", healthy())
    (logdir / "link").symlink_to(outside)
    (logdir / "a" / "checkpoints").mkdir()
    write_run(logdir / "a" / "checkpoints" / "no", healthy())
    assert names(logdir) == ["a", "sweep/lr=1/ümlaut"]
    assert names(logdir / "a") == ["a"]


def test_the_events_of_a_run_stand_for_the_run(tmp_path):
    run = write_run(tmp_path / "q1", healthy())
    (run / "tb").mkdir()
    assert names(run / "tb") == ["q1"]


def test_two_hundred_runs_are_listed_within_a_second(tmp_path):
    for number in range(200):
        write_run(tmp_path / f"run_{number:03d}", healthy(2))
    runs = Runs(tmp_path)
    start = time.perf_counter()
    listed = runs.overview()
    assert len(listed) == 200 and listed[7]["terms"] == ["a", "b"]
    assert time.perf_counter() - start < 1.0


def test_columns_hold_the_numbers_of_the_file_and_add_up(tmp_path):
    rows = [row(s, {"a": 0.1 * s, "b": -0.3, "c": None}, metric=float(s)) for s in range(1, 2001)]
    write_run(tmp_path / "run", rows)
    answer = Runs(tmp_path, seconds=None).rows("run", points=100)
    train = answer["splits"]["train"]
    assert train["count"] == 2000 and len(train["step"]) == 100
    by_step = {row["step"]: row for row in rows}
    for index, step in enumerate(train["step"]):
        tags = {tag: values[index] for tag, values in train["tags"].items()}
        assert tags == {
            k: v for k, v in by_step[step].items() if k not in ("step", "split", "time")
        }
        parts = [tags[tag] for tag in tags if tag.startswith("terms/") and tags[tag] is not None]
        assert sum(parts) == pytest.approx(tags["total"], rel=1e-6)


def test_cosines_are_left_out_unless_they_are_asked_for(tmp_path):
    write_run(tmp_path / "run", healthy(**{"grad_cosine/a:b": 0.1}))
    runs = Runs(tmp_path)
    assert "grad_cosine/a:b" not in runs.rows("run")["splits"]["train"]["tags"]
    assert "grad_cosine/a:b" in runs.rows("run", wide=True)["splits"]["train"]["tags"]
    assert runs.row("run", "train", 3)["grad_cosine/a:b"] == 0.1


def test_what_is_not_there_is_an_error_that_names_what_is_like_it(tmp_path):
    write_run(tmp_path / "digits", healthy())
    runs = Runs(tmp_path)
    with pytest.raises(ReportError, match=r"no run 'digit'\. Did you mean 'digits'"):
        runs.rows("digit")
    with pytest.raises(ReportError, match=r"there is no run '\.\./digits'"):
        runs.rows("../digits")
    with pytest.raises(ReportError, match="no train row of step 77"):
        runs.row("digits", "train", 77)
    with pytest.raises(ReportError, match="split='test'"):
        runs.row("digits", "test", 1)
    with pytest.raises(ReportError, match="points=1"):
        runs.rows("digits", points=1)


def test_what_differs_tells_a_missing_field_from_none_and_1_from_true():
    configs = {
        "a": {"seed": 0, "model": {"units": 1, "name": None}, "same": [1, 2]},
        "b": {"seed": 0, "model": {"units": True}, "same": [1, 2]},
        "c": None,
    }
    assert differences(configs) == [
        {"field": "model.units", "values": {"a": 1, "b": True}},
        {"field": "model.name", "values": {"a": None}},
    ]


def test_about_a_run_survives_files_that_are_damaged(tmp_path):
    run = write_run(tmp_path / "run", healthy(), config={"seed": 1}, DONE={"seconds": 2.5})
    (run / "starts.jsonl").write_text('{"resumed_from": null}\nnot json\n{"resumed_from": 20}\n')
    about = Runs(tmp_path).about("run")
    assert [start["resumed_from"] for start in about["starts"]] == [None, 20]
    assert about["config"] == {"seed": 1} and about["seconds"] == 2.5 and about["hints"] == []
    (run / "config.json").write_text("{")
    assert Runs(tmp_path).about("run")["config"] is None


def test_answers_are_json_without_nan(tmp_path):
    run = write_run(tmp_path / "run", healthy(3))
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "split": "train", "time": 1.0, "total": NaN, "terms/a": 1e999}\n')
    answer = Runs(tmp_path).rows("run")
    assert answer["splits"]["train"]["tags"]["total"][-1] is None
    json.dumps(answer, allow_nan=False)


def test_reading_writes_nothing_into_the_folder(tmp_path):
    run = write_run(tmp_path / "run", healthy())
    before = {path: path.stat().st_mtime_ns for path in [run, *run.iterdir()]}
    Runs(tmp_path).about("run")
    assert {path: path.stat().st_mtime_ns for path in [run, *run.iterdir()]} == before


def test_neither_the_report_nor_the_tab_imports_tensorflow():
    program = (
        "import sys, trainer.report.plugin, trainer.report.__main__; "
        "print([name for name in ('tensorflow', 'keras', 'losses') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
