"""The actor on a node: starts a worker there, and tells what it says and how it ends."""

from __future__ import annotations

import os
import queue
import socket

from trainer.launch.guard_process import GuardProcess
from trainer.launch.worker_process import WorkerProcess

POLL_S = 1.0  # how long one call waits for something to tell
MOST_EVENTS = 1000  # told by one call


class NodeWorker:
    """Runs on a node, as an actor whose methods may run at the same time.

    When the actor is killed, its guard gives the worker SIGTERM, and after the grace SIGKILL.

    Args:
      grace_s: seconds from SIGTERM to SIGKILL.
    """

    def __init__(self, grace_s: float):
        self._guard = GuardProcess(grace_s).__enter__()
        self._events: queue.SimpleQueue = queue.SimpleQueue()
        self._worker: WorkerProcess | None = None
        self._used: set[int] = set()

    def address(self) -> str:
        """This node's "host:port", with a port that is free and was not given before."""
        import ray

        host = ray.util.get_node_ip_address()
        while True:
            with socket.socket() as listener:
                listener.bind(("", 0))
                port = listener.getsockname()[1]
            if port not in self._used:
                self._used.add(port)
                return f"{host}:{port}"

    def start(self, index: int, command: list[str], variables: dict[str, str], folder: str) -> str:
        """Starts a worker; gives "", or why it cannot be started.

        Args:
          index: its place in the cluster.
          command: what it runs.
          variables: what is added to the environment of the node.
          folder: where it runs, where the node has such a folder.
        """
        if os.path.isdir(folder):
            os.chdir(folder)
        events = self._events = queue.SimpleQueue()  # what the one before left is not told
        try:
            self._worker = WorkerProcess(
                index,
                command,
                {**os.environ, **variables},
                lambda _, code: events.put(("end", code)),
                lambda out, line: events.put(("line", out, line)),
            )
        except OSError as error:
            return str(error.strerror)
        self._guard.watch(self._worker.process.pid)
        return ""

    def events(self) -> list[tuple]:
        """What happened since the last call: ("line", 1 or 2, bytes), last ("end", code)."""
        found: list[tuple] = []
        try:
            found.append(self._events.get(timeout=POLL_S))
            while len(found) < MOST_EVENTS:
                found.append(self._events.get_nowait())
        except queue.Empty:
            pass
        if found and found[-1][0] == "end" and self._worker is not None:
            self._guard.forget(self._worker.process.pid)
        return found

    def send(self, number: int) -> None:
        """Gives the worker a signal."""
        if self._worker is not None:
            self._worker.send(number)

    def kill(self) -> None:
        """Ends the worker and its children at once."""
        if self._worker is not None:
            self._worker.kill()
