"""Log windows become rows beside the training: built and written by a thread of its own."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from losses.terms.constraint import Constraint
from trainer.ledger.rows import stamped, violations, window_rows
from trainer.ledger.window import WindowColumns, WindowReader
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
            self._write(reader.read_many(packed), steps, seconds, more or {})
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

    def _write(self, windows: WindowColumns, steps, seconds, more: dict) -> None:
        """Writes the rows of windows that ended at `steps` and took so many `seconds`."""
        sums = windows.sums
        rows = window_rows(self._names, sums)
        taken, examples = sums.taken.tolist(), sums.examples.tolist()
        counted = (sums.steps > 0).tolist()
        for number, (row, step) in enumerate(zip(rows, steps, strict=True)):
            beside = {tag: values[number] for tag, values in windows.values.items()} | more
            if not counted[number]:  # what no step has measured is no number
                beside = {k: None if k.startswith("metrics/") else v for k, v in beside.items()}
            row.update(beside)
            row.update(violations(self._constraints, row))
            if windows.gradients is not None:
                row.update(self._measured(step, taken[number], windows.gradients[number]))
            duration = max(seconds[number], 1e-6)
            row["steps_per_second"] = taken[number] / duration
            row["examples_per_second"] = examples[number] / duration
            row = stamped(row, step=step, split="train", seconds=windows.times[number])
            self.writers.write(row, self._total_steps)
            self._look(row)

    def _measured(self, step: int, taken: int, gradients) -> dict:
        """What was measured in a window; the picture of the gradients' cosines is written."""
        measured, picture = self._beside.read(gradients, step - taken + 1, step)
        if picture is not None:
            self.writers.image("gradient cosines", step, picture)
        return measured
