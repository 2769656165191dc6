"""Rows of a run that left only event files: the steps that all its tags share."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any

from trainer.report.folders import is_events, open_file
from trainer.report.hint import thinned
from trainer.report.row_index import Places

MOST_STEPS = 20000  # of a split; a run of Termwise has metrics.jsonl, which has no such bound
LONGEST = 64 << 20  # bytes of one record


class EventRows:
    """The scalars of some folders of event files, by split.

    Args:
      folders: split -> folder.

    Attributes: those of `RowIndex`; and
      missing: sentences that say what could not be joined.
    """

    damaged = 0

    def __init__(self, folders: dict[str, str]):
        self._folders = folders
        self._files: dict[str, int] = {}
        self.places = {split: Places() for split in ("train", "eval", *folders)}
        self._rows: dict[str, list[dict[str, Any]]] = {split: [] for split in self.places}
        self.read = self.size = 0
        self.missing: list[str] = []

    complete = True

    @property
    def version(self) -> str:
        """Other rows, another version."""
        return f"events.{self.read}"

    def refresh(self, seconds: float | None = None) -> None:
        """Reads the files anew where any has grown."""
        files = {path: os.path.getsize(path) for path in self._paths()}
        if files == self._files:
            return
        self._files = files
        self.missing = [
            "config.json, starts.jsonl and the rows themselves (only event files are here)"
        ]
        for split in self._rows:
            scalars = _scalars(self._folders[split]) if split in self._folders else {}
            self._rows[split] = self._joined(split, scalars)
            self.places[split] = Places()
            for number, row in enumerate(self._rows[split]):
                self.places[split].add(row["step"], number)
        self.read = self.size = sum(files.values())

    def rows(self, split: str, first: float, last: float, points: int) -> list[dict[str, Any]]:
        """At most `points` rows of a split from one step to another, evenly chosen."""
        return thinned([row for row in self._rows[split] if first <= row["step"] <= last], points)

    def _joined(self, split: str, scalars: dict[str, dict[int, Any]]) -> list[dict[str, Any]]:
        """One row for each step that all tags have; what has another cadence is said."""
        if not scalars:
            return []
        often = max(map(len, scalars.values()))
        tags = {tag: values for tag, values in scalars.items() if len(values) > often // 10}
        rare = sorted(scalars.keys() - tags.keys())
        steps = sorted(set.intersection(*(set(values) for values in tags.values())))
        everywhere = set.union(*(set(values) for values in tags.values()))
        if rare:
            self.missing.append(f"{split}: tags that are rare ({', '.join(rare[:5])})")
        if len(steps) < len(everywhere):
            left = len(everywhere) - len(steps)
            self.missing.append(f"{split}: {left} steps that only some tags have")
        rows = []
        for step in steps[:MOST_STEPS]:
            when = next(iter(tags.values()))[step][0]
            row = {"step": step, "split": split, "time": when}
            rows.append({**row, **{tag: values[step][1] for tag, values in tags.items()}})
        return rows

    def _paths(self) -> list[str]:
        return [
            path
            for folder in self._folders.values()
            for path in _event_files(folder)
            if os.path.isfile(path)
        ]


def _event_files(folder: str) -> list[str]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [os.path.join(folder, name) for name in names if is_events(name)]


def _scalars(folder: str) -> dict[str, dict[int, Any]]:
    """tag -> step -> (time, value); what a restart wrote again counts."""
    from trainer.report.plugin import read_event

    scalars: dict[str, dict[int, Any]] = {}
    for path in _event_files(folder):
        for record in _records(path):
            start, step, when, values = read_event(record)
            if start is not None:  # the run goes on there: what came later is dropped
                for steps in scalars.values():
                    for later in [at for at in steps if at >= start]:
                        del steps[later]
            for tag, value in values.items():
                scalars.setdefault(tag, {})[step] = (when, value)
    return scalars


def _records(path: str) -> Iterator[bytes]:
    """The records of a TFRecord file, up to one that was cut short."""
    descriptor = open_file(path)
    if descriptor is None:
        return
    with os.fdopen(descriptor, "rb") as file:
        while len(head := file.read(12)) == 12:
            (length,) = struct.unpack("<Q", head[:8])
            if length > LONGEST:
                return
            record = file.read(length)
            if len(record) < length or len(file.read(4)) < 4:
                return
            yield record
