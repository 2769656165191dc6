"""The launcher's side of `standby_process.py`: a process for each worker, for its next life."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

from trainer.launch.guard_process import GuardProcess

PROGRAM = "trainer.launch.standby_process"
_PYTHON = re.compile(r"python(3(\.\d+)?)?")
_WITH_VALUE = ("-X", "-W")  # flags of the interpreter that take the next word


class Standby:
    """Processes that have imported TensorFlow and wait, one for each worker.

    Args:
      command: list of str, what each worker runs.
      environments: one dict per worker.
      guard: ends them when the launcher is killed.
    Raises:
      ValueError: the command is no Python program.
      OSError: it cannot be started.
    """

    def __init__(self, command: list[str], environments: list[dict[str, str]], guard: GuardProcess):
        self._command, self._environments = standby_command(command), environments
        self._guard = guard
        self._waiting: dict[int, subprocess.Popen] = {}

    def prepare(self) -> None:
        """Starts those that are missing."""
        for index, environment in enumerate(self._environments):
            if index not in self._waiting:
                process = start_process(self._command, environment, stdin=subprocess.PIPE)
                self._guard.watch(process.pid)
                self._waiting[index] = process

    def take(self, index: int, environment: dict[str, str]) -> subprocess.Popen | None:
        """The process that waits to be worker `index`, told its place; None where there is none.

        Args:
          environment: the whole one of the worker.
        """
        process = self._waiting.pop(index, None)
        if process is None:
            return None
        before = self._environments[index]
        news = {key: value for key, value in environment.items() if before.get(key) != value}
        assert process.stdin is not None
        try:
            with process.stdin:
                process.stdin.write(f"{json.dumps(news)}\n".encode())
        except BrokenPipeError:  # it was killed
            self._forget(process)
            return None
        process.stdin = None
        return process

    def __enter__(self) -> Standby:
        return self

    def __exit__(self, *_) -> None:
        while self._waiting:
            process = self._waiting.popitem()[1]
            process.send_signal(signal.SIGKILL)
            self._forget(process)

    def _forget(self, process: subprocess.Popen) -> None:
        process.wait()
        self._guard.forget(process.pid)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def start_process(
    command: list[str], environment: dict[str, str], stdin: int = subprocess.DEVNULL
) -> subprocess.Popen:
    """Starts a worker in a session of its own; its lines can be read from it."""
    return subprocess.Popen(
        command,
        env=environment,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def standby_command(command: list[str]) -> list[str]:
    """What starts a process that later becomes a command.

    Raises:
      ValueError: that is no `python -m package.module ...` or `python script.py ...`.

    Example:
      >>> standby_command(["python", "-u", "train.py", "--steps=5"])
      ['python', '-u', '-m', 'trainer.launch.standby_process', 'train.py', '--steps=5']
    """
    first = 1
    while first < len(command) and command[first].startswith("-") and command[first] != "-m":
        if command[first] in ("-c", "-"):
            first = len(command)
        first += 2 if first < len(command) and command[first] in _WITH_VALUE else 1
    left = command[first:]
    if not _PYTHON.fullmatch(Path(command[0]).name) or len(left) < 1 + (left[:1] == ["-m"]):
        raise ValueError(
            f"--standby: {' '.join(command[:3])!r} is no program of Python that can be made ready. "
            "Give python -m package.module or python script.py, or leave --standby out."
        )
    return [*command[:first], "-m", PROGRAM, *left]
