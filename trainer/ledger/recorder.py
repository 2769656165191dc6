"""Log windows become rows beside the training: built and written by a thread of its own."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from losses.terms.constraint import Constraint
from trainer.ledger.rows import stamped, violations, window_row
from trainer.ledger.window import WindowReader, WindowSnapshot
from trainer.ledger.writers import Writers

WAITING = 2  # calls of the loop whose rows may wait to be written
FLUSH_SECONDS = 2.0  # TensorBoard sees a row at most that late


class Recorder:
    """Writes the rows of a fit in the order of their steps.

    What the thread raises (a full disk) is raised by the next call of a method.

    Args:
      writers: the fit's writers.
      names: the terms.
      measured: what is measured beside the steps, as `Measured`.
      total_steps: the fit's last step, for the console.
      constraints: of the run.
      look: called with each row that was written, in the thread.
    """

    def __init__(
        self,
        writers: Writers,
        names,
        measured,
        total_steps: int,
        constraints: Sequence[Constraint] = (),
        look: Callable[[dict], object] = lambda row: None,
    ):
        self.writers = writers
        self._names = names
        self._beside = measured
        self._total_steps = total_steps
        self._constraints, self._look = constraints, look
        self._thread = ThreadPoolExecutor(1, "ledger")
        self._waiting: deque[Future] = deque()
        self._flushed_at = time.monotonic()

    def add(
        self, reader: WindowReader, packed: np.ndarray, steps, seconds, more: dict | None = None
    ) -> None:
        """Has the rows of log windows written.

        Args:
          reader: reads the windows.
          packed: float64 [W, ...], the windows as the loop packed them.
          steps: W numbers, the step at each window's end.
          seconds: W numbers, how long each window took.
          more: what else stands in each row.
        """

        def write():
            for step, vector, taken in zip(steps, packed, seconds, strict=True):
                self._write(step, reader.read(vector), taken, more or {})
            if time.monotonic() - self._flushed_at > FLUSH_SECONDS:
                self.writers.show()
                self._flushed_at = time.monotonic()

        while self._waiting and (self._waiting[0].done() or len(self._waiting) >= WAITING):
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(write))

    def take_up(self, names, measured) -> None:
        """Other terms from now on."""
        self.settle()
        self._names, self._beside = names, measured

    def settle(self) -> None:
        """Waits until every row is written: history is complete."""
        while self._waiting:
            self._waiting.popleft().result()

    def close(self) -> None:
        """Waits for the thread; what it raised before is raised here."""
        self._thread.shutdown()
        self.settle()

    def _write(self, step: int, window: WindowSnapshot, seconds: float, more: dict) -> None:
        sums = window.sums
        beside = {**window.values, **more}
        if not sums.steps:  # what no step has measured is no number
            beside = {k: None if k.startswith("metrics/") else v for k, v in beside.items()}
        row = {**window_row(self._names, sums), **beside}
        row.update(violations(self._constraints, row))
        if window.gradients is not None:
            row.update(self._measured(step, window))
        seconds = max(seconds, 1e-6)
        row["steps_per_second"] = sums.taken / seconds
        row["examples_per_second"] = sums.examples / seconds
        row = stamped(row, step=step, split="train", seconds=window.time)
        self.writers.write(row, self._total_steps)
        self._look(row)

    def _measured(self, step: int, window: WindowSnapshot) -> dict:
        """What was measured in the window; the picture of the gradients' cosines is written."""
        first = step - window.sums.taken + 1
        measured, picture = self._beside.read(window.gradients, first, step)
        if picture is not None:
            self.writers.image("gradient cosines", step, picture)
        return measured
