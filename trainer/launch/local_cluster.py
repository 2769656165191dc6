"""One life of the local workers of `trainer.launch`: started together, watched until all ended."""

from __future__ import annotations

import contextlib
import json
import math
import queue
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from trainer.launch.exit_codes import DONE, MISSED_APART, PEER_LOST, PREEMPTED
from trainer.launch.guard_process import GuardProcess
from trainer.launch.standby import Standby
from trainer.launch.variables import PEER_GONE
from trainer.launch.worker_process import WorkerProcess, write_line

READY_S = 10.0  # after which the next workers are made ready, when these have started
SETTLE_S = 0.2  # deaths so close together are one event
PEER_SETTLE_S = 5.0  # a worker that lost its peer may be gone before the peer itself is


class LocalCluster:
    """Workers that end together: when one fails, the others are told to stop, then made to.

    SIGTERM lets them save; SIGKILL follows `grace_s` later. A signal that the launcher is given
    goes to the workers once; a further SIGINT kills them at once.

    Args:
      command: list of str, what each worker runs.
      environments: one dict per worker, without TF_CONFIG, which is added.
      addresses: list of str, one "host:port" per worker.
      grace_s: seconds from SIGTERM to SIGKILL.
      events: a `queue.SimpleQueue`; ("signal", number) are put into it from outside, and
        ("regroup",) where all are to save and leave, to be started again in another number.
      guard: ends the workers when the launcher itself is killed.
      start: starts a worker, called as `WorkerProcess` is; one elsewhere has its methods too.
      standby: processes that were made ready to be workers; those are taken first.
    Attributes:
      codes: dict index -> exit code, of all workers once `run` has returned.
      signal: the first signal that the launcher was given in this life, or None.
    Raises:
      OSError: the command cannot be started; no worker is left running.
    """

    def __init__(
        self,
        command: list[str],
        environments: list[dict[str, str]],
        addresses: list[str],
        grace_s: float,
        events: queue.SimpleQueue,
        guard: GuardProcess,
        start: Callable[..., WorkerProcess] = WorkerProcess,
        standby: Standby | None = None,
    ):
        self.codes: dict[int, int] = {}
        self.signal: int | None = None
        self._grace_s = grace_s
        self._events = events
        self._guard = guard
        self._told = False  # whether the workers were sent a signal
        self._due = math.inf  # when the next, harder signal is sent
        self._standby = standby
        self._ready_due = math.inf if standby is None else after(READY_S)
        self._first: dict[int, int] = {}  # the codes of those that ended badly and untold
        self.workers: list[WorkerProcess] = []
        self._folder = tempfile.TemporaryDirectory(prefix="termwise-")
        self._peer_gone = Path(self._folder.name, "peer-gone")  # once it is there
        try:
            for index, environment in enumerate(environments):
                task = {"type": "worker", "index": index}
                config = json.dumps({"cluster": {"worker": addresses}, "task": task})
                more = {"TF_CONFIG": config, PEER_GONE: str(self._peer_gone)}
                environment = {**environment, **more}
                ready = {} if standby is None else {"process": standby.take(index, environment)}
                worker = start(index, command, environment, self._report, **ready)
                guard.watch(worker.process.pid)
                self.workers.append(worker)
        except OSError:
            for worker in self.workers:
                worker.kill()
                guard.forget(worker.process.pid)
            self._folder.cleanup()
            raise

    def run(self) -> int | None:
        """Watches the workers until all have ended; gives the index of the one that ended it.

        Returns:
          the worker to blame: one that died before one that lost a peer, before one that saved
          and left; None where all were done or all were told to stop.
        """
        while len(self.codes) < len(self.workers):
            event = next_event(self._events, min(self._due, self._ready_due))
            if event is None and self._ready_due <= self._due:
                self._ready_due = math.inf
                if self._standby is not None and not self._told:
                    self._standby.prepare()
            elif event is None:
                self._be_firmer()
            elif event[0] == "signal":
                self._pass_on(event[1])
            elif event[0] == "regroup":
                if not self._told:
                    self._tell(signal.SIGTERM)
            else:
                self._note(*event[1:])
        self._folder.cleanup()
        for consequences in ((PEER_LOST, PREEMPTED), (PREEMPTED,), ()):
            for index, code in self._first.items():
                if code not in consequences:
                    return index
        return None

    def _note(self, index: int, code: int) -> None:
        """Takes down how a worker ended, and when the others are to follow."""
        self.codes[index] = code
        self._guard.forget(self.workers[index].process.pid)
        if code != DONE and not self._told:
            self._first[index] = code
            # those that save need the time for it, and an end that explains the others may follow
            patient = {
                PREEMPTED: self._grace_s,
                MISSED_APART: self._grace_s,  # the others check too, and one notes it
                PEER_LOST: PEER_SETTLE_S,
            }
            wait = patient.get(code, SETTLE_S)
            if code not in (PREEMPTED, MISSED_APART):  # the others have nobody to save with
                self._peer_gone.touch()
            self._due = min(self._due, after(min(wait, self._grace_s)))

    def _pass_on(self, number: int) -> None:
        """Gives the workers a signal that the launcher was given; only the first of them."""
        if not self._told:
            self._tell(number)
        elif self.signal is not None and number == signal.SIGINT:
            self._kill("killed at once")
        self.signal = self.signal or number

    def _be_firmer(self) -> None:
        """Tells the workers to stop; kills those that were told already."""
        if self._told:
            self._kill(f"killed, {self._grace_s:g} s after it was told to stop")
        else:
            self._tell(signal.SIGTERM)

    def _tell(self, number: int) -> None:
        self._told, self._due = True, after(self._grace_s)
        for worker in self._running():
            worker.send(number)

    def _kill(self, why: str) -> None:
        self._due = math.inf
        for worker in self._running():
            say(f"worker {worker.index}: {why}")
            worker.kill()

    def _running(self) -> list[WorkerProcess]:
        return [worker for worker in self.workers if worker.code is None]

    def _report(self, index: int, code: int) -> None:
        self._events.put(("end", index, code))


def free_addresses(number: int, used: set[int]) -> list[str]:
    """Addresses on loopback whose ports are free now and not in `used`, to which they are added."""
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < number:  # all stay open until the last one is, so that none is twice
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            if (port := listener.getsockname()[1]) not in used:
                ports.append(port)
    used.update(ports)
    return [f"127.0.0.1:{port}" for port in ports]


def next_event(events: queue.SimpleQueue, due: float):
    """The next event, or None when it is `due`, a time of the monotonic clock."""
    try:
        return events.get(timeout=None if due == math.inf else max(0.0, due - time.monotonic()))
    except queue.Empty:
        return None


def after(seconds: float) -> float:
    """The time of the monotonic clock so many seconds from now."""
    return time.monotonic() + seconds


def say(text: str) -> None:
    """Writes a line that no worker has said."""
    write_line(2, f"[launch] {text}".encode())
