"""Two workers under the launcher: whatever ends one of them, the run ends as if nothing had."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow as tf

from tests.trainer.said import Said
from trainer.launch.local_cluster import READY_S

ROOT = Path(__file__).resolve().parents[3]
WORKER = Path(__file__).parents[1] / "kill_worker.py"
STEPS = 120
CHIEF_OR_OTHER = [
    pytest.param(0, id="chief", marks=pytest.mark.slow),
    pytest.param(1, id="other", marks=pytest.mark.very_slow),
]
LONGEST = 300  # seconds until a test gives up
# Worker 1 of the first life never comes: it sleeps in place of the program, and worker 0 waits a
# second for it. In the next life they wait for each other as long as it takes.
ABSENT = """
import json, os, runpy, sys, time
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
came, *sys.argv = sys.argv[1:]
came = f"{came}-{index}"
first = not os.path.exists(came)
open(came, "w").close()
if first and index == 1:
    time.sleep(3600)
os.environ["TERMWISE_STARTUP_S"] = "1" if first else "3600"
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Launched(Said):
    """A launcher with two workers that train in a workdir, and all that is written, by line.

    Args:
      workdir: of the run.
      flags: of the launcher.
      program: what is put before the workers' program.
      hold: a line of the workers at which they wait, until `go`.
    """

    def __init__(self, workdir, *flags, program=(), hold=None):
        self._go = workdir.with_name("go")
        job = {"workdir": workdir, "strategy": "multi_worker", "steps": STEPS}
        job |= {"hold": hold, "go": self._go}
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, *program, str(WORKER), json.dumps(job, default=str)]
        process = subprocess.Popen(
            [sys.executable, "-m", "trainer.launch", "--workers=2", *flags, "--", *command],
            env=environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        super().__init__(process, LONGEST)

    def go(self):
        """Lets the workers go on from where they hold."""
        self._go.touch()

    def workers(self):
        """The processes of this life."""
        words = self.when("[launch]", "worker 0 is process").split()
        return [int(words[i + 1]) for i, word in enumerate(words) if word == "process"]

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)  # twice: it kills its workers at once
            time.sleep(0.2)
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(timeout=LONGEST)
            finally:
                self.process.kill()
                self.process.wait()
        self.stop_reading()


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


def check_same(left_by, workdir, undisturbed):
    expected, found = left_by(undisturbed), left_by(workdir)
    last = f"ckpt-{STEPS}"
    assert found["checkpoints"][last] == expected["checkpoints"][last]
    for part in ("rows", "best", "files"):
        assert found[part] == expected[part], part


@pytest.mark.very_slow
@pytest.mark.slow
def test_hosts_draw_different_masks(undisturbed):
    reader = tf.train.load_checkpoint(str(undisturbed / "checkpoints" / f"ckpt-{STEPS}"))
    shapes = reader.get_variable_to_shape_map()
    (kept,) = [reader.get_tensor(name) for name, shape in shapes.items() if shape == [64]]
    # the hosts' mean of the last mask: 0 where both dropped, 2 where none did, 1 where one did
    assert set(kept) == {0.0, 1.0, 2.0}


@pytest.mark.parametrize("worker", CHIEF_OR_OTHER)
def test_a_killed_worker_changes_nothing(worker, launch, undisturbed, left_by, tmp_path):
    run = launch(tmp_path / "run", "--grace_s=1", hold="step 60")
    process = run.workers()[worker]
    assert run.when(f"[worker {worker}] step 60")  # checkpoints have been written
    os.kill(process, signal.SIGKILL)
    run.go()
    assert run.end() == 0, "".join(run.said[-40:])
    said = "".join(run.said)
    assert f"worker {worker} was killed by SIGKILL; all start again: restart 1 of 3" in said
    assert_resumed(tmp_path / "run")
    check_same(left_by, tmp_path / "run", undisturbed)


@pytest.mark.very_slow
@pytest.mark.slow
def test_workers_that_stood_by_take_over_and_change_nothing(launch, undisturbed, left_by, tmp_path):
    run = launch(tmp_path / "run", "--standby", hold="step 60")
    process = run.workers()[1]
    assert run.when("[worker 1] step 60")
    time.sleep(READY_S + 1)  # then they are made ready
    os.kill(process, signal.SIGKILL)
    second = run.workers()
    words = [Path(f"/proc/{worker}/cmdline").read_bytes() for worker in second]
    assert all(b"trainer.launch.standby_process" in word for word in words)
    run.go()
    assert run.end() == 0, "".join(run.said[-40:])
    assert_resumed(tmp_path / "run")
    check_same(left_by, tmp_path / "run", undisturbed)


@pytest.mark.very_slow
@pytest.mark.parametrize("worker", CHIEF_OR_OTHER)
def test_sigterm_to_one_worker_saves_on_all_and_the_run_goes_on(
    worker, launch, undisturbed, left_by, tmp_path
):
    run = launch(tmp_path / "run", "--max_restarts=0", hold="step 30")
    process = run.workers()[worker]
    assert run.when(f"[worker {worker}] step 30")
    os.kill(process, signal.SIGTERM)
    run.go()
    assert run.when("[launch]", "exited with 42: it saved and left; all start again")
    assert run.end() == 0, "".join(run.said[-40:])
    assert_resumed(tmp_path / "run")
    check_same(left_by, tmp_path / "run", undisturbed)


@pytest.mark.very_slow
@pytest.mark.slow
def test_a_worker_that_never_starts_is_not_waited_for_for_ever(
    launch, undisturbed, left_by, tmp_path
):
    flags = ["--grace_s=1", "--max_restarts=1"]
    run = launch(tmp_path / "run", *flags, program=["-c", ABSENT, str(tmp_path / "came")])
    assert run.when("[worker 0]", "not all of the 2 hosts came within 1 s")
    assert run.when("[launch] worker 0 exited with 75; all start again")
    assert run.end() == 0, "".join(run.said[-40:])
    check_same(left_by, tmp_path / "run", undisturbed)


def assert_resumed(workdir):
    starts = (workdir / "starts.jsonl").read_text().splitlines()
    assert [bool(json.loads(line)["resumed_from"]) for line in starts] == [False, True]
