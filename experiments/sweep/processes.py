"""The runs of a sweep as processes: several at once, each with its own folder and log."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from trainer.launch.exit_codes import DONE, INTERRUPTED, MISSED_APART, PREEMPTED, TERMINATED

LOG = "{name}.log"
LOOK_EVERY = 0.2  # seconds


class Stopped(Exception):
    """The sweep was asked to stop; `code` is what its process exits with."""

    def __init__(self, code: int):
        super().__init__(code)
        self.code = code


class Named(Protocol):
    """What is run: its name is that of its log."""

    @property
    def name(self) -> str: ...


One = TypeVar("One", bound=Named)


def run_all(
    runs: Sequence[One],
    command: Callable[[One], list[str]],
    workdir: Path,
    parallel: int,
    say: Callable[[str], None],
) -> dict[str, str]:
    """Runs the settings, so many at once; one that fails does not stop the others.

    Args:
      runs: those that are not finished.
      command: the process of a setting.
      workdir: where the logs are written.
      parallel: at once.
      say: told when a setting begins and ends.
    Returns:
      name -> "done", also where a check of the experiment is missed, or "failed (code)".
    Raises:
      Stopped: SIGINT or SIGTERM; the runs were sent it too, have saved and ended.
    """
    waiting, states = list(runs), {}
    environment = {**os.environ, "TERMWISE_MISSED": str(MISSED_APART)}
    going: dict[str, subprocess.Popen] = {}
    with _noted() as asked:
        while waiting or going:
            while waiting and len(going) < parallel and not asked:
                setting = waiting.pop(0)
                log = workdir / LOG.format(name=setting.name)
                with log.open("ab") as file:  # of its own group: it is stopped by us alone
                    going[setting.name] = subprocess.Popen(
                        command(setting),
                        stdout=file,
                        stderr=file,
                        env=environment,
                        start_new_session=True,
                    )
                say(f"start  {setting.name}")
            if asked:
                _stop(going)
                raise Stopped(INTERRUPTED if asked[0] == signal.SIGINT else TERMINATED)
            for name in [name for name, process in going.items() if process.poll() is not None]:
                code = going.pop(name).returncode
                finished = code in (DONE, MISSED_APART)
                states[name] = "done" if finished else f"failed ({code})"
                say(f"{'done ' if finished else 'FAILED'}  {name}{_why(workdir, name, code)}")
            time.sleep(LOOK_EVERY if going else 0)
    return states


def python(*arguments: str) -> list[str]:
    """The command of a module of this Python."""
    return [sys.executable, "-m", *arguments]


def _why(workdir: Path, name: str, code: int) -> str:
    """The line in which a failed run told its error, or its last one."""
    if code == DONE:
        return ""
    if code == MISSED_APART:
        return "  a check is missed"
    log = workdir / LOG.format(name=name)
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""]
    told = [line for line in lines if line.startswith("error: ")] or lines
    going_on = " (saved; the same command continues it)" if code == PREEMPTED else ""
    return f"  exit code {code}{going_on}: {told[-1][:300]}  [{log}]"


def _stop(going: dict[str, subprocess.Popen]) -> None:
    """Sends SIGTERM, by which a run saves and exits, and waits."""
    for process in going.values():
        process.terminate()
    for process in going.values():
        process.wait()


@contextlib.contextmanager
def _noted() -> Iterator[list[int]]:
    """The signals received meanwhile."""
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
