"""The files of a run: config.json, starts.jsonl, metrics.jsonl, DONE.json."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from losses.errors import TermwiseError, TermwiseTypeError
from trainer.persistence.checkpoint_files import manifest_steps
from trainer.persistence.disk import find_obstacle, read_file
from trainer.persistence.errors import StrangerError, error_class
from trainer.persistence.files import (
    Lines,
    PinnedFolder,
    flush_to_disk,
    refusal,
    replace_text,
)
from trainer.persistence.metrics_file import METRICS, MetricsFile, size_of


class Workdir:
    """One run's folder.

    Whole files are written to a temporary name and renamed; a line that does not fit on the disk
    is taken back. Whatever the disk refuses is an OSError that names the file, the reason, and
    the newest checkpoint. Once a run has begun to write, its path must lead to the same folder:
    where that was moved or deleted, the next write is an error, and no other folder is made.

    Attributes:
      metrics: the rows.
    Raises:
      TypeError: `path` is no path.
      OSError: no run can be kept there; `NotADirectoryError` where a file is in the way,
        `PermissionError` where there is no permission to write.
    """

    def __init__(self, path):
        if not isinstance(path, (str, os.PathLike)) or not str(path):
            raise TermwiseTypeError(f"workdir={path!r}: give a folder, as a string or a path.")
        self._path = Path(path)
        obstacle = find_obstacle(self._path)
        if obstacle is not None:
            between = ": " if obstacle.kind is PermissionError else " "
            advice = "Give another folder."
            if obstacle.kind is NotADirectoryError:
                advice = "Give a folder; it is made when missing."
            raise error_class(obstacle.kind)(
                f"workdir={str(path)!r}{between}{obstacle.reason}. {advice}"
            )
        self._folder = PinnedFolder(self._path)
        self.metrics = MetricsFile(self._path / METRICS, lambda: self._writing(METRICS))

    @property
    def path(self) -> Path:
        """The folder; FileNotFoundError where it is no longer the one that the run writes to."""
        self._folder.check()
        return self._path

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def events(self) -> Path:
        """The folder of TensorBoard's event files."""
        return self.path / "tb"

    def start(
        self, config: dict | None, resumed_from: int | None, more: dict | None = None
    ) -> dict:
        """Makes the folder, keeps the configuration of the first start, notes this one.

        Args:
          config: of the run; written by the first start alone.
          resumed_from: the step that was restored; None for a run that begins.
          more: what else the line in starts.jsonl holds.
        Returns:
          dict: of `changed_fields`, what the configuration has otherwise than at the first start.
        """
        with self._writing("") as folder:
            folder.mkdir(parents=True, exist_ok=True)
        self._folder.pin()
        done = os.path.lexists(self._path / "DONE.json")
        with self._writing("DONE.json") as file:
            file.unlink(missing_ok=True)  # the run goes on
        changed: dict = {}
        if config is not None:
            with self._writing("config.json") as file:
                _write_once(file, config)
            changed = changed_fields(_first_config(file, config), config)
        note = {**_start_note(resumed_from), **({"changed": changed} if changed else {})}
        self.note({**note, **({"was_done": True} if done else {}), **(more or {})})
        return changed

    def restored(self, to: int, not_finite: int) -> None:
        """Notes in starts.jsonl that the run went back to a step, for one that was not finite."""
        self.note({"time": _now(), "resumed_from": to, "not_finite": not_finite})

    def note(self, values: dict) -> None:
        """Appends a line to starts.jsonl."""
        with self._writing("starts.jsonl") as file:
            starts = Lines(file)
            try:
                starts.append(json.dumps(values))
                starts.sync()
            finally:
                starts.close()
            flush_to_disk(file.parent)

    def noted(self, key: str):
        """What the last line of starts.jsonl that holds it says of a key; None where none does."""
        return next((note[key] for note in reversed(self.starts()) if key in note), None)

    def starts(self) -> list[dict]:
        """The lines of starts.jsonl, but those that are torn or edited."""
        try:
            lines = read_file(self.path / "starts.jsonl").decode().splitlines()
        except (OSError, ValueError):
            return []
        notes = []
        for line in lines:
            with suppress(ValueError, RecursionError):
                notes.append(json.loads(line))
        return [note for note in notes if isinstance(note, dict)]

    def cut_metrics(self, step: int) -> list[dict]:
        """Drops the rows after `step`, and a torn last line; returns those that stay.

        Raises:
          ValueError: a line is not a row, as after editing by hand; the message names it.
          FileExistsError: at step 0, a file that would be lost is of no run that was started here.
        """
        self._folder.pin()
        if not step:
            self._check_strangers()
        return self.metrics.cut(step)

    def _check_strangers(self) -> None:
        """Raises where a folder in which no run was started holds what a run would remove."""
        if os.path.lexists(self._path / "starts.jsonl"):
            return
        for name in (METRICS, "DONE.json"):
            if size_of(self._path / name):
                raise StrangerError(
                    f"{self._path / name} is of no run that was started there, and would be lost. "
                    "Move it, or use another workdir."
                )

    def done(self, values: dict) -> None:
        """DONE.json: the final values and the duration."""
        with self._writing("DONE.json") as file:
            write_json(file, values)

    def add_to_done(self, values: dict) -> None:
        """Adds to the DONE.json of a finished run, or replaces what it holds of that name.

        Raises:
          ValueError: DONE.json was edited, or removed since the run finished.
        """
        file = self.path / "DONE.json"
        held = _read_object(file, "Delete it, and start the same command again.")
        if held is None:
            raise TermwiseError(f"{file} is gone since the run finished. Start the same command.")
        self.done({**held, **values})

    def seconds(self) -> float | None:
        """How long a finished run took; None for one that did not finish.

        Raises:
          ValueError: DONE.json was edited.
        """
        file = self.path / "DONE.json"
        values = _read_object(file, "Delete it; the checkpoints and metrics.jsonl hold the run.")
        if values is None:
            return None
        seconds = values.get("seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise TermwiseError(
                f"{file}: seconds is {seconds!r}, not a number. "
                "Delete it; the checkpoints and metrics.jsonl hold the run."
            )
        return seconds

    @contextmanager
    def _writing(self, name: str):
        """Gives the path of a file to be written; what the disk refuses says what to do."""
        file = self.path / name
        try:
            yield file
        except OSError as error:
            steps = manifest_steps(self._path / "checkpoints")
            newest = str(self._path / "checkpoints" / f"ckpt-{steps[0]}") if steps else None
            raise refusal(file, error, newest) from error


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


