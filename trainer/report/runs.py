"""The runs below a logdir as answers to the page: plain values, ready for JSON."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from trainer.launch.suggestion import nearest
from trainer.report.answers.colours import Colours
from trainer.report.answers.differences import differences
from trainer.report.answers.marks import marks_of_rows, marks_of_starts
from trainer.report.answers.picture import picture_of
from trainer.report.answers.terms import origins_of, pointed
from trainer.report.errors import ReportError
from trainer.report.event_rows import EventRows
from trainer.report.folders import METRICS, RunFolder, find_runs, read_object, read_objects
from trainer.report.hint import Hint, number
from trainer.report.hints import find_hints
from trainer.report.row_index import RowIndex

POINTS = 600  # rows of training in one picture; of evaluation, half as many
FEWEST_POINTS, MOST_POINTS = 150, 5000
PARSED = 3 << 20  # bytes of rows, about, that one picture may take to parse: of long ones, fewer
MOST_INDEXES = 256  # runs whose places of rows stay in memory
AT_ONCE = 0.5  # seconds that one answer may take to read on in a file
WIDE = "grad_cosine/"  # tags of which there are as many as pairs of terms
STAMP = ("step", "split", "time")


class Runs:
    """The runs below one folder; nothing is written there.

    Args:
      logdir: the folder; or several, by what stands before the names of their runs.
      seconds: how long one answer may read on in a file; None reads all of it.

    Attributes:
      logdirs: what stands before the names of runs -> folder.
    """

    def __init__(
        self, logdir: str | os.PathLike | Mapping[str, str], seconds: float | None = AT_ONCE
    ):
        self.logdirs: dict[str, str]
        if isinstance(logdir, Mapping):
            self.logdirs = dict(logdir)
        else:
            self.logdirs = {"": os.fspath(logdir)}
        self._seconds = seconds
        self._lock = threading.Lock()
        self._folders: dict[str, RunFolder] = {}
        self._indexes: OrderedDict[str, RowIndex | EventRows] = OrderedDict()
        self._colours = Colours()
        self._told: dict[str, tuple[str, list[Hint], dict[str, Any]]] = {}
        self._terms: dict[tuple[str, int, int], list[str]] = {}

    def overview(self) -> list[dict[str, Any]]:
        """Each run: name, terms, whether it is done, bytes of its rows and when they changed."""
        folders = {}
        for label, logdir in self.logdirs.items():
            runs = find_runs(logdir)
            for folder in runs:
                itself = label and os.path.samefile(folder.path, logdir)
                name = label if itself else f"{label}/{folder.name}" if label else folder.name
                folders[name] = replace(folder, name=name)
        with self._lock:
            self._folders = folders
        return [self._listed(folder) for folder in folders.values()]

    def listed(self) -> dict[str, Any]:
        """What the page lists.

        Returns:
          `runs` as `overview` gives them, `hues` (term or folded terms -> colour), and `first`, the
          names of those to begin with: the run that changed last.
        """
        runs = self.overview()
        newest = max(runs, key=lambda run: run["changed"], default=None)
        with self._lock:
            for run in runs:
                self._colours.learn(run["terms"])
            hues = dict(self._colours.hues)
        return {"runs": runs, "hues": hues, "first": [newest["name"]] if newest else []}

    def rows(
        self,
        name: str,
        *,
        first: float = 0,
        last: float = float("inf"),
        points: int | None = None,
        wide: bool = False,
    ) -> dict[str, Any]:
        """Whole rows of a run, thinned, as columns.

        Args:
          name: of the run.
          first, last: steps.
          points: rows of a split at most; by default as many as can be read in a moment.
          wide: with the cosines of all pairs of terms.
        Returns:
          version, read and size in bytes, complete, notes (what is not shown), and what
          `picture_of` gives: by split `count` and the columns, what is drawn of them.
        """
        if points is not None and not 1 < points <= MOST_POINTS:
            raise ReportError(f"points={points}: give 2 to {MOST_POINTS}.")
        index = self._index(name)
        index.refresh(self._seconds)
        splits = {}
        for split, places in list(index.places.items()):
            rows = index.rows(split, first, last, points or _points(index, split))
            splits[split] = {"count": places.count, **columns(rows, wide)}
        picture = picture_of(splits, _begun(index))
        with self._lock:
            self._colours.learn(list(picture["sizes"]))
        return {
            "run": name,
            "version": index.version,
            "read": index.read,
            "size": index.size,
            "complete": index.complete,
            "notes": _notes(index, splits["train"]),
            **picture,
        }

    def row(self, name: str, split: str, step: int) -> dict[str, Any]:
        """The whole row of a split at a step."""
        index = self._index(name)
        index.refresh(self._seconds)
        if split not in index.places:
            raise ReportError(f"split={split!r}: give {' or '.join(index.places)}.")
        rows = index.rows(split, step, step, 2)
        if not rows:
            raise ReportError(f"run {name!r} has no {split} row of step {step}.")
        return rows[-1]

    def hints(self, name: str) -> list[Hint]:
        """What is probably wrong with a run."""
        return self._tell(name)[0]

    def _tell(self, name: str) -> tuple[list[Hint], dict[str, Any]]:
        """The hints on a run; and as the page has them, with the marks of its rows."""
        index = self._index(name)
        index.refresh(self._seconds)
        before = self._told.get(name)
        if before is not None and before[0] == index.version:
            return before[1:]
        rows, every = [], {}
        for split, places in list(index.places.items()):
            chosen = index.rows(split, 0, float("inf"), POINTS)
            every[split] = places.count / max(len(chosen), 1)
            rows += chosen
        hints = find_hints(sorted(rows, key=lambda row: row["step"]), every)
        train = [row for row in rows if row["split"] == "train"]
        answer = {"hints": pointed(hints, rows), "marks": marks_of_rows(train)}
        self._told[name] = (index.version, hints, answer)
        return hints, answer

    def about(self, name: str) -> dict[str, Any]:
        """What a run was started with, the hints on it, and where something happened."""
        folder = self._folder(name)
        starts = read_objects(os.path.join(folder.path, "starts.jsonl"))
        done = read_object(os.path.join(folder.path, "DONE.json"))
        _, told = self._tell(name)
        return {
            "run": name,
            "config": read_object(os.path.join(folder.path, "config.json")),
            "starts": starts,
            "terms": origins_of(starts),
            "seconds": number(done.get("seconds")) if done else None,
            "hints": told["hints"],
            "marks": [*marks_of_starts(starts), *told["marks"]],
        }

    def compare(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """The fields in which the configurations of some runs differ."""
        paths = {name: self._folder(name).path for name in names}
        return differences(
            {name: read_object(os.path.join(path, "config.json")) for name, path in paths.items()}
        )

    def _listed(self, folder: RunFolder) -> dict[str, Any]:
        path = os.path.join(folder.path, METRICS)
        try:
            status = os.stat(path, follow_symlinks=False)
            size, changed, key = status.st_size, status.st_mtime, (path, status.st_ino)
        except OSError:
            size, changed, key = 0, 0.0, (path, 0)
        terms = self._terms.get((*key, min(size, 1)))
        if terms is None and not folder.events:
            terms = _first_terms(path)
            self._terms[(*key, min(size, 1))] = terms
        return {
            "name": folder.name,
            "terms": terms or [],
            "bytes": size,
            "changed": changed,
            "done": os.path.isfile(os.path.join(folder.path, "DONE.json")),
            "events_only": bool(folder.events),
        }

    def _folder(self, name: str) -> RunFolder:
        """The folder of a run that was found below the logdir; no other path can be asked for."""
        if name not in self._folders:
            self.overview()
        with self._lock:
            folders = self._folders
        if name not in folders:
            like = nearest(name, folders)
            hint = f" Did you mean {like!r}?" if like else ""
            raise ReportError(f"there is no run {name!r}.{hint}")
        return folders[name]

    def _index(self, name: str) -> RowIndex | EventRows:
        folder = self._folder(name)
        with self._lock:
            if name not in self._indexes:
                self._indexes[name] = (
                    EventRows(folder.events)
                    if folder.events
                    else RowIndex(os.path.join(folder.path, METRICS))
                )
            self._indexes.move_to_end(name)
            while len(self._indexes) > MOST_INDEXES:
                self._indexes.popitem(last=False)
            return self._indexes[name]


def _points(index: RowIndex | EventRows, split: str) -> int:
    """As many rows of a split as are read in a moment: of long rows, fewer."""
    count = sum(places.count for places in index.places.values())
    fitting = PARSED * count // max(index.read, 1)
    share = 1 if split == "train" else 2 * max(len(index.places) - 2, 1)  # the sets share a half
    return max(min(POINTS, fitting), FEWEST_POINTS) // share or 2


def _begun(index: RowIndex | EventRows) -> float | None:
    """When the first row was written."""
    firsts = [index.rows(split, 0, float("inf"), 1) for split in list(index.places)]
    times = [time for rows in firsts if rows and (time := number(rows[0].get("time"))) is not None]
    return min(times, default=None)


def _notes(index: RowIndex | EventRows, train: dict[str, Any]) -> list[str]:
    """What of a run is not shown, as sentences."""
    drawn, count = len(train["step"]), train["count"]
    notes = []
    if not index.complete:
        notes.append(f"{100 * index.read // max(index.size, 1)} % of its rows are read so far.")
    if index.damaged:
        notes.append(f"{index.damaged} lines of metrics.jsonl hold no row and are left out.")
    if index.missing:
        notes.append(f"Not drawn: {'; '.join(index.missing)}.")
    if index.complete and not any(places.count for places in index.places.values()):
        notes.append("No rows yet.")
    if drawn < count:
        notes.append(f"{drawn} of {count} rows are drawn, each whole.")
    return notes


def columns(rows: list[dict[str, Any]], wide: bool = True) -> dict[str, Any]:
    """Rows as columns: `step`, `time`, and `tags`, tag -> a value or None for each row."""
    keys = dict.fromkeys(key for row in rows for key in row)
    tags = [key for key in keys if key not in STAMP and (wide or not key.startswith(WIDE))]
    return {
        "step": [row["step"] for row in rows],
        "time": [number(row.get("time")) for row in rows],
        "tags": {tag: [_value(row.get(tag)) for row in rows] for tag in tags},
    }


def _value(value: Any) -> float | int | str | None:
    if isinstance(value, str):
        return value
    return value if number(value) is not None else None


def _first_terms(path: str) -> list[str]:
    """The terms of the first row."""
    index = RowIndex(path)
    index.refresh(0.0)
    rows = index.rows("train", 0, float("inf"), 2) or index.rows("eval", 0, float("inf"), 2)
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key.removeprefix("terms/") for key in keys if key.startswith("terms/")]
