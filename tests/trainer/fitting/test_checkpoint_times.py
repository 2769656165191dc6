"""`checkpoint_every="auto"`: when they are saved follows what they cost, and changes nothing."""

import json
import signal

import keras
import numpy as np
import pytest

from trainer import Trainer
from trainer.fitting import plan
from trainer.fitting.plan import Timing, failure_seconds, seconds_between

X = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
Y = X[:, :1] ** 2
NOTE = {"every_s": 59.5, "every_steps": 300, "cost_s": 0.5, "restart_s": 0.0}


def start(hour, **more):
    return {"argv": [], "time": f"2026-01-01T{hour:02}:00:00+0000", **more}


def test_the_time_between_checkpoints_is_that_of_daly():
    assert seconds_between(cost=0.5, failure=3600) == pytest.approx(60 - 0.5)  # sqrt(2*0.5*3600)
    assert seconds_between(cost=0.5, failure=3500, restart=100) == pytest.approx(60 - 0.5)
    assert seconds_between(cost=30, failure=600) == pytest.approx(1000)  # 3 % of the time
    assert seconds_between(cost=20, failure=1e9) == 1800


def test_failures_move_the_time_that_is_taken_to_lie_between_them():
    assert failure_seconds([]) == failure_seconds([start(0)]) == 3600
    assert failure_seconds([start(0), start(1)]) == pytest.approx(3600)  # (360 + 3600) / 1.1
    at_once = failure_seconds([start(0), {"resumed_from": 3}, start(0), start(0)])
    assert at_once == pytest.approx(360 / 2.1)
    assert failure_seconds([start(0), start(1, was_done=True)]) == 3600
    assert failure_seconds([start(2), start(1)]) == pytest.approx(360 / 1.1)  # a clock set back
    late = failure_seconds([start(0), {"argv": [], "time": "late"}, start(5)])
    assert late == pytest.approx((360 + 5 * 3600) / 1.1)


def test_the_environment_may_set_it(monkeypatch):
    monkeypatch.setenv("TERMWISE_FAILURE_S", "90")
    assert failure_seconds([start(0), start(0)]) == 90
    monkeypatch.setenv("TERMWISE_FAILURE_S", "often")
    with pytest.raises(ValueError, match="TERMWISE_FAILURE_S='often': give the seconds between"):
        failure_seconds([])


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_a_checkpoint_is_due_when_what_it_costs_makes_it_pay():
    clock = Clock()
    timing = Timing(None, 3600.0, clock)
    clock.now += 20.0  # restored, traced
    timing.took(steps=1, seconds=2.0)
    timing.took(steps=40, seconds=2.0)
    assert timing.due(41) == 41 + 100  # after 5 seconds of 20 steps each, to see what one costs
    clock.now += 4.0
    assert timing.due(121) == 121 + 20
    clock.now += 60.0  # a call that took long
    assert timing.due(121) == 122
    timing.begin()
    timing.saved(cost=0.5)
    between = (2 * 0.5 * (3600 + 20)) ** 0.5 - 0.5
    assert timing.new and timing.due(122) == 122 + round(between * 20)
    note, sentence = timing.told()
    assert not timing.new and note["cost_s"] == 0.5 and note["restart_s"] == 20.0
    assert note["every_s"] == pytest.approx(between, abs=1e-3)
    assert "checkpoints every 59.7 s, about 1193 steps (measured: one costs 0.5 s" in sentence


def test_a_start_takes_what_was_noted_until_it_has_measured():
    timing = Timing(NOTE, 3600.0, Clock())
    assert timing.known and timing.seconds == pytest.approx(59.5)
    assert "(as noted before: one costs 0.5 s" in timing.told()[1]
    timing.saved(cost=2.0)
    assert timing.new and timing.seconds == pytest.approx(120 - 2)
    for edited in ({"cost_s": "much", "restart_s": 1}, {"cost_s": -1, "restart_s": 1}, [], None):
        assert not Timing(edited, 3600.0).known


def make(workdir, **more):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.2), keras.layers.Dense(1)])
    return Trainer(model, optimizer="adam", loss="mse", workdir=workdir, **more)


def fit(trainer, every, steps=60):
    every = {"checkpoint_every": every, "log_every": 7, "steps_per_loop": 3}
    more = {"validation_data": (X, Y), "validate_every": 20, "keep_best": 2, "keep_last": None}
    return trainer.fit((X, Y), steps=steps, batch_size=8, verbose=False, **every, **more)


def weights(trainer):
    return [value.tobytes() for value in trainer.model.get_weights()]


@pytest.fixture
def often(monkeypatch):
    """Checkpoints are saved whenever they may be."""
    monkeypatch.setattr(plan, "FIRST_S", 0.0)
    monkeypatch.setattr(plan, "LONGEST_S", 0.0)
    monkeypatch.setattr(plan, "LARGEST_SHARE", 1.0)


def saved(workdir):
    return {int(file.stem[5:]) for file in (workdir / "checkpoints").glob("ckpt-*.json")}


def notes(workdir):
    lines = (workdir / "starts.jsonl").read_text().splitlines()
    return [note["checkpoints"] for line in lines if "checkpoints" in (note := json.loads(line))]


def test_it_changes_no_number_and_not_what_is_best(often, tmp_path):
    numbered, auto = make(tmp_path / "a"), make(tmp_path / "b")
    rows = [fit(numbered, 20).rows, fit(auto, "auto").rows]
    own = ("time", "steps_per_second", "examples_per_second")
    kept = [[{k: v for k, v in row.items() if k not in own} for row in each] for each in rows]
    assert kept[0] == kept[1]
    assert weights(numbered) == weights(auto)
    assert saved(tmp_path / "a") == {20, 40, 60} < saved(tmp_path / "b")
    best = [tmp_path / run / "checkpoints" / "best.json" for run in "ab"]
    assert best[0].read_text() == best[1].read_text()


def test_what_was_chosen_is_noted_and_a_resumed_run_begins_with_it(often, tmp_path, capsys):
    fit(make(tmp_path), "auto", 30)
    (noted,) = notes(tmp_path)
    assert noted["cost_s"] > 0 and noted["every_steps"] >= 1
    resumed = make(tmp_path)
    resumed.fit((X, Y), steps=60, batch_size=8, checkpoint_every="auto", steps_per_loop=3)
    assert "(as noted before: one costs" in capsys.readouterr().out
    assert notes(tmp_path)[1]["cost_s"] == noted["cost_s"]


def test_what_cannot_be_meant_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"checkpoint_every='often': give a whole .* or 'auto'"):
        fit(make(None), "often")
    with pytest.raises(ValueError, match="'auto' goes with on_nonfinite='raise' or 'skip'"):
        fit(make(tmp_path / "run", on_nonfinite="restore"), "auto")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_killed_where_the_clock_has_put_a_checkpoint_goes_on_exactly(
    forked_runs, left_by, tmp_path
):
    job = {"steps": 90, "checkpoint_every": "auto", "often": True, "steps_per_loop": 4}
    forked_runs.finish(**job, workdir=tmp_path / "whole")
    for _ in range(2):
        run = forked_runs.start(**job, workdir=tmp_path / "killed")
        assert run.when("step", 6)
        assert run.send(signal.SIGKILL).end() == -9
    forked_runs.finish(**job, workdir=tmp_path / "killed")
    expected, found = left_by(tmp_path / "whole"), left_by(tmp_path / "killed")
    assert found["checkpoints"]["ckpt-90"] == expected["checkpoints"]["ckpt-90"]
    for part in ("rows", "best", "config", "files"):
        assert found[part] == expected[part], part
