"""Rows as the lines of metrics.jsonl, in the workdir of a run."""

from __future__ import annotations

from trainer.ledger.writer import Writer
from trainer.persistence.workdir import Workdir


class JsonLinesWriter(Writer):
    """Appends each row to a workdir's metrics.jsonl, as one line of JSON."""

    def __init__(self, workdir: Workdir):
        self._workdir = workdir

    def write(self, row: dict, total_steps: int) -> None:
        self._workdir.append_metrics(row)

    def cut(self, step: int) -> None:
        self._workdir.cut_metrics(step)

    def flush(self, to_disk: bool) -> None:
        if to_disk:
            self._workdir.sync()

    def close(self, finished: bool) -> None:
        self._workdir.close()
