"""Which checkpoints count: those with a marker, written last, whose checksums hold."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from losses.errors import TermwiseError
from trainer.persistence.files import flush_to_disk, replace_text

# what TensorFlow raises of damaged data files, by their kind of damage
UNREADABLE = (tf.errors.OpError, IndexError, ValueError, RuntimeError)

_MARKER = re.compile(r"ckpt-(\d+)\.json")
_INDEX = re.compile(r"ckpt-(\d+)\.index")
_DATA = re.compile(r"ckpt-(\d+)\.(index|data-\d{5}-of-\d{5})")
# what a killed writer leaves: TensorFlow's folder of parts, its temporary files, and ours
_REMAINS = re.compile(
    r"ckpt-\d+_temp|ckpt-\d+\..*tempstate\d+|checkpoint\.tmp.*|(ckpt-\d+|best)\.json\.tmp"
)


class Marker(NamedTuple):
    """What `ckpt-<step>.json` says of a checkpoint.

    Attributes:
      path: of the checkpoint, without a suffix.
      step: the global step.
      files: name -> {"sha256": hex, "bytes": size}.
      variables: list name -> [[path, shape, dtype], ...], in the order saved; empty where an
        older version wrote the checkpoint.
      metrics: the row's numbers at this step.
    """

    path: str
    step: int
    files: dict
    variables: dict
    metrics: dict


def mark(path: str, variables: dict, metrics: dict) -> Marker:
    """Makes a written checkpoint count: flushes and hashes its files, then writes its marker.

    Args:
      path: `.../ckpt-<step>`, without a suffix.
      variables, metrics: as in `Marker`.
    Raises:
      OSError: a file is missing or shorter than its values, or the disk refuses.
      ValueError: what the marker was to say is not what a marker can.
    """
    marker_file = Path(f"{path}.json")
    files, found = {}, _files_of(path)
    for file in found:
        flush_to_disk(file)
        files[file.name] = {"sha256": _digest(file), "bytes": file.stat().st_size}
    expected = sum(_bytes(shape, dtype) for held in variables.values() for _, shape, dtype in held)
    written = sum(file.stat().st_size for file in found)
    if len(files) < 2 or written < expected:
        raise OSError(f"{path} was not written whole: {written} bytes of {expected} or more")
    step = int(marker_file.stem.removeprefix("ckpt-"))
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    values = {"step": step, "time": now, "files": files, "variables": variables, "metrics": metrics}
    replace_text(marker_file, json.dumps(values, allow_nan=False) + "\n")
    return read_marker(marker_file)


def read_marker(file: Path) -> Marker:
    """A marker from its file.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is not what `mark` writes; the message is one clause.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise TermwiseError(f"{file.name} is not JSON ({error})") from None
    if not isinstance(values, dict):
        raise TermwiseError(f"{file.name} holds a {type(values).__name__}, not an object")
    step = values.get("step")
    if type(step) is not int or file.name != f"ckpt-{step}.json":
        raise TermwiseError(f"{file.name} holds step={step!r}")
    files, variables, metrics = values.get("files"), values.get("variables"), values.get("metrics")
    if not isinstance(files, dict) or len(files) < 2:
        raise TermwiseError(f"{file.name} holds no list of its files")
    if not all(_is_file(step, name, told) for name, told in files.items()):
        raise TermwiseError(f"{file.name} holds a file that is none of this checkpoint's")
    if not isinstance(variables, dict) or not all(map(_are_variables, variables.values())):
        raise TermwiseError(f"{file.name} holds no list of its variables")
    if not isinstance(metrics, dict) or not all(map(_is_number, metrics.values())):
        raise TermwiseError(f"{file.name} holds metrics that are not numbers")
    return Marker(str(file.with_suffix("")), step, files, variables, metrics)


def check(marker: Marker) -> None:
    """Reads every byte of a checkpoint.

    Raises:
      ValueError: a file is missing, of another size, or was changed; the message is one clause.
    """
    folder = Path(marker.path).parent
    for name, told in marker.files.items():
        file = folder / name
        try:
            size = file.stat().st_size
            if size != told["bytes"]:
                raise TermwiseError(f"{name} has {size} bytes of {told['bytes']}")
            if _digest(file) != told["sha256"]:
                raise TermwiseError(f"{name} was changed after it was written")
        except FileNotFoundError:
            raise TermwiseError(f"{name} is missing") from None


