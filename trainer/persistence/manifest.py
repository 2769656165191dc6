"""Which checkpoints count: those with a manifest, written last, whose checksums hold."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from losses.errors import TermwiseError
from trainer.persistence.checkpoint_files import (
    data_files,
    index_steps,
    manifest_steps,
    step_of_data,
)
from trainer.persistence.disk import read_file
from trainer.persistence.errors import FileError
from trainer.persistence.files import flush_to_disk, replace_text
from trainer.persistence.reader import check_readable


class Manifest(NamedTuple):
    """What `ckpt-<step>.json` says of a checkpoint.

    Attributes:
      path: of the checkpoint, without a suffix.
      step: the global step.
      files: name -> {"sha256": hex, "bytes": size}.
      variables: list name -> [[path, shape, dtype], ...], in the order saved; empty where an
        older version wrote the checkpoint.
      metrics: the row's numbers at this step.
      rows_bytes: the size of metrics.jsonl when the checkpoint was saved; None where an older
        version wrote the checkpoint.
      trains: what trained, as `trainer/run/training.py` tells it; None in an older version.
    """

    path: str
    step: int
    files: dict
    variables: dict
    metrics: dict
    rows_bytes: int | None = None
    trains: dict | None = None


def without_manifest(path: str, step: int = -1) -> Manifest:
    """What is known of a checkpoint of an older version: where it is."""
    return Manifest(path, step, {}, {}, {})


def write_manifest(
    path: str,
    variables: dict,
    metrics: dict,
    rows_bytes: int | None = None,
    trains: dict | None = None,
) -> Manifest:
    """Makes a written checkpoint count: flushes and hashes its files, then writes its manifest.

    Args:
      path: `.../ckpt-<step>`, without a suffix.
      variables, metrics, rows_bytes, trains: as in `Manifest`.
    Raises:
      OSError: a file is missing or shorter than its values, or the disk refuses.
      ValueError: the manifest could not be read back.
    """
    manifest_file = Path(f"{path}.json")
    files, written = {}, data_files(path)
    for file in written:
        flush_to_disk(file)
        files[file.name] = {"sha256": _digest(file), "bytes": file.stat().st_size}
    expected = sum(_bytes(shape, dtype) for part in variables.values() for _, shape, dtype in part)
    size = sum(file.stat().st_size for file in written)
    if len(files) < 2 or size < expected:
        raise FileError(f"{path} was not written whole: {size} bytes of {expected} or more")
    values = {
        "step": int(manifest_file.stem.removeprefix("ckpt-")),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "files": files,
        "variables": variables,
        "metrics": metrics,
    }
    if rows_bytes is not None:
        values["rows_bytes"] = rows_bytes
    if trains is not None:
        values["trains"] = trains
    replace_text(manifest_file, json.dumps(values, allow_nan=False) + "\n")
    return read_manifest(manifest_file)


def read_manifest(file: Path) -> Manifest:
    """A manifest from its file.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is not what `write_manifest` writes; the message is one clause.
    """
    try:
        values = json.loads(read_file(file).decode(), parse_constant=_refuse)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise TermwiseError(f"{file.name} is not JSON ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise TermwiseError(f"{file.name} is not JSON ({error})") from None
    if not isinstance(values, dict):
        raise TermwiseError(f"{file.name} holds a {type(values).__name__}, not an object")
    step = values.get("step")
    if type(step) is not int or file.name != f"ckpt-{step}.json":
        raise TermwiseError(f"{file.name} holds step={step!r}")
    fault = _find_fault(step, values)
    if fault is not None:
        raise TermwiseError(f"{file.name} holds {fault}")
    files, variables, metrics = (values[key] for key in ("files", "variables", "metrics"))
    path, rows_bytes = str(file.with_suffix("")), values.get("rows_bytes")
    return Manifest(path, step, files, variables, metrics, rows_bytes, values.get("trains"))


def check_files(manifest: Manifest) -> None:
    """Reads every byte of a checkpoint.

    Raises:
      ValueError: a file is missing, of another size, or was changed; the message is one clause.
    """
    folder = Path(manifest.path).parent
    for name, told in manifest.files.items():
        file = folder / name
        try:
            size = file.stat().st_size
            if size != told["bytes"]:
                raise TermwiseError(f"{name} has {size} bytes of {told['bytes']}")
            if _digest(file) != told["sha256"]:
                raise TermwiseError(f"{name} was changed after it was written")
        except FileNotFoundError:
            raise TermwiseError(f"{name} is missing") from None


def find_newest(
    directory: Path, say: Callable[[str], object], known: dict[int, Manifest] | None = None
) -> Manifest | None:
    """The newest checkpoint that counts and is whole.

    Where no checkpoint of the folder has a manifest (an older version wrote them, or the first
    save was cut short), the newest of which every tensor can be read.

    Args:
      directory: `checkpoints/` of a workdir.
      say: called with a sentence where a newer one was passed over.
      known: step -> Manifest of those already checked.
    Returns:
      Manifest, or None where there is none.
    Raises:
      ValueError: there are some with a manifest, and none is whole.
    """
    steps, damages = manifest_steps(directory), []
    for step in steps:
        try:
            manifest = _whole(directory / f"ckpt-{step}.json", known or {})
        except TermwiseError as error:
            damages.append(str(error))
            continue
        if manifest is not None:
            _say_passed_over(directory, damages, step, say)
            return manifest
    if damages:
        raise TermwiseError(
            f"{directory}: no checkpoint is whole: {'; '.join(damages[:3])}. Bring the files back, "
            "or use a new workdir."
        )
    return None if steps else _find_without_manifest(directory, say)


def _whole(file: Path, known: dict[int, Manifest]) -> Manifest | None:
    """The manifest of a whole checkpoint; None where its writer has just removed it.

    Raises:
      ValueError: the manifest or a file is damaged.
    """
    try:
        manifest = read_manifest(file)
        if known.get(manifest.step) != manifest:
            check_files(manifest)
    except FileNotFoundError:
        return None
    except TermwiseError:
        if file.exists():
            raise
        return None
    return manifest


def _find_without_manifest(directory: Path, say) -> Manifest | None:
    damages = []
    for step in index_steps(directory):
        path = str(directory / f"ckpt-{step}")
        if (reason := check_readable(path)) is not None:
            damages.append(f"ckpt-{step} cannot be read ({reason})")
            continue
        _say_passed_over(directory, damages, step, say)
        return without_manifest(path, step)
    if damages:
        say(f"{directory}: {'; '.join(damages)}. None is whole: starting from the beginning.")
    return None


def _say_passed_over(directory: Path, damages: list[str], step: int, say) -> None:
    if damages:
        say(f"{directory}: {'; '.join(damages)}. Restoring the newest whole one, ckpt-{step}.")


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _bytes(shape, dtype: str) -> int:
    return 0 if dtype == "string" else math.prod(shape) * tf.as_dtype(dtype).size


def _find_fault(step: int, values: dict) -> str | None:
    """What is wrong with the fields of a manifest, as a clause; None where nothing is."""
    files, variables, metrics = (values.get(key) for key in ("files", "variables", "metrics"))
    if not isinstance(files, dict) or len(files) < 2:
        return "no list of its files"
    if not all(_is_file(step, name, told) for name, told in files.items()):
        return "a file that is none of this checkpoint's"
    if not isinstance(variables, dict) or not all(map(_are_variables, variables.values())):
        return "no list of its variables"
    if not isinstance(metrics, dict) or not all(map(_is_number, metrics.values())):
        return "metrics that are not numbers"
    rows_bytes = values.get("rows_bytes", 0)
    if not _is_size(rows_bytes):
        return f"rows_bytes={rows_bytes!r}"
    return None if _says_what_trains(values.get("trains")) else "no account of what trains"


def _is_file(step: int, name: str, told) -> bool:
    return (
        step_of_data(name) == step  # nothing outside the folder, nothing of another step
        and isinstance(told, dict)
        and type(told.get("bytes")) is int
        and isinstance(told.get("sha256"), str)
    )


def _are_variables(part) -> bool:
    return isinstance(part, list) and all(map(_is_variable, part))


def _is_variable(described) -> bool:
    if not isinstance(described, list) or len(described) != 3:
        return False
    path, shape, dtype = described
    sizes = isinstance(shape, list) and all(type(size) is int for size in shape)
    return isinstance(path, str) and sizes and isinstance(dtype, str)


def _says_what_trains(trains) -> bool:
    if trains is None:
        return True
    if not isinstance(trains, dict) or not isinstance(trains.get("slots"), dict):
        return False
    settings = all(isinstance(trains.get(key), str) for key in ("first", "now"))
    slots = trains["slots"].values()
    return settings and all(
        isinstance(places, list) and all(type(place) in (int, str) for place in places)
        for places in slots
    )


def _is_size(value) -> bool:
    return type(value) is int and value >= 0


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _refuse(name: str):
    raise TermwiseError(f"it holds {name}")
