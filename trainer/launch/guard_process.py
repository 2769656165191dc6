"""The launcher's side of `guard.py`: which processes it is to end when the launcher is killed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("guard.py")


class GuardProcess:
    """A running guard; the end of `with` lets it go.

    Args:
      grace_s: seconds from SIGTERM, on which workers save, to SIGKILL.
    """

    def __init__(self, grace_s: float):
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(PROGRAM), f"{grace_s}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # no signal of the terminal reaches it
            text=True,
            bufsize=1,
        )

    def watch(self, process: int) -> None:
        """From now on a process, and its group, ends with the launcher."""
        self._write(f"+{process}")

    def forget(self, process: int) -> None:
        """The process has ended: its number may be another one's from now on."""
        self._write(f"-{process}")

    def __enter__(self) -> GuardProcess:
        return self

    def __exit__(self, *_) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it was killed: the workers go on unguarded
            self._process.stdin.write(f"{line}\n")
