"""Workers that were made ready: told their place at the next start, and never left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.launch import standby as standby_module
from trainer.launch.standby import Standby, standby_command

ROOT = Path(__file__).resolve().parents[3]
# stands for what is imported: it takes no time, and says that it was
READY = """
import sys
from trainer.launch import standby_process
standby_process.HEAVY = ("colorsys",)
standby_process.main(sys.argv[1:])
"""
WORKER = """
import json, os, sys
print(json.dumps([os.environ["TF_CONFIG"], sys.argv[1:], "colorsys" in sys.modules, __name__]))
print(sys.stdin.read() == "")
"""


class Guard:
    """What a GuardProcess is told."""

    def __init__(self):
        self.watched = set()

    def watch(self, process):
        self.watched.add(process)

    def forget(self, process):
        self.watched.remove(process)


@pytest.fixture
def standby(tmp_path, monkeypatch):
    """Of one worker, a script; the launcher's package is imported without TensorFlow."""
    (tmp_path / "ready.py").write_text(READY)
    (tmp_path / "worker.py").write_text(WORKER)
    monkeypatch.setattr(standby_module, "PROGRAM", "ready")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = [sys.executable, str(tmp_path / "worker.py"), "--steps=5"]
    with Standby(command, [environment], Guard()) as standby:
        yield standby, environment


def test_one_that_was_made_ready_becomes_the_worker(standby):
    standby, environment = standby
    assert standby.take(0, environment) is None
    standby.prepare()
    standby.prepare()  # nothing is missing
    process = standby.take(0, {**environment, "TF_CONFIG": "place"})
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()
    first, second = out.decode().splitlines()
    assert json.loads(first) == ["place", ["--steps=5"], True, "__main__"]
    assert second == "True"  # its input is empty
    assert standby.take(0, environment) is None


def test_one_that_was_killed_is_not_taken(standby):
    standby, environment = standby
    standby.prepare()
    (process,) = standby._guard.watched
    os.kill(process, 9)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    assert standby.take(0, {**environment, "TF_CONFIG": "place"}) is None
    assert not standby._guard.watched


def test_what_is_not_needed_any_more_is_ended(standby):
    standby, _ = standby
    standby.prepare()
    (process,) = standby._guard.watched
    standby.__exit__()
    assert not standby._guard.watched and not Path(f"/proc/{process}").exists()


@pytest.mark.parametrize(
    "command, expected",
    [
        (
            ["python3", "-m", "a.b", "-m"],
            ["python3", "-m", standby_module.PROGRAM, "-m", "a.b", "-m"],
        ),
        (["/x/python3.11", "-u", "-X", "dev", "a.py"], None),
    ],
)
def test_the_interpreters_flags_stay_in_front(command, expected):
    expected = expected or [*command[:4], "-m", standby_module.PROGRAM, "a.py"]
    assert standby_command(command) == expected


@pytest.mark.parametrize("command", [["bash", "a.sh"], ["python", "-c", "1"], ["python", "-m"]])
def test_another_program_is_refused(command):
    with pytest.raises(ValueError, match=r"^--standby: .* or leave --standby out"):
        standby_command(command)


def test_a_program_that_cannot_be_made_ready_is_an_error_of_the_launcher():
    flags = ["--workers=1", "--standby", "--", "sh", "-c", "true"]
    done = subprocess.run(
        [sys.executable, "-m", "trainer.launch", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 2 and done.stderr.startswith("error: --standby: 'sh -c true' is no")
