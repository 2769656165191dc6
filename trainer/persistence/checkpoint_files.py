"""The files of the checkpoints of a folder by their names: which steps there are, what may go.

`ckpt-<step>.index` and `ckpt-<step>.data-*` are TensorFlow's, `ckpt-<step>.json` is the manifest.
Nothing here needs TensorFlow, and no file is opened.
"""

from __future__ import annotations

import re
from pathlib import Path

_MANIFEST = re.compile(r"ckpt-(\d+)\.json")
_INDEX = re.compile(r"ckpt-(\d+)\.index")
_DATA = re.compile(r"ckpt-(\d+)\.(index|data-\d{5}-of-\d{5})")
# what a killed writer leaves: TensorFlow's folder of parts, its temporary files, and ours
_REMAINS = re.compile(
    r"ckpt-\d+_temp|ckpt-\d+\..*tempstate\d+|checkpoint\.tmp.*|(ckpt-\d+|best)\.json\.tmp"
)
_PART = re.compile(r"part-\d{5}.*")  # in the folder of parts


def manifest_steps(directory: Path) -> list[int]:
    """The steps that have a manifest, newest first; none is checked."""
    return _steps(directory, _MANIFEST)


def index_steps(directory: Path) -> list[int]:
    """The steps that have an index file, with or without a manifest, newest first."""
    return _steps(directory, _INDEX)


def data_files(path: str) -> list[Path]:
    """The index and data files of the checkpoint `.../ckpt-<step>`, sorted by name."""
    folder, name = Path(path).parent, Path(path).name
    return sorted(
        file
        for file in _entries(folder)
        if file.name.startswith(f"{name}.") and _DATA.fullmatch(file.name)
    )


def step_of_data(name: str) -> int | None:
    """The step of an index or data file by its name; None for any other name."""
    matched = _DATA.fullmatch(name)
    return None if matched is None else int(matched[1])


def remove(path: str) -> None:
    """Deletes the checkpoint `.../ckpt-<step>`, its manifest first: half deleted, it is none."""
    Path(f"{path}.json").unlink(missing_ok=True)
    for file in data_files(path):
        file.unlink(missing_ok=True)


def remove_remains(directory: Path) -> None:
    """Deletes what a killed writer left.

    These are the parts of a checkpoint and, once another one has a manifest, the checkpoints
    without one.
    """
    for entry in _entries(directory):
        if not _REMAINS.fullmatch(entry.name):
            continue
        if entry.is_dir() and not entry.is_symlink():
            _remove_parts(entry)
        else:
            entry.unlink(missing_ok=True)
    complete = set(manifest_steps(directory))
    if complete:
        for step in set(_steps(directory, _DATA)) - complete:
            remove(str(directory / f"ckpt-{step}"))


def _remove_parts(folder: Path) -> None:
    """Deletes a folder of parts; where it holds something else too, the parts alone."""
    for entry in _entries(folder):
        if _PART.fullmatch(entry.name) and not (entry.is_dir() and not entry.is_symlink()):
            entry.unlink(missing_ok=True)
    if not _entries(folder):
        folder.rmdir()


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _steps(directory: Path, pattern: re.Pattern) -> list[int]:
    matches = (pattern.fullmatch(entry.name) for entry in _entries(directory))
    return sorted({int(matched[1]) for matched in matches if matched}, reverse=True)
