"""SIGTERM and SIGINT: the run saves, says so by its exit code, and goes on as if never stopped."""

import json
import os
import signal

import keras
import numpy as np
import pytest

from trainer import Preempted, Trainer
from trainer.fitting.preemption import Signals, stop


class Signal(keras.callbacks.Callback):
    """Sends this process a signal after a step, and notes how signals are handled in between."""

    def __init__(self, number=None, step=None):
        super().__init__()
        self.number, self.step = number, step
        self.handlers = None

    def on_train_batch_end(self, batch, logs=None):
        self.handlers = handlers()
        if self.number is not None and batch + 1 == self.step:
            os.kill(os.getpid(), self.number)


def at(event, number=signal.SIGTERM):
    """A callback that sends this process a signal at the first event of a name."""

    class At(keras.callbacks.Callback):
        sent = False

    def send(self, *_, **__):
        if not self.sent:
            self.sent = True
            os.kill(os.getpid(), number)

    setattr(At, event, send)
    return At()


@pytest.fixture
def handed_on():
    """The signals that reach this process's own handler of SIGTERM."""
    numbers = []
    before = signal.signal(signal.SIGTERM, lambda number, _: numbers.append(number))
    yield numbers
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(autouse=True)
def pythons_own_handler():
    """SIGINT as Python has it, also where the tests were started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def handlers():
    return signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)


def fit(workdir, *callbacks, **settings):
    """Trains a line to step 45."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    one = Trainer(model, optimizer="adam", loss="mse", workdir=workdir)
    x = np.random.default_rng(0).normal(size=(20, 2)).astype("float32")
    given = {"steps": 45, "log_every": 10, "batch_size": 4, "steps_per_loop": 5, "verbose": False}
    one.fit((x, x[:, :1]), callbacks=callbacks, **{**given, **settings})
    return one.model.get_weights()


# In one process.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_says_what_stopped_it_where_and_what_is_kept(number, workdir):
    kind = Preempted if number == signal.SIGTERM else KeyboardInterrupt
    with pytest.raises(kind) as stopped:
        fit(workdir, Signal(number, 15))
    kept = workdir / "checkpoints" / "ckpt-15"
    assert str(stopped.value) == (
        f"stopped by {number.name} at step 15 | kept: {kept} | the same command continues"
    )
    assert kept.with_suffix(".json").exists()
    if kind is Preempted:
        assert stopped.value.code == 42


