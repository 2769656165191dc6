"""Interleaved rounds: each contestant runs for a second or two, in random order, again and again.

A machine that slows down for seconds at a time slows all of them alike, so ratios within a round
can be trusted where rates cannot.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

Run = Callable[[int], float]  # steps -> seconds they took


def measure(
    runs: dict[str, Run],
    *,
    rounds: int,
    seconds: float,
    unit: int = 100,
    agree=max,
    seed: int = 0,
    failures: dict[str, Exception] | None = None,
) -> dict[str, dict[str, list[float]]]:
    """Rates of contestants over interleaved rounds.

    Args:
      runs: label -> `run(steps) -> seconds`.
      rounds: how often each one runs, after a warm-up.
      seconds: about how long one of its rounds is.
      unit: a round has a multiple of this many steps.
      agree: of the seconds that the warm-up took; several hosts make it the same for all.
      seed: of the order; the same on all hosts.
      failures: takes the errors of those that fail while they warm up, which are then left out;
        None raises them.
    Returns:
      label -> {"rates": steps per second of each round, "cpu": seconds of processor time per
      step, of each round: this process's, and what `run.cpu` says of another's}.
    """
    steps: dict[str, int] = {}
    for label, run in runs.items():
        try:
            steps[label] = _enough(run, seconds, unit, agree)
        except Exception as error:
            if failures is None:
                raise
            failures[label] = error
    runs = {label: runs[label] for label in steps}
    found: dict[str, dict[str, list[float]]] = {one: {"rates": [], "cpu": []} for one in runs}
    draw = random.Random(seed)
    for _ in range(rounds):
        for label in draw.sample(list(runs), len(runs)):
            began = time.process_time()
            taken = runs[label](steps[label])
            ran = getattr(runs[label], "ran", steps[label])  # a paused loop may run more
            used = time.process_time() - began + getattr(runs[label], "cpu", 0.0)
            found[label]["cpu"].append(used / ran)
            found[label]["rates"].append(steps[label] / taken)
    return found


def _enough(run: Run, seconds: float, unit: int, agree) -> int:
    """How many steps take about `seconds`; on the way the contestant warms up."""
    run(unit)  # traces, and TensorFlow measures its operations
    steps = unit
    while True:
        taken = agree([run(steps)])
        wanted = steps * seconds / taken
        if taken > seconds / 4 or wanted < 2 * steps:
            return max(unit, round(wanted / unit) * unit)
        steps = max(unit, round(min(wanted / 2, 16 * steps) / unit) * unit)


class Paused:
    """A training loop that someone else drives, stopped between rounds.

    The loop runs in a thread of its own and calls `reached(step)` whenever it has a moment; there
    it waits once it has run as many steps as the round has. So one long `fit` is timed without
    what happens once, at its start and end.

    Args:
      start: called in the thread, with this object; runs the loop.
    """

    def __init__(self, start: Callable[[Paused], Any]):
        self.target = 0
        self.ran = 0  # steps of the last round
        self.failed: BaseException | None = None
        self._go, self._done = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(start,), daemon=True)

    def __call__(self, steps: int) -> float:
        """Runs that many steps more, or somewhat more; seconds for that many."""
        if not self.target:
            self._thread.start()
            self._wait()  # until the first step is done
        self._done.clear()
        stood, self.target = self.target, self.target + steps
        began = time.perf_counter()
        self._go.set()
        self._wait()
        seconds = time.perf_counter() - began
        self.ran = self.target - stood
        return seconds * steps / self.ran

    def reached(self, step: int) -> None:
        """Told by the loop that `step` steps are done."""
        if step < self.target:
            return
        self.target = step
        self._done.set()
        self._go.wait()
        self._go.clear()

    def _wait(self):
        self._done.wait()
        if self.failed is not None:
            raise RuntimeError(f"The loop ended by itself: {self.failed}") from self.failed

    def _run(self, start):
        try:
            start(self)
            self.failed = RuntimeError("it ran out of steps")
        except BaseException as error:
            self.failed = error
        self._done.set()