def _first_config(file: Path, now: dict) -> Mapping:
    """The configuration of the first start; `now` where it cannot be read: nothing differs then."""
    try:
        return _read_object(file, "Restore it.") or now
    except TermwiseError:
        return now


def changed_fields(first: Mapping, now: Mapping) -> dict:
    """The fields of a configuration that are other than at the first start: dotted name -> value.

    Example:
      >>> changed_fields({"steps": 200, "net": {"units": 4}}, {"steps": 400, "net": {"units": 8}})
      {'steps': 400, 'net.units': 8}
    """
    changed: dict = {}
    for name, value in now.items():
        before = first.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            inside = changed_fields(before, value)
            changed.update({f"{name}.{key}": each for key, each in inside.items()})
        elif name not in first or before != value:
            changed[name] = value
    return changed


def _write_once(file: Path, values: dict) -> None:
    """Writes a JSON file that is not there yet.

    Raises:
      OSError: something stands in its place that is no file, or the disk refuses.
    """
    try:
        read_file(file)
    except FileNotFoundError:
        write_json(file, values)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _start_note(resumed_from: int | None) -> dict:
    """What a line of starts.jsonl says of this start."""
    import keras
    import tensorflow as tf

    return {
        "time": _now(),
        "argv": sys.argv,
        "folder": os.getcwd(),
        "overrides": [word for word in sys.argv[1:] if word.startswith("--config.")],
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
        "git": _revision(),
        "resumed_from": resumed_from,
    }


def _read_object(file: Path, advice: str) -> dict | None:
    """The object that a JSON file holds; None where there is no file."""
    try:
        values = json.loads(read_file(file).decode())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        where = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise TermwiseError(f"{file} is not JSON ({where}). {advice}") from None
    if not isinstance(values, dict):
        raise TermwiseError(f"{file} holds a {type(values).__name__}, not an object. {advice}")
    return values


def _revision() -> str | None:
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
