"""Rows as the lines of metrics.jsonl, in the workdir of a run."""

from __future__ import annotations

from trainer.ledger.writer import Writer
from trainer.persistence.metrics_file import MetricsFile


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
