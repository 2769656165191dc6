"""Two workers under the launcher: whatever ends one of them, the run ends as if nothing had."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tensorflow as tf

ROOT = Path(__file__).resolve().parents[3]
WORKER = Path(__file__).parents[1] / "kill_worker.py"
STEPS = 120
# Worker 1 of the first life never comes: it sleeps in place of the program.
ABSENT = """
import json, os, runpy, sys, time
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
came, *sys.argv = sys.argv[1:]
if index == 1 and not os.path.exists(came):
    open(came, "w").close()
    time.sleep(600)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Launched:
    """A launcher with two workers that train in a workdir, and all that is written, by line."""

    def __init__(self, workdir, *flags, program=()):
        job = {"workdir": str(workdir), "strategy": "multi_worker", "steps": STEPS, "pause": 0.02}
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, *program, str(WORKER), json.dumps(job)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trainer.launch", "--workers=2", *flags, "--", *command],
            env=environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said: list[str] = []
        self._lines: queue.SimpleQueue = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def when(self, *words, seconds=120):
        """The next line that has all the words; None when there is no further line."""
        end = time.monotonic() + seconds
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError("".join(self.said[-40:])) from None
            if line is None:
                return None
            self.said.append(line)
            if all(word in line for word in words):
                return line

    def workers(self):
        """The processes of this life."""
        words = self.when("[launch]", "worker 0 is process").split()
        return [int(words[i + 1]) for i, word in enumerate(words) if word == "process"]

    def end(self):
        self.when("no line has this")
        return self.process.wait(timeout=20)

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)  # twice: it kills its workers at once
            time.sleep(0.2)
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(timeout=20)
            finally:
                self.process.kill()
                self.process.wait()
        self._reader.join(timeout=10)
        self.process.stdout.close()

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)


@pytest.fixture
def launch():
    """Starts a launcher; it and its workers are ended with the test."""
    started = []

    def start(*arguments, **settings):
        started.append(Launched(*arguments, **settings))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The workdir of a run of two workers that nothing happened to."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    run = Launched(workdir)
    try:
        assert run.end() == 0, "".join(run.said[-40:])
    finally:
        run.close()
    return workdir


def reach(run, worker, step):
    """Returns once a worker has said that it is at a step, or beyond."""
    while line := run.when(f"[worker {worker}] step "):
        if int(line.rpartition("step ")[2].split()[0]) >= step:
            return


def check_same(left_by, workdir, undisturbed):
    expected, found = left_by(undisturbed), left_by(workdir)
    last = f"ckpt-{STEPS}"
    assert found["checkpoints"][last] == expected["checkpoints"][last]
    for part in ("rows", "best", "files"):
        assert found[part] == expected[part], part


@pytest.mark.slow
def test_hosts_draw_different_masks(undisturbed):
    reader = tf.train.load_checkpoint(str(undisturbed / "checkpoints" / f"ckpt-{STEPS}"))
    shapes = reader.get_variable_to_shape_map()
    (kept,) = [reader.get_tensor(name) for name, shape in shapes.items() if shape == [64]]
    # the hosts' mean of the last mask: 0 where both dropped, 2 where none did, 1 where one did
    assert set(kept) == {0.0, 1.0, 2.0}


@pytest.mark.slow
@pytest.mark.parametrize("worker", [0, 1], ids=["chief", "other"])
def test_a_killed_worker_changes_nothing(worker, launch, undisturbed, left_by, tmp_path):
    run = launch(tmp_path / "run", "--grace_s=1")
    process = run.workers()[worker]
    reach(run, worker, 60)  # checkpoints have been written
    os.kill(process, signal.SIGKILL)
    assert run.end() == 0, "".join(run.said[-40:])
    said = "".join(run.said)
    assert f"worker {worker} was killed by SIGKILL; all start again: restart 1 of 3" in said
    assert_resumed(tmp_path / "run")
    check_same(left_by, tmp_path / "run", undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("worker", [0, 1], ids=["chief", "other"])
def test_sigterm_to_one_worker_saves_on_all_and_the_run_goes_on(
    worker, launch, undisturbed, left_by, tmp_path
):
    run = launch(tmp_path / "run", "--max_restarts=0")
    process = run.workers()[worker]
    reach(run, worker, 30)
    os.kill(process, signal.SIGTERM)
    assert run.when("[launch]", "exited with 42: it saved and left; all start again")
    assert run.end() == 0, "".join(run.said[-40:])
    assert_resumed(tmp_path / "run")
    check_same(left_by, tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_a_worker_that_never_starts_is_not_waited_for_for_ever(
    launch, undisturbed, left_by, tmp_path
):
    flags = ["--startup_s=20", "--grace_s=1", "--max_restarts=2"]
    run = launch(tmp_path / "run", *flags, program=["-c", ABSENT, str(tmp_path / "came")])
    began = time.monotonic()
    assert run.when("[worker 0]", "not all of the 2 hosts came within 20 s")
    assert run.when("[launch] worker 0 exited with 75; all start again")
    assert time.monotonic() - began < 60
    assert run.end() == 0, "".join(run.said[-40:])
    check_same(left_by, tmp_path / "run", undisturbed)


def assert_resumed(workdir):
    starts = (workdir / "starts.jsonl").read_text().splitlines()
    assert [bool(json.loads(line)["resumed_from"]) for line in starts] == [False, True]
