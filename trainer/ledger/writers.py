"""Where a row goes: history, metrics.jsonl, TensorBoard and the console, in this order."""

from __future__ import annotations

from typing import Any

from trainer.ledger.console import Console
from trainer.ledger.rows import History
from trainer.persistence.workdir import Workdir


class Writers:
    """The writers of one fit; all are given the same row.

    Args:
      history: the rows of the run.
      console: prints the progress.
      workdir: None keeps nothing on disk.
      config: shown in TensorBoard as text and hyperparameters.
      resumed: the step the run was restored to, or None.
    """

    def __init__(
        self,
        history: History,
        console: Console,
        workdir: Workdir | None,
        config: dict | None = None,
        resumed: int | None = None,
    ):
        self.history = history
        self.console = console
        self.workdir = workdir
        self.events: Any = None
        if workdir is not None:
            from trainer.ledger.tensorboard import EventFiles  # only runs that write pay its import

            self.events = EventFiles(workdir.events, restart_step=resumed)
            if resumed is None:
                self.events.layout()
                if config:
                    self.events.configuration(config)

    def write(self, row: dict, total_steps: int) -> None:
        """Writes one row as `ledger.stamped` makes it."""
        self.history.append(row)
        if self.workdir is not None:
            self.workdir.append_metrics(row)
        if self.events is not None:
            values = {k: v for k, v in row.items() if k not in ("step", "split", "time")}
            self.events.scalars(row["split"], row["step"], values, wall_time=row["time"])
        if row["split"] == "train":
            self.console.progress(row, total_steps)
        else:
            self.console.evaluation(row)

    def image(self, tag: str, step: int, rgb) -> None:
        """Writes a picture, uint8 [height, width, 3], to TensorBoard."""
        if self.events is not None:
            self.events.image(tag, step, rgb)

    def cut(self, step: int) -> None:
        """Takes back what was written after a step to which the run was restored."""
        self.history.cut(step)
        if self.workdir is not None:
            self.workdir.close()
            self.workdir.cut_metrics(step)
            self.events.close()
            self.events = type(self.events)(self.workdir.events, restart_step=step)

    def show(self) -> None:
        """Hands TensorBoard what is written so far."""
        if self.events is not None:
            self.events.flush()

    def flush(self) -> None:
        """Brings what is written to the disk, before a checkpoint counts on it."""
        self.show()
        if self.workdir is not None:
            self.workdir.sync()

    def close(self, finished: bool) -> None:
        if self.events is not None:
            if finished:
                self.events.finish()
            self.events.close()
        if self.workdir is not None:
            self.workdir.close()
