"""Rows as the events that TensorBoard draws, in the folder `tb` of a run."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from trainer.ledger.format import ledger_cells
from trainer.ledger.history import History
from trainer.ledger.rows import STAMP
from trainer.ledger.tensorboard import EventFiles
from trainer.ledger.writer import Writer


class EventWriter(Writer):
    """Writes each row as one event of its split.

    Args:
      directory: where the event files go.
      config: shown as text and as hyperparameters; None for none.
      resumed: the step that the run was restored to; None for a run that begins, which gets the
        layout of the charts and the configuration.
      terms: the notes of `describe.term_notes`; equations stand beside the charts of raw values.
    """

    def __init__(
        self, directory: Path, config: dict | None, resumed: int | None, terms: Iterable[dict] = ()
    ):
        self._directory = directory
        self._files = EventFiles(directory, restart_step=resumed)
        self._columns = resumed is None and bool(config)  # whether they are to be written
        self._files.describe(
            {f"raw/{t['name']}": _code(t["equation"]) for t in terms if "equation" in t}
        )
        if resumed is None:
            self._files.layout()
            if config:
                self._files.configuration(config)

    def write(self, row: dict, total_steps: int) -> None:
        if self._columns and row["split"] == "train":
            self._files.columns((tag for tag in row if tag not in STAMP), _typed_fields())
            self._columns = False
        values = {tag: value for tag, value in row.items() if tag not in STAMP}
        self._files.scalars(row["split"], row["step"], values, wall_time=row["time"])

    def image(self, tag: str, step: int, rgb) -> None:
        """Writes a picture, uint8 [height, width, 3]."""
        self._files.image(tag, step, rgb)

    def cut(self, step: int) -> None:
        self._files.close()
        self._files = EventFiles(self._directory, restart_step=step)

    def flush(self, to_disk: bool) -> None:
        self._files.flush()

    def close(self, finished: bool) -> None:
        if finished:
            self._files.finish()
        self._files.close()

    def ledger(self, history: History) -> None:
        """Writes the table at the end of a run, as a text."""
        tables = []
        for head, *rows in ledger_cells(history):
            lines = [head, ["---"] * len(head), *rows]
            tables.append("\n".join("|".join(["", *map(_cell, line), ""]) for line in lines))
        if tables:
            self._files.text("ledger", "\n\n".join(tables))


def _typed_fields() -> set[str]:
    """The fields of the configuration that were typed: in a sweep those that vary."""
    words = [word.partition("=")[0] for word in sys.argv if word.startswith("--config.")]
    return {word.removeprefix("--config.") for word in words}


def _code(text: str) -> str:
    """Lines as a block of code in Markdown."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def _cell(text: str) -> str:
    """Text that is no markup: TensorBoard renders Markdown and leaves out HTML."""
    return text if set(text) <= set("-") else re.sub(r"([\\`*_{}\[\]<>|#!])", r"\\\1", text)
