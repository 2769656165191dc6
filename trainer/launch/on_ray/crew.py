"""The actors of a run: asked for, waited for, lost; and a worker on one of them."""

from __future__ import annotations

import os
import signal
import threading
import time
import types
from collections.abc import Callable

from trainer.launch.local_cluster import after, say
from trainer.launch.on_ray.node_worker import NodeWorker
from trainer.launch.worker_process import write_line

POLL_S = 0.5
ANSWER_S = 30.0  # a node that does not answer so long is lost


class Crew:
    """The actors that there are, and those that Ray has no place for yet.

    Args:
      ray: the package, of which a cluster is joined.
      wanted: how many there are to be.
      resources: of each actor, as `ray.remote` takes them.
      grace_s: seconds from SIGTERM to SIGKILL.
    Attributes:
      members: list of actors that have answered.
    """

    def __init__(self, ray, wanted: int, resources: dict, grace_s: float):
        self._ray, self._wanted, self._grace_s = ray, wanted, grace_s
        # a worker may end in its node's end: Ray is to start none in its place by itself
        options = {"max_concurrency": 8, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        self._actor = ray.remote(NodeWorker).options(**options, **resources)
        self.members: list = []
        self._awaited: dict = {}  # the answer of an actor -> the actor

    def ask(self) -> None:
        """Asks Ray for as many actors as are missing."""
        for _ in range(self._wanted - len(self.members) - len(self._awaited)):
            actor = self._actor.remote(self._grace_s)
            self._awaited[actor.address.remote()] = actor

    def join(self, seconds: float) -> bool:
        """Waits for an actor that was asked for; whether one has come.

        One that is lost first has not: Ray may give it a place on a node that has just gone.
        """
        if not self._awaited:
            return False
        answered, _ = self._ray.wait(list(self._awaited), num_returns=1, timeout=seconds)
        came = False
        for answer in answered:
            actor = self._awaited.pop(answer)
            if self._answer(answer) is not None:
                self.members.append(actor)
                came = True
        if answered and not came:
            time.sleep(POLL_S)  # who asks anew at once may be given the same node
        return came

    def addresses(self) -> list[str]:
        """One address for each member, new at each call; members that do not answer are lost."""
        answers = [(actor, self._answer(actor.address.remote())) for actor in self.members]
        self.members = [actor for actor, address in answers if address is not None]
        return [address for _, address in answers if address is not None]

    def lose(self, actor) -> None:
        """Takes an actor out, whose node is gone."""
        self.members = [member for member in self.members if member is not actor]

    def watch(self, came: Callable[[], None]) -> Callable[[], None]:
        """Calls `came` once a further actor has come; the function that is given ends the watch."""
        done = threading.Event()

        def look():
            while not done.is_set():
                if self.join(POLL_S):
                    came()
                    return
                if not self._awaited:
                    done.wait(POLL_S)
                    self.ask()  # for those that were lost before they came

        thread = threading.Thread(target=look, daemon=True)
        thread.start()

        def end():
            done.set()
            thread.join()

        return end

    def _answer(self, reference):
        try:
            return self._ray.get(reference, timeout=ANSWER_S)
        except (self._ray.exceptions.RayError, TimeoutError):
            return None


class RemoteWorker:
    """A worker on an actor, with the methods of a `WorkerProcess`.

    Args:
      ray, actor: where it runs.
      lost: called where the actor is gone.
      index, command, environment, report: as of `WorkerProcess`; of the environment, what is added.
    Raises:
      OSError: the command cannot be started.
    """

    def __init__(self, ray, actor, lost, index, command, environment, report):
        self.index = index
        self.code: int | None = None
        self.process = types.SimpleNamespace(pid=0)  # of another machine: the actor guards it
        self._ray, self._actor, self._lost, self._report = ray, actor, lost, report
        try:
            why = ray.get(actor.start.remote(index, command, environment, os.getcwd()))
        except ray.exceptions.RayError:
            why = ""  # its node is gone, which the first question about it will tell
        if why:
            raise OSError(0, why)
        threading.Thread(target=self._follow, daemon=True).start()

    def send(self, number: int) -> None:
        """Gives the worker a signal."""
        self._actor.send.remote(number)

    def kill(self) -> None:
        """Ends the worker and its children at once."""
        self._actor.kill.remote()

    def _follow(self) -> None:
        """Writes the worker's lines and reports its end."""
        while self.code is None:
            try:
                events = self._ray.get(self._actor.events.remote())
            except self._ray.exceptions.RayError:
                say(f"worker {self.index} is lost: Ray's process for it, or its node, is gone")
                self._lost()
                self.code = -signal.SIGKILL
                break
            for kind, *rest in events:
                if kind == "line":
                    write_line(*rest)
                else:
                    (self.code,) = rest
        self._report(self.index, self.code)


def wait_for(crew: Crew, most: int, least: int, patience_s: float, startup_s: float, stop) -> bool:
    """Waits for `most` members a while, then for `least` of them; whether so many have come.

    Args:
      patience_s: how long to wait for all.
      startup_s: how long to wait for the least.
      stop: a function that says whether to give up waiting.
    """
    all_due, least_due = after(patience_s), after(startup_s)
    while len(crew.members) < most and not stop():
        crew.ask()  # for those that were lost before they came, too
        now = time.monotonic()
        if len(crew.members) >= least and now > all_due:
            break
        if now > least_due:
            break
        crew.join(POLL_S)
    return len(crew.members) >= least
