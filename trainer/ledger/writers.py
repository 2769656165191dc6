"""The writers of one fit as one: history, metrics.jsonl, TensorBoard and the console, in order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from trainer.ledger.console import Console
from trainer.ledger.history import History, HistoryWriter
from trainer.ledger.writer import Writer
from trainer.persistence.metrics_file import MetricsFile
from trainer.persistence.workdir import Workdir

if TYPE_CHECKING:
    from trainer.ledger.events import EventWriter


class Writers:
    """The writers of one fit; all are given the same row.

    Args:
      history: the rows of the run.
      console: prints the progress.
      workdir: None keeps nothing on disk.
      config: shown in TensorBoard as text and hyperparameters.
      resumed: the step the run was restored to, or None.
      terms: what is noted of each, as `describe.term_notes` gives it.
    """

    def __init__(
        self,
        history: History,
        console: Console,
        workdir: Workdir | None,
        config: dict | None = None,
        resumed: int | None = None,
        terms: Iterable[dict] = (),
    ):
        self.history = history
        self.console = console
        self._workdir = workdir
        self._events: EventWriter | None = None
        of_workdir: list[Writer] = []
        if workdir is not None:
            from trainer.ledger.events import EventWriter  # only runs that write pay its import

            self._events = EventWriter(workdir.events, config, resumed, terms)
            of_workdir = [JsonLinesWriter(workdir.metrics), self._events]
        self._writers: tuple[Writer, ...] = (HistoryWriter(history), *of_workdir, console)

    def write(self, row: dict, total_steps: int) -> None:
        """Writes one row as `rows.stamped` makes it."""
        for writer in self._writers:
            writer.write(row, total_steps)

    def image(self, tag: str, step: int, rgb) -> None:
        """Writes a picture, uint8 [height, width, 3], to TensorBoard."""
        if self._events is not None:
            self._events.image(tag, step, rgb)

    def cut(self, step: int, not_finite: int) -> None:
        """Takes back what was written after a step, to which the run was restored; notes it.

        Args:
          step: the last one that counts.
          not_finite: the one for which the run was restored.
        """
        for writer in self._writers:
            writer.cut(step)
        if self._workdir is not None:
            self._workdir.restored(step, not_finite)

    def show(self) -> None:
        """Hands TensorBoard what is written so far."""
        for writer in self._writers:
            writer.flush(to_disk=False)

    def flush(self) -> None:
        """Brings what is written to the disk, before a checkpoint counts on it."""
        for writer in self._writers:
            writer.flush(to_disk=True)

    def close(self, finished: bool) -> None:
        """Closes every writer; what one of them raises is raised once all are closed."""
        with contextlib.ExitStack() as stack:
            for writer in self._writers:
                stack.callback(writer.close, finished)
            if finished and self._events is not None:
                self._events.ledger(self.history)


class JsonLinesWriter(Writer):
    """Appends each row to metrics.jsonl, as one line of JSON."""

    def __init__(self, metrics: MetricsFile):
        self._metrics = metrics

    def write(self, row: dict, total_steps: int) -> None:
        self._metrics.append(row)

    def cut(self, step: int) -> None:
        self._metrics.cut(step)

    def flush(self, to_disk: bool) -> None:
        if to_disk:
            self._metrics.sync()

    def close(self, finished: bool) -> None:
        self._metrics.close()
