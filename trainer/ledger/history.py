"""The rows of a run in memory: what `fit` returns."""

from __future__ import annotations

from trainer.ledger.writer import Writer


class History:
    """What `fit` returns: `rows`, one dict per log window, the lines of metrics.jsonl."""

    def __init__(self, rows=()):
        self.rows: list[dict] = list(rows)

    def append(self, row: dict) -> None:
        """Adds a row at the end."""
        self.rows.append(row)

    def first(self, split="train") -> dict | None:
        """The first row of a split; None where there is none."""
        return next((row for row in self.rows if row["split"] == split), None)

    def last(self, split="train") -> dict | None:
        """The last row of a split; None where there is none."""
        return next((row for row in reversed(self.rows) if row["split"] == split), None)

    def last_total(self) -> float | None:
        """The last total of training that is a number; None where there is none."""
        totals = (row["total"] for row in reversed(self.rows) if row["split"] == "train")
        return next((total for total in totals if total is not None), None)

    def cut(self, step: int) -> None:
        """Drops the rows after a step."""
        self.rows[:] = [row for row in self.rows if row["step"] <= step]


class HistoryWriter(Writer):
    """Appends each row to a `History`."""

    def __init__(self, history: History):
        self._history = history

    def write(self, row: dict, total_steps: int) -> None:
        self._history.append(row)

    def cut(self, step: int) -> None:
        self._history.cut(step)

    def flush(self, to_disk: bool) -> None:
        """Nothing is held back."""

    def close(self, finished: bool) -> None:
        """The rows stay: they are what `fit` returns."""
