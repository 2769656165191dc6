"""The files of a run: config.json, starts.jsonl, metrics.jsonl, DONE.json."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path

from losses.errors import TermwiseError, TermwiseTypeError
from trainer.persistence.files import Lines, refusal, replace_text
from trainer.persistence.manifest import marked_steps


class Workdir:
    """One run's folder. Whole files are written to a temporary name and renamed; a line that
    does not fit on the disk is taken back. Whatever the disk refuses is an OSError that names
    the file, the reason, and the newest checkpoint.

    Raises:
      NotADirectoryError, PermissionError: the path cannot be a folder that is written to.
    """

    def __init__(self, path):
        if not isinstance(path, (str, os.PathLike)) or not str(path):
            raise TermwiseTypeError(f"workdir={path!r}: give a folder, as a string or a path.")
        self.path = Path(path)
        existing = self.path
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        if not existing.is_dir():
            what = "is a file" if existing == self.path else f"cannot be made, {existing} is a file"
            raise NotADirectoryError(
                f"workdir={str(path)!r} {what}. Give a folder; it is made when missing."
            )
        if not os.access(existing, os.W_OK | os.X_OK):
            raise PermissionError(
                f"workdir={str(path)!r}: no permission to write in {existing}. Give another folder."
            )
        self._metrics: Lines | None = None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def events(self) -> Path:
        return self.path / "tb"

    def start(
        self, config: dict | None, resumed_from: int | None, more: dict | None = None
    ) -> None:
        """Makes the folder, keeps the configuration of the first start, notes this one.

        Args:
          more: what else the line in starts.jsonl holds.
        """
        with self._writing("") as folder:
            folder.mkdir(parents=True, exist_ok=True)
        with self._writing("DONE.json") as file:
            file.unlink(missing_ok=True)  # the run goes on
        if config is not None:
            with self._writing("config.json") as file:
                if not file.exists():
                    write_json(file, config)
        import keras
        import tensorflow as tf

        note = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "argv": sys.argv,
            "overrides": [word for word in sys.argv[1:] if word.startswith("--config.")],
            "versions": {
                "python": platform.python_version(),
                "tensorflow": tf.__version__,
                "keras": keras.__version__,
            },
            "git": _revision(),
            "resumed_from": resumed_from,
            **(more or {}),
        }
        with self._writing("starts.jsonl") as file:
            starts = Lines(file)
            try:
                starts.append(json.dumps(note))
            finally:
                starts.close()

    def noted(self, key: str):
        """What the last line of starts.jsonl that holds it says of a key; None where none does."""
        try:
            lines = (self.path / "starts.jsonl").read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            return None
        for line in reversed(lines):
            try:
                note = json.loads(line)
            except (ValueError, RecursionError):
                continue  # torn, or edited
            if isinstance(note, dict) and key in note:
                return note[key]
        return None

    def config(self) -> dict | None:
        """config.json; None where there is none.

        Raises:
          ValueError: it was edited into something else than a JSON object.
        """
        return _read_object(
            self.path / "config.json",
            "It is written once and is not to be edited: restore it, or use a new workdir.",
        )

    def cut_metrics(self, step: int) -> list[dict]:
        """Drops the rows after `step`, and a torn last line; returns those that stay.

        Raises:
          ValueError: a line is not a row, as after editing by hand; the message names it.
        """
        file = self.path / "metrics.jsonl"
        if not file.exists():
            return []
        lines = file.read_bytes().split(b"\n")
        torn = lines.pop()  # what follows the last line break: nothing, or half a line
        rows = [_row(file, number, line) for number, line in enumerate(lines, 1)]
        kept = [(line, row) for line, row in zip(lines, rows, strict=True) if row["step"] <= step]
        if torn or len(kept) < len(lines):
            self.close()  # its file is about to be replaced
            with self._writing("metrics.jsonl"):
                replace_text(file, "".join(line.decode() + "\n" for line, _ in kept))
        return [row for _, row in kept]

    def append_metrics(self, row: dict) -> None:
        """Adds one row.

        Raises:
          OSError: the disk refuses; no part of the row stays in the file.
        """
        line = json.dumps(row, allow_nan=False)
        with self._writing("metrics.jsonl") as file:
            if self._metrics is None:
                self._metrics = Lines(file)
            self._metrics.append(line)

    def sync(self) -> None:
        """Returns once the rows so far would survive a power cut; called before a checkpoint."""
        if self._metrics is not None:
            with self._writing("metrics.jsonl"):
                self._metrics.sync()

    def done(self, values: dict) -> None:
        """DONE.json: the final values and the duration."""
        with self._writing("DONE.json") as file:
            write_json(file, values)

    def seconds(self) -> float | None:
        """How long a finished run took; None for one that did not finish.

        Raises:
          ValueError: DONE.json was edited.
        """
        file = self.path / "DONE.json"
        advice = "Delete it; the checkpoints and metrics.jsonl hold the run."
        values = _read_object(file, advice)
        if values is None:
            return None
        seconds = values.get("seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise TermwiseError(f"{file}: seconds is {seconds!r}, not a number. {advice}")
        return seconds

    def close(self) -> None:
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None

    @contextmanager
    def _writing(self, name: str):
        file = self.path / name
        try:
            yield file
        except OSError as error:
            saved = marked_steps(self.checkpoints)
            kept = str(self.checkpoints / f"ckpt-{saved[0]}") if saved else None
            raise refusal(file, error, kept) from error


def write_json(file: Path, values) -> None:
    """Writes a whole JSON file by a temporary name."""
    replace_text(file, json.dumps(values, indent=2) + "\n")


def checked_config(config) -> dict | None:
    """`config=` as config.json will hold it: a copy, read back.

    Raises:
      TypeError: it is no mapping, or holds what JSON has no form for.
    """
    if config is None:
        return None
    try:
        if not isinstance(config, Mapping):
            raise TermwiseTypeError(f"it is a {type(config).__name__}")
        return json.loads(json.dumps(dict(config), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise TermwiseTypeError(
            f"config= cannot be kept as JSON: {error}. Give a dict of numbers, strings, booleans, "
            "None, lists and dicts."
        ) from error


def _read_object(file: Path, advice: str) -> dict | None:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        where = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise TermwiseError(f"{file} is not JSON ({where}). {advice}") from None
    if not isinstance(values, dict):
        raise TermwiseError(f"{file} holds a {type(values).__name__}, not an object. {advice}")
    return values


def _row(file: Path, number: int, line: bytes) -> dict:
    """One line of metrics.jsonl, checked for what resuming reads of it."""
    try:
        row = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        reason = "is not JSON" if isinstance(error, json.JSONDecodeError) else str(error)
        raise _edited(file, number, reason) from None
    if not isinstance(row, dict):
        raise _edited(file, number, f"holds a {type(row).__name__}, not an object")
    for key in ("step", "split", "total"):
        if key not in row:
            raise _edited(file, number, f"has no {key!r}")
    step, split, total = row["step"], row["split"], row["total"]
    if type(step) is not int or step < 0:
        raise _edited(file, number, f"has step {step!r}, not a whole number from 0 on")
    if split not in ("train", "eval"):
        raise _edited(file, number, f"has split {split!r}, neither 'train' nor 'eval'")
    if isinstance(total, bool) or not isinstance(total, (int, float, type(None))):
        raise _edited(file, number, f"has total {total!r}, neither a number nor null")
    return row


def _edited(file: Path, number: int, reason: str) -> ValueError:
    return TermwiseError(
        f"{file}, line {number}: {reason}. The run's rows are not to be edited: restore the line, "
        "or delete it."
    )


def _refuse(name: str):
    raise TermwiseError(f"holds {name}, which is not JSON")


def _revision() -> str | None:
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