def find_newest(directory: Path, say, known: dict | None = None) -> Marker | None:
    """The newest checkpoint that counts and is whole.

    Where no checkpoint of the folder has a marker (an older version wrote them, or the first
    save was cut short), the newest of which every tensor can be read.

    Args:
      directory: `checkpoints/` of a workdir.
      say: called with a sentence where a newer one was passed over.
      known: step -> Marker of those already checked.
    Returns:
      Marker, or None where there is none.
    Raises:
      ValueError: there are marked ones, and none is whole.
    """
    known, passed = known or {}, []
    steps = marked_steps(directory)
    for step in steps:
        file = directory / f"ckpt-{step}.json"
        try:
            marker = read_marker(file)
            if known.get(step) != marker:
                check(marker)
        except FileNotFoundError:
            continue  # its writer has just removed it
        except ValueError as error:
            if file.exists():
                passed.append(str(error))
            continue
        if passed:
            say(f"{directory}: {'; '.join(passed)}. Restoring the newest whole one, ckpt-{step}.")
        return marker
    if passed:
        raise TermwiseError(
            f"{directory}: no checkpoint is whole: {'; '.join(passed[:3])}. Bring the files back, "
            "or use a new workdir."
        )
    return None if steps else _find_unmarked(directory, say)


def _find_unmarked(directory: Path, say) -> Marker | None:
    passed = []
    for step in _steps(directory, _INDEX):
        path = str(directory / f"ckpt-{step}")
        try:
            reader = tf.train.load_checkpoint(path)
            for name in reader.get_variable_to_shape_map():
                reader.get_tensor(name)  # TensorFlow's own checksums are checked by reading
        except UNREADABLE as error:
            passed.append(f"ckpt-{step} cannot be read ({str(error).splitlines()[0][:120]})")
            continue
        if passed:
            say(f"{directory}: {'; '.join(passed)}. Restoring the newest whole one, ckpt-{step}.")
        return Marker(path, step, {}, {}, {})
    if passed:
        say(f"{directory}: {'; '.join(passed)}. None is whole: starting from the beginning.")
    return None


def marked_steps(directory: Path) -> list[int]:
    """The steps that have a marker, newest first; none is checked."""
    return _steps(directory, _MARKER)


def remove(path: str) -> None:
    """Deletes a checkpoint, its marker first: half deleted, it no longer counts."""
    Path(f"{path}.json").unlink(missing_ok=True)
    for file in _files_of(path):
        file.unlink(missing_ok=True)


def remove_remains(directory: Path) -> None:
    """Deletes what a killed writer left: parts and, once one is marked, unmarked checkpoints."""
    for entry in list(directory.iterdir()) if directory.exists() else []:
        if _REMAINS.fullmatch(entry.name):
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)
    marked = set(marked_steps(directory))
    if marked:
        for step in set(_steps(directory, _DATA)) - marked:
            remove(str(directory / f"ckpt-{step}"))


def _files_of(path: str) -> list[Path]:
    """Index and data files, sorted by name."""
    folder, name = Path(path).parent, Path(path).name
    return sorted(file for file in folder.glob(f"{name}.*") if _DATA.fullmatch(file.name))


def _steps(directory: Path, pattern: re.Pattern) -> list[int]:
    try:
        names = [entry.name for entry in directory.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted({int(m[1]) for m in map(pattern.fullmatch, names) if m}, reverse=True)


def _digest(file: Path) -> str:
    found = hashlib.sha256()
    with open(file, "rb") as opened:
        while block := opened.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def _bytes(shape, dtype: str) -> int:
    return 0 if dtype == "string" else math.prod(shape) * tf.as_dtype(dtype).size


def _is_file(step: int, name: str, told) -> bool:
    found = _DATA.fullmatch(name)  # nothing outside the folder, nothing of another step
    return (
        found is not None
        and int(found[1]) == step
        and isinstance(told, dict)
        and type(told.get("bytes")) is int
        and isinstance(told.get("sha256"), str)
    )


def _are_variables(held) -> bool:
    return isinstance(held, list) and all(
        isinstance(one, list)
        and len(one) == 3
        and isinstance(one[0], str)
        and isinstance(one[1], list)
        and all(type(size) is int for size in one[1])
        and isinstance(one[2], str)
        for one in held
    )


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _refuse(name: str):
    raise TermwiseError(f"it holds {name}")