def test_what_continues_after_a_stop_ends_with_the_same_weights(workdir):
    expected = fit(None)
    with pytest.raises(Preempted):
        fit(workdir, Signal(signal.SIGTERM, 25))
    for mine, theirs in zip(fit(workdir), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("end", ["done", "stopped", "failed"])
def test_a_fit_puts_the_handlers_back(end, workdir):
    before, during = handlers(), Signal()
    if end == "done":
        fit(workdir, during)
    elif end == "stopped":
        during = Signal(signal.SIGTERM, 15)
        with pytest.raises(Preempted):
            fit(workdir, during)
    else:

        class Fails(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                raise RuntimeError("a bug")

        with pytest.raises(RuntimeError, match="a bug"):
            fit(workdir, during, Fails())
    assert handlers() == before
    assert during.handlers is not None and during.handlers[0] != before[0]


def test_a_run_that_keeps_nothing_leaves_the_handlers_alone():
    before, during = handlers(), Signal()
    fit(None, during)
    assert during.handlers == before
    with pytest.raises(KeyboardInterrupt) as interrupted:
        fit(None, Signal(signal.SIGINT, 15))
    assert not interrupted.value.args  # Python's own


def test_a_checkpoint_made_by_a_stop_is_not_among_the_best(workdir, tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 2)).astype("float32")
    settings = {
        "validation_data": (x, x[:, :1]),
        "validate_every": 30,
        "checkpoint_every": 20,
        "keep_best": 2,
    }
    fit(tmp_path / "whole", **settings)
    with pytest.raises(Preempted):
        fit(workdir, Signal(signal.SIGTERM, 30), **settings)  # evaluated, but no checkpoint is due
    fit(workdir, **settings)
    record = "checkpoints/best.json"
    assert (workdir / record).read_text() == (tmp_path / "whole" / record).read_text()


VALIDATED = {"validation_data": (np.ones((4, 2), "float32"), np.ones((4, 1), "float32"))}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("event", ["on_epoch_end", "on_train_end"])
def test_a_signal_in_the_last_call_or_after_it_ends_the_run_that_is_done(event, number, workdir):
    kind = Preempted if number == signal.SIGTERM else KeyboardInterrupt
    with pytest.raises(kind, match=f"stopped by {number.name} at step 45 . kept: .*ckpt-45"):
        fit(workdir, at(event, number), **VALIDATED)
    assert json.loads((workdir / "DONE.json").read_text())["step"] == 45
    rows = (workdir / "metrics.jsonl").read_text()
    fit(workdir, **VALIDATED)  # nothing is left to do
    assert (workdir / "metrics.jsonl").read_text() == rows


@pytest.mark.parametrize("event", ["on_test_begin", "on_test_end", "on_epoch_end"])
def test_a_signal_in_a_validation_stops_before_the_next_step(event, workdir):
    expected = fit(None, validate_every=20, **VALIDATED)
    with pytest.raises(Preempted, match="at step 20 "):
        fit(workdir, at(event), validate_every=20, **VALIDATED)
    assert not (workdir / "DONE.json").exists()
    resumed = fit(workdir, validate_every=20, **VALIDATED)
    for mine, theirs in zip(resumed, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_signal_that_nobody_ended_for_is_handed_on(handed_on):
    with Signals(noted=True) as signals:
        signal.raise_signal(signal.SIGTERM)
        assert signals.received == signal.SIGTERM and handed_on == []
    assert handed_on == [signal.SIGTERM]
    with pytest.raises(RuntimeError, match="a bug"), Signals(noted=True):
        signal.raise_signal(signal.SIGTERM)
        raise RuntimeError("a bug")
    assert handed_on == [signal.SIGTERM] * 2


def test_a_signal_that_ended_a_fit_is_not_handed_on(handed_on, workdir):
    with pytest.raises(Preempted), Signals(noted=True) as signals:
        signal.raise_signal(signal.SIGTERM)
        stop(signals.received, 3, "ckpt-3")
    with pytest.raises(Preempted):
        fit(workdir, Signal(signal.SIGTERM, 15))
    assert handed_on == []


# In a process of its own.


@pytest.mark.slow
@pytest.mark.parametrize("data", ["arrays", "pipeline"])
def test_a_run_stopped_by_both_signals_ends_as_the_undisturbed_one(
    data, forked_runs, left_by, tmp_path
):
    job = {"data": data, "steps": 120}
    forked_runs.finish(**job, workdir=tmp_path / "whole" / "run")
    workdir, said = tmp_path / "stopped" / "run", tmp_path / "said"
    run = forked_runs.start(**job, workdir=workdir, hold="step 33", stderr=said)
    assert run.when("step 33")
    assert run.send(signal.SIGTERM).go().end() == 42
    assert "stopped by SIGTERM at step 33 " in said.read_text()
    assert "Traceback" not in said.read_text()
    run = forked_runs.start(**job, workdir=workdir, hold="step 66", stderr=said)
    assert run.when("step 66")
    assert run.send(signal.SIGINT).go().end() == -signal.SIGINT  # 130 for a shell
    assert "stopped by SIGINT at step 66 " in said.read_text()
    forked_runs.finish(**job, workdir=workdir)

    expected, found = left_by(tmp_path / "whole" / "run"), left_by(workdir)
    assert found["checkpoints"]["ckpt-120"] == expected["checkpoints"]["ckpt-120"]
    for part in ("rows", "best", "config", "files"):
        assert found[part] == expected[part], part


ENDLESS = {"steps": 10**8, "log_every": 10**8, "validate_every": 10**8, "validation_data": None}


@pytest.mark.slow
def test_a_second_sigint_stops_at_once_and_leaves_the_last_checkpoint(forked_runs, tmp_path):
    job = {**ENDLESS, "workdir": tmp_path / "run", "keep_best": 0}
    forked_runs.finish(**{**job, "steps": 20})
    run = forked_runs.start(**job, checkpoint_every=None, steps_per_loop=10**8)
    assert run.when("call from 20")  # which takes hours
    run.works(0.5)  # and has begun
    run.send(signal.SIGINT)
    assert run.send(signal.SIGINT).end() in (130, -signal.SIGINT)
    markers = [path.name for path in (tmp_path / "run" / "checkpoints").glob("ckpt-*.json")]
    assert markers == ["ckpt-20.json"]
    forked_runs.finish(**{**job, "steps": 40})


def test_sigterm_ends_a_run_without_cadences(forked_runs, tmp_path):
    job = {**ENDLESS, "checkpoint_every": None, "keep_best": 0, "workdir": tmp_path / "run"}
    run = forked_runs.start(**job, steps_per_loop=16)
    assert run.when("step", 4)
    assert run.send(signal.SIGTERM).end() == 42
    (marker,) = (tmp_path / "run" / "checkpoints").glob("ckpt-*.json")
    assert int(marker.stem.removeprefix("ckpt-")) >= 16


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_keeps_nothing_ends_as_any_program(number, forked_runs, tmp_path):
    run = forked_runs.start(**ENDLESS, keep_best=0, checkpoint_every=None, stderr=tmp_path / "said")
    run.when("step", 2)
    assert run.send(number).end() == -number
    assert "stopped by" not in (tmp_path / "said").read_text()


def test_a_host_that_writes_nothing_says_who_kept_the_checkpoint():
    with pytest.raises(SystemExit, match=r"at step 7 \| kept: by the chief \| the same command"):
        stop(signal.SIGTERM, 7, "an/older/ckpt-5", chief=False)
    with pytest.raises(SystemExit, match=r"kept: ckpt-7 \|"):
        stop(signal.SIGTERM, 7, "ckpt-7")


def test_sigterm_where_the_launcher_says_that_a_peer_is_gone_ends_at_once(forked_runs, tmp_path):
    job = {**ENDLESS, "workdir": tmp_path / "run", "keep_best": 0, "stderr": tmp_path / "said"}
    gone = {"TERMWISE_PEER_GONE": str(tmp_path / "gone")}
    forked_runs.finish(**{**job, "steps": 20})
    run = forked_runs.start(**job, checkpoint_every=None, steps_per_loop=10**8, disk=gone)
    assert run.when("call from 20")  # which takes hours, as one would that waits for the peer
    (tmp_path / "gone").touch()
    assert run.send(signal.SIGTERM).end() == 75
    assert "error: another host is gone, as the launcher says. Start" in job["stderr"].read_text()
    assert (tmp_path / "run" / "checkpoints" / "ckpt-20.json").exists()
