"""The rows of a run in memory: what `fit` returns."""

from __future__ import annotations

from typing import Any

from trainer.ledger.writer import Writer


class History:
    """What `fit` returns: `rows`, one dict per log window, the lines of metrics.jsonl.

    `history` is that of Keras: name -> list, one value per epoch of the callbacks (a validation
    interval) of this call, None where an epoch has none; `epoch` the numbers of these epochs.

    Shown as the ledger, in a notebook as a table; `pandas.DataFrame(history.rows)` holds all rows.
    """

    def __init__(self, rows=()):
        self.rows: list[dict] = list(rows)
        self._epochs: list[tuple[int, int, dict]] = []

    @property
    def history(self) -> dict[str, list]:
        """Name -> list, one value per epoch, by the names of Keras: loss, val_loss, accuracy."""
        names = dict.fromkeys(name for *_, logs in self._epochs for name in logs)
        return {name: [logs.get(name) for *_, logs in self._epochs] for name in names}

    @property
    def epoch(self) -> list[int]:
        """The numbers of the epochs that `history` holds."""
        return [number for number, *_ in self._epochs]

    def note_epoch(self, number: int, step: int, logs: dict) -> None:
        """Notes the logs of an epoch that has ended at a step."""
        self._epochs.append((number, step, dict(logs)))

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
        """Drops the rows, and the epochs, after a step."""
        self.rows[:] = [row for row in self.rows if row["step"] <= step]
        self._epochs[:] = [epoch for epoch in self._epochs if epoch[1] <= step]

    def to_dict(self, split: str | None = None) -> dict[str, list]:
        """The rows as columns: `step`, `split`, `time` and each tag, None where a row has no value.

        Args:
          split: "train" or "eval"; None for the rows of both.
        Returns:
          dict of lists of the same length.

        Example:
          >>> rows = [{"step": 1, "split": "train", "a": 2.0}, {"step": 1, "split": "eval"}]
          >>> History(rows).to_dict()
          {'step': [1, 1], 'split': ['train', 'eval'], 'a': [2.0, None]}
        """
        rows = [row for row in self.rows if split in (None, row["split"])]
        tags = dict.fromkeys(tag for row in rows for tag in row)
        return {tag: [row.get(tag) for row in rows] for tag in tags}

    def plot(self, view: str = "stack", *, split: str = "train", axes: Any = None) -> Any:
        """Draws the terms with matplotlib: stacked, the total on top, negative ones below zero.

        Args:
          view: "stack" of weighted terms, their "share" of the sum of all sizes, "lines", "raw".
          split: "train" or "eval".
          axes: matplotlib's, to draw on; new ones by default.
        Returns:
          The axes.
        Raises:
          ImportError: matplotlib is missing: `pip install "termwise[plot]"`.
          ValueError: an unknown view or split, or no rows of it.

        Example: `trainer.fit(...).plot("share")`
        """
        from trainer.ledger.notebook import draw

        return draw(self.to_dict(split), view, split, axes)

    def __repr__(self) -> str:
        from trainer.ledger.format import ledger_table

        return ledger_table(self) or f"History of {len(self.rows)} rows"

    def _repr_html_(self) -> str:
        from trainer.ledger.format import ledger_cells
        from trainer.ledger.notebook import html_tables

        cells = ledger_cells(self)
        return html_tables(cells, () if cells else [repr(self)])


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
