"""The writers of a fit: each is given the same row, in one order, and all are closed."""

import json

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.ledger import Console, History, Writer, Writers
from trainer.persistence.workdir import Workdir


def row(step, split="train"):
    return {"step": step, "split": split, "time": 2.0, "total": 0.5 * step, "terms/a": 0.5 * step}


@pytest.fixture
def run(workdir):
    """A workdir that is started."""
    started = Workdir(workdir)
    started.start({"seed": 0}, None)
    return started


def steps(run):
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def events(run):
    read = EventAccumulator(str(run.events / "train")).Reload()
    return [event.step for event in read.Scalars("total")]


def test_a_row_goes_to_history_file_tensorboard_and_console(run, capsys):
    history = History()
    writers = Writers(history, Console(), run)
    writers.write(row(1), 2)
    writers.write(row(2, "eval"), 2)
    writers.close(finished=True)
    assert history.rows == [row(1), row(2, "eval")]
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == history.rows
    assert events(run) == [1]
    assert capsys.readouterr().out.splitlines() == [
        "step 1/2  total 0.5000 = a 0.5000 | 0 steps/s | eta ?",
        "eval 2  total 1.000 = a 1.000",
    ]


def test_a_cut_takes_the_rows_back_everywhere_but_on_the_console(run):
    history = History()
    writers = Writers(history, Console(quiet=True), run)
    for step in (1, 2, 3):
        writers.write(row(step), 9)
    writers.cut(1, not_finite=4)
    writers.write(row(2), 9)
    writers.close(finished=False)
    assert [line["step"] for line in history.rows] == steps(run) == events(run) == [1, 2]
    _, restored = (run.path / "starts.jsonl").read_text().splitlines()
    note = {**json.loads(restored), "time": None}
    assert note == {"time": None, "resumed_from": 1, "not_finite": 4}


def test_without_a_workdir_nothing_is_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    writers = Writers(History(), Console(quiet=True), None)
    writers.write(row(1), 2)
    writers.image("cosines", 1, np.zeros([2, 2, 3], np.uint8))
    writers.show()
    writers.flush()
    writers.close(finished=True)
    assert list(tmp_path.iterdir()) == []


def test_where_one_cannot_be_closed_the_others_are(run, monkeypatch):
    writers = Writers(History(), Console(quiet=True), run)
    writers.write(row(1), 2)
    closed = []
    monkeypatch.setattr(run.metrics, "close", lambda: closed.append("metrics.jsonl"))

    def fail(self, finished):
        raise OSError("no space")

    monkeypatch.setattr("trainer.ledger.events.EventWriter.close", fail)
    with pytest.raises(OSError, match="no space"):
        writers.close(finished=False)
    assert closed == ["metrics.jsonl"]


def test_a_writer_must_say_what_it_does_in_each_case():
    class Half(Writer):
        def write(self, row, total_steps):
            pass

    with pytest.raises(TypeError, match="abstract"):
        Half()


def test_progress_that_comes_too_fast_is_left_out_but_for_the_last(capsys):
    console = Console()
    for step in range(1, 201):
        console.write(row(step), 200)
    lines = capsys.readouterr().out.splitlines()
    assert 20 <= len(lines) <= 25
    assert lines[0].startswith("step   1/200") and lines[-1].startswith("step 200/200")


def test_a_quiet_console_prints_nothing_but_warnings(capsys):
    console = Console(quiet=True)
    console.line("hello")
    console.write(row(1), 1)
    console.write(row(1, "eval"), 1)
    console.warning("the disk is slow")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "warning: the disk is slow\n")


def test_tensorboard_shows_the_ledger_of_a_finished_run_as_text(run):
    writers = Writers(History(), Console(quiet=True), run, {"seed": 0})
    for step in (1, 2):
        entries = {"raw/<b>": 0.5 * step, "weight/<b>": 1.0, "terms/<b>": 0.5 * step}
        writers.write(
            {"step": step, "split": "train", "time": 2.0, "total": 0.5 * step} | entries, 2
        )
    writers.close(finished=True)
    (event,) = EventAccumulator(str(run.events)).Reload().Tensors("ledger")
    assert event.tensor_proto.string_val[0].decode().splitlines() == [
        "|term|raw|weight|weighted|share|first|last|",
        "|---|---|---|---|---|---|---|",
        r"|\<b\>|1|1|1|100.0%|0.5|1|",
        "|total|||1|100%|0.5|1|",
    ]
