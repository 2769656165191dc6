"""metrics.jsonl: one row per line, appended while training, cut back when a run is resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from losses.errors import TermwiseError
from trainer.persistence.disk import read_file
from trainer.persistence.files import Lines, replace_text

METRICS = "metrics.jsonl"


class Line(NamedTuple):
    """A line of the file, and the row that it holds."""

    text: bytes
    row: dict


class MetricsFile:
    """The rows of a run on the disk.

    Args:
      file: made with the first row.
      writing: gives a context in which the file is written; what the disk refuses there becomes
        an error that says what to do.
    """

    def __init__(self, file: Path, writing: Callable[[], AbstractContextManager]):
        self.file = file
        self._writing = writing
        self._lines: Lines | None = None

    def append(self, row: dict) -> None:
        """Adds one row.

        Raises:
          OSError: the disk refuses; no part of the row stays in the file.
        """
        line = json.dumps(row, allow_nan=False)
        with self._writing():
            if self._lines is None:
                self._lines = Lines(self.file)
            self._lines.append(line)

    def cut(self, step: int) -> list[dict]:
        """Drops the rows after `step`, and a torn last line; returns those that stay.

        Raises:
          ValueError: a line is not a row, as after editing by hand; the message names it.
        """
        lines, torn = read_lines(self.file)
        stay = [line for line in lines if line.row["step"] <= step]
        if torn or len(stay) < len(lines):
            self.close()  # another file is about to take its place
            with self._writing():
                replace_text(self.file, "".join(line.text.decode() + "\n" for line in stay))
        return [line.row for line in stay]

    def sync(self) -> None:
        """Returns once the rows so far would survive a power cut; called before a checkpoint."""
        if self._lines is not None:
            with self._writing():
                self._lines.sync()

    def close(self) -> None:
        """Closes the file; the next row opens it again."""
        if self._lines is not None:
            self._lines.close()
            self._lines = None


def read_lines(file: Path) -> tuple[list[Line], bool]:
    """The whole lines of a metrics.jsonl, and whether half a line follows them.

    Raises:
      ValueError: a line is not a row; the message names it.
      OSError: it cannot be read, or is no regular file.
    """
    try:
        texts = read_file(file).split(b"\n")
    except FileNotFoundError:
        return [], False
    torn = texts.pop()  # what follows the last line break: nothing, or half a line
    lines = [Line(text, _row(file, number, text)) for number, text in enumerate(texts, 1)]
    return lines, bool(torn)


def size_of(file: Path) -> int:
    """The bytes that a metrics.jsonl holds; 0 where there is none."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def find_damage(file: Path, step: int, rows_bytes: int | None) -> str | None:
    """What became of the rows up to a checkpoint, as a sentence; None where they are all there.

    Args:
      file: metrics.jsonl.
      step: of the checkpoint.
      rows_bytes: the size of the file when the checkpoint was saved; None where it is not known.
    """
    try:
        lines, _ = read_lines(file)
    except (TermwiseError, OSError):
        return None  # an error of its own, once the file is cut back
    before = [line for line in lines if line.row["step"] <= step]
    if (number := _find_repeated(lines)) is not None:
        row = lines[number - 1].row
        return (
            f"{file}, line {number}: the {row['split']} row of step {row['step']} comes after "
            "later rows, or twice. Rows were doubled or moved; delete those that are too many."
        )
    size = sum(len(line.text) + 1 for line in before)
    if rows_bytes is None or size >= rows_bytes:
        return None
    state = f"holds {size} bytes of rows up to step {step}" if lines else "is missing or empty"
    return (
        f"{file} {state}, and held {rows_bytes} when ckpt-{step} was saved. Rows were lost: "
        "bring the file back, or go on without them."
    )


def _find_repeated(lines: list[Line]) -> int | None:
    """The number of the first line whose row stands there already, or goes back in the steps."""
    seen: set[tuple[int, str]] = set()
    newest = -1
    for number, line in enumerate(lines, 1):
        place = line.row["step"], line.row["split"]
        if place in seen or place[0] < newest:
            return number
        seen.add(place)
        newest = place[0]
    return None


def _row(file: Path, number: int, text: bytes) -> dict:
    """The row of one line, checked for what resuming reads of it."""
    try:
        row = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        reason = "is not JSON" if isinstance(error, json.JSONDecodeError) else str(error)
        raise _edited(file, number, reason) from None
    fault = _find_fault(row)
    if fault is not None:
        raise _edited(file, number, fault)
    return row


def _find_fault(row) -> str | None:
    if not isinstance(row, dict):
        return f"holds a {type(row).__name__}, not an object"
    for key in ("step", "split", "total"):
        if key not in row:
            return f"has no {key!r}"
    step, split, total = row["step"], row["split"], row["total"]
    if type(step) is not int or step < 0:
        return f"has step {step!r}, not a whole number from 0 on"
    if split not in ("train", "eval") and not str(split).startswith("eval/"):
        return f"has split {split!r}, neither 'train' nor 'eval'"
    if isinstance(total, bool) or not isinstance(total, (int, float, type(None))):
        return f"has total {total!r}, neither a number nor null"
    return None


def _edited(file: Path, number: int, reason: str) -> TermwiseError:
    return TermwiseError(
        f"{file}, line {number}: {reason}. The run's rows are not to be edited: restore the line, "
        "or delete it."
    )


def _refuse(name: str):
    raise TermwiseError(f"holds {name}, which is not JSON")
