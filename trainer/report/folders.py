"""The runs below a folder, and their small files, read without following links out of it."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

METRICS = "metrics.jsonl"
OF_A_RUN = {"checkpoints", "tb", "export", "nonfinite", "lock"}  # no other run lies in these
SPLITS = {"train": "train", "eval": "eval", "validation": "eval"}  # folders of event files
MOST_RUNS = 5000
SMALL = 8 << 20  # bytes of a configuration that are read


@dataclass(frozen=True)
class RunFolder:
    """A run below a logdir.

    Attributes:
      name: its path below the logdir, as text.
      path: the folder.
      events: of a run that has only event files, split -> folder; empty where it has rows.
    """

    name: str
    path: str
    events: dict[str, str]


def find_runs(logdir: str | os.PathLike) -> list[RunFolder]:
    """The runs at and below a folder, in the order of their names.

    A run is a folder with metrics.jsonl, or one with event files alone. Symbolic links are not
    followed. The events of one run, `runs/q1/tb`, stand for that run.
    """
    top = os.fspath(logdir)
    above, last = os.path.split(os.path.abspath(top))
    if last == "tb" and _is_file(os.path.join(above, METRICS)):
        return [RunFolder(os.path.basename(above), above, {})]
    runs: list[RunFolder] = []
    for path, names, files in _walk(top):
        if METRICS in files:
            names -= OF_A_RUN
            runs.append(RunFolder(_name(top, path), path, {}))
        elif splits := _event_splits(path, names, files):
            names -= set(SPLITS)
            runs.append(RunFolder(_name(top, path), path, splits))
        if len(runs) >= MOST_RUNS:
            break
    return sorted(runs, key=lambda run: run.name)


def read_object(path: str) -> dict | None:
    """The object in a JSON file; None where there is none, or it cannot be read."""
    text = _read(path)
    try:
        values = json.loads(text) if text is not None else None
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def read_objects(path: str) -> list[dict]:
    """The objects in a file with one on each line; other lines are passed over."""
    objects = []
    for line in (_read(path) or b"").splitlines():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            objects.append(value)
    return objects


def open_file(path: str) -> int | None:
    """The descriptor of a regular file that is no link; None where there is none."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None


def _walk(top: str) -> Iterator[tuple[str, set[str], set[str]]]:
    """(path, names of folders, names of files); folders taken from the set are not entered."""
    waiting = [top]
    while waiting:
        path = waiting.pop()
        names, files = set(), set()
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        names.add(entry.name)
                    elif entry.is_file(follow_symlinks=False):
                        files.add(entry.name)
        except OSError:
            continue  # gone meanwhile, or not ours to read
        yield path, names, files
        waiting += [os.path.join(path, name) for name in sorted(names, reverse=True)]


def _event_splits(path: str, names: set[str], files: set[str]) -> dict[str, str]:
    """split -> folder, of a folder that has event files or folders of them by split."""
    folders = {SPLITS[name]: os.path.join(path, name) for name in sorted(names & SPLITS.keys())}
    sets = folders.get("eval", "")
    folders |= {f"eval/{name}": os.path.join(sets, name) for name in sorted(_names(sets))}
    splits = {
        split: folder
        for split, folder in folders.items()
        if not os.path.islink(folder) and any(map(is_events, _names(folder)))
    }
    if not splits and any(map(is_events, files)):
        splits = {"train": path}
    return splits


def is_events(name: str) -> bool:
    """Whether a file of this name holds TensorBoard's events."""
    return ".tfevents." in name


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _name(top: str, path: str) -> str:
    below = os.path.relpath(path, top)
    if below == ".":
        below = os.path.basename(os.path.abspath(top)) or "."
    return os.fsencode(below).decode("utf-8", "replace").replace(os.sep, "/")


def _is_file(path: str) -> bool:
    return os.path.isfile(path) and not os.path.islink(path)


def _read(path: str) -> bytes | None:
    descriptor = open_file(path)
    if descriptor is None:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read(SMALL)
