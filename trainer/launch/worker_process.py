"""One local worker of `trainer.launch`: a process in a session of its own, its lines, its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from typing import IO

from trainer.launch.standby import start_process

LONGEST_LINE = 1 << 16  # bytes; a longer line of a worker is cut in several


class WorkerProcess:
    """A running worker. Its lines are written as `[worker 0] ...` to where it wrote them.

    Its children are in its process group and end with it: what is left of the group when the
    worker has ended is killed.

    Args:
      index: int, its place in the cluster.
      command: list of str, what is run.
      environment: dict, its whole environment.
      report: called with (index, code) from another thread, once the worker has ended and its
        lines are written; a negative code is the signal that killed it.
      write: takes a file descriptor, 1 or 2, and a line.
      process: one that was made ready and told its place, taken instead of a new one.
    Raises:
      OSError: the command cannot be started.
    """

    def __init__(
        self,
        index: int,
        command: list[str],
        environment: dict[str, str],
        report: Callable[[int, int], None],
        write: Callable[[int, bytes], None] | None = None,
        process: subprocess.Popen | None = None,
    ):
        self.index = index
        self._write = write or write_line
        self.code: int | None = None
        self._report = report
        self.process = process or start_process(command, environment)
        self._readers = [
            threading.Thread(target=self._forward, args=(pipe, out), daemon=True)
            for pipe, out in ((self.process.stdout, 1), (self.process.stderr, 2))
        ]
        for thread in (*self._readers, threading.Thread(target=self._watch, daemon=True)):
            thread.start()

    def send(self, number: int) -> None:
        """Gives the worker a signal, if it still runs; its children get none."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def kill(self) -> None:
        """Ends the worker and its children at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def _watch(self) -> None:
        """Waits for the end of the worker, ends its children, and reports."""
        if hasattr(os, "waitid"):
            # A process that has ended but is not waited for keeps its number, so that the
            # group of that number cannot be somebody else's.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        else:  # macOS
            self.process.wait()
        self.kill()
        self.code = self.process.wait()
        for reader in self._readers:
            reader.join(timeout=1)  # a child that left the group may hold the pipe for ever
        self._report(self.index, self.code)

    def _forward(self, pipe: IO[bytes], out: int) -> None:
        """Writes the lines of a pipe, each with the worker's name, to a file descriptor."""
        label = f"[worker {self.index}] ".encode()
        with pipe:
            for line in iter(lambda: pipe.readline(LONGEST_LINE), b""):
                self._write(out, label + line.removesuffix(b"\n"))


_writing = threading.Lock()


def write_line(out: int, line: bytes) -> None:
    """Writes one line to a file descriptor, whole; what nobody reads any more is dropped."""
    rest = line + b"\n"
    with _writing, contextlib.suppress(OSError):
        while rest:
            rest = rest[os.write(out, rest) :]


def describe_ending(index: int, code: int) -> str:
    """How a worker ended, in words.

    Example:
      >>> describe_ending(1, -9)
      'worker 1 was killed by SIGKILL'
      >>> describe_ending(0, 7)
      'worker 0 exited with 7'
    """
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:  # a real-time signal has a number only
            name = f"signal {-code}"
        return f"worker {index} was killed by {name}"
    return f"worker {index} exited with {code}"
