"""From a checkpoint's files to variables; where the two do not fit, how they differ by name."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from losses.errors import TermwiseError
from trainer.model.variables import tensor_variable
from trainer.persistence.manifest import UNREADABLE, Marker, check, find_newest, read_marker

_VALUE = re.compile(r"([^/]+)/(\d+)/\.ATTRIBUTES/VARIABLE_VALUE")
_SHOWN = 6  # lines of an error that name variables


class Held(NamedTuple):
    """One variable: its path, shape and dtype."""

    path: str
    shape: tuple
    dtype: str

    def __str__(self):
        return f"{self.path} {self.shape}"


class WarmStart(NamedTuple):
    """What `initialize_from` loaded.

    Attributes:
      path: of the checkpoint.
      loss_parameters: names of those that were loaded.
      left: names of those that the checkpoint does not have; they keep their initial values.
    """

    path: str
    loss_parameters: list[str]
    left: list[str]


def named_variables(state: Mapping) -> dict[str, dict]:
    """The variables of a state by list and name, in order.

    Args:
      state: list name -> variables, or a dict of them by name; a list's are named by their paths,
        the second of two alike `<path>_1`. Empty lists are left out.
    """
    named: dict[str, dict] = {}
    for part, held in state.items():
        pairs = held.items() if isinstance(held, Mapping) else ((_path(v), v) for v in held)
        found: dict = {}
        for path, variable in pairs:
            count, free = 1, path
            while free in found:
                free, count = f"{path}_{count}", count + 1
            found[free] = tensor_variable(variable)
        if found:
            named[part] = found
    return named


def describe_variables(named: dict[str, dict]) -> dict[str, list]:
    """What a marker keeps: list name -> [[path, shape, dtype], ...]."""
    return {
        part: [[path, v.shape.as_list(), v.dtype.name] for path, v in held.items()]
        for part, held in named.items()
    }


def load(named: dict[str, dict], marker: Marker) -> None:
    """Assigns a checkpoint's values to the variables, by their places in the lists.

    Raises:
      ValueError: the checkpoint holds other variables; nothing was assigned.
      OSError: a file went away or cannot be read.
    """
    reader = _Reader(marker)
    _check_fit(marker.path, named, reader.variables())
    for part, held in named.items():
        reader.assign(part, enumerate(held.values()))


def initialize_from(path, state: Mapping, *, loss_parameters: bool = True) -> WarmStart:
    """Warm start: gives a new run the model weights of another run.

    Args:
      path: the other run's workdir, its `checkpoints/`, or one checkpoint in there.
      state: as `Checkpoints` takes it; of it "model" is loaded by place, and "terms" by name.
      loss_parameters: whether loss parameters are loaded too, those that both runs have.
    Returns:
      WarmStart.
    Raises:
      FileNotFoundError: no checkpoint is there.
      ValueError: the model or a loss parameter is another one, or the checkpoint is damaged.

    Example:
      >>> import tempfile, keras
      >>> from trainer.persistence.checkpoint import Checkpoints
      >>> def model():
      ...     return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
      >>> first, folder = model(), Path(tempfile.mkdtemp())
      >>> _ = Checkpoints(folder, {"model": first.variables}, 3).save(5, wait=True)
      >>> second = model()
      >>> initialize_from(folder, {"model": second.variables}).loss_parameters
      []
      >>> bool((first.get_weights()[0] == second.get_weights()[0]).all())
      True
    """
    marker = _marker_of(Path(path))
    named = named_variables({part: state.get(part, []) for part in ("model", "terms")})
    model, terms = {"model": named.get("model", {})}, named.get("terms", {})
    reader = _Reader(marker)
    saved = reader.variables()
    _check_fit(marker.path, model, {"model": saved.get("model", [])})
    both: dict[str, int] = {}
    if loss_parameters and terms:
        if "terms" in saved and not marker.variables:
            raise TermwiseError(
                f"{marker.path} was written by an older version and does not name its loss "
                "parameters. Start from the model alone: loss_parameters=False."
            )
        places = {one.path: place for place, one in enumerate(saved.get("terms", []))}
        both = {name: places[name] for name in terms if name in places}
        pair = {"loss parameters": {name: terms[name] for name in both}}
        of_both = [saved["terms"][place] for place in both.values()]
        _check_fit(marker.path, pair, {"loss parameters": of_both})
    reader.assign("model", enumerate(model["model"].values()))
    reader.assign("terms", ((place, terms[name]) for name, place in both.items()))
    return WarmStart(marker.path, list(both), [name for name in terms if name not in both])


def _marker_of(path: Path) -> Marker:
    """The marker of a checkpoint, or of the newest whole one of a folder."""
    name = re.fullmatch(r"(ckpt-\d+)(\.\w+.*)?", path.name)
    if name and not path.is_dir():
        file = path.parent / f"{name[1]}.json"
        try:
            marker = read_marker(file)
            check(marker)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{path}: no such checkpoint: {file.name} is not there. Give a workdir, or the "
                "path of a checkpoint without its suffix."
            ) from None
        except ValueError as error:
            raise TermwiseError(
                f"{path} is damaged: {error}. Give another checkpoint, or the workdir to take "
                "its newest whole one."
            ) from None
        return marker
    inside = path / "checkpoints"
    found = find_newest(inside if inside.is_dir() else path, warnings.warn)
    if found is None:
        raise FileNotFoundError(
            f"{path} holds no checkpoint. Give the workdir of a run that has saved one, or the "
            "path of a checkpoint."
        )
    return found


class _Reader:
    """A checkpoint's data files; what TensorFlow raises of them becomes an OSError."""

    def __init__(self, marker: Marker):
        self._marker = marker
        with self._reading():
            self._reader = tf.train.load_checkpoint(marker.path)

    def variables(self) -> dict[str, list[Held]]:
        """What the files hold, by list; named by the marker where it fits them."""
        with self._reading():
            shapes = self._reader.get_variable_to_shape_map()
            dtypes = self._reader.get_variable_to_dtype_map()
        places: dict[str, dict[int, Held]] = {}
        for key, shape in shapes.items():
            if found := _VALUE.fullmatch(key):
                part, place = found[1], int(found[2])
                one = Held(f"{part}/{place}", tuple(shape), dtypes[key].name)
                places.setdefault(part, {})[place] = one
        saved = {part: [held[i] for i in sorted(held)] for part, held in places.items()}
        for part, described in self._marker.variables.items():
            held = saved.get(part, [])
            if len(described) == len(held):
                pairs = zip(held, described, strict=True)
                saved[part] = [one._replace(path=path) for one, (path, *_) in pairs]
        return saved

    def assign(self, part: str, places) -> None:
        """Gives each (place in the list, variable) its value."""
        for place, variable in places:
            with self._reading():
                value = self._reader.get_tensor(f"{part}/{place}/.ATTRIBUTES/VARIABLE_VALUE")
            variable.assign(value)

    @contextmanager
    def _reading(self):
        try:
            yield
        except UNREADABLE as error:
            reason = str(error).splitlines()[0][:200]
            raise OSError(
                f"{self._marker.path} cannot be read: {reason}. Start again: the newest whole "
                "checkpoint is looked for anew."
            ) from error


def _check_fit(path: str, named: dict[str, dict], saved: dict[str, list[Held]]) -> None:
    counts, lines = [], []
    for part in [*named, *(part for part in saved if part not in named)]:
        now = [Held(n, tuple(v.shape), v.dtype.name) for n, v in named.get(part, {}).items()]
        then = saved.get(part, [])
        differing = list(_differences(now, then))
        if not differing:
            continue
        lines += differing
        if len(now) != len(then):
            counts.append(f"{part} has {len(now)} variables, the checkpoint {len(then)}")
        else:
            counts.append(f"{part} differs")
    if not lines:
        return
    more = [f"... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    raise TermwiseError(
        "\n  ".join([f"{path} does not fit this run: {'; '.join(counts)}.", *lines[:_SHOWN], *more])
        + "\nRestore it with the same model, optimizer and terms, or use a new workdir."
    )


def _differences(now: list[Held], then: list[Held]) -> Iterator[str]:
    """Lines that tell two lists apart; variables are restored by place, so order counts."""
    alike = [one[1:] for one in now] == [one[1:] for one in then]
    paths, saved_paths = [one.path for one in now], [one.path for one in then]
    if alike and (paths == saved_paths or set(paths) != set(saved_paths)):
        return  # another name alone is the automatic numbering, or a layer that was renamed
    mine, theirs = _aligned(now, then)
    for key, one in mine.items():
        other = theirs.get(key)
        if other is None:
            yield f"missing in the checkpoint: {one}"
        elif other.shape != one.shape:
            yield f"another shape: {one}, the checkpoint {other.shape}"
        elif other.dtype != one.dtype:
            yield f"another dtype: {one.path} {one.dtype}, the checkpoint {other.dtype}"
    yield from (f"only in the checkpoint: {theirs[key]}" for key in theirs if key not in mine)
    if set(mine) == set(theirs) and list(mine) != list(theirs):
        moved = next(a for a, b in zip(mine, theirs, strict=True) if a != b)
        place = list(theirs).index(moved)
        yield f"another order: {mine[moved].path} stands at {list(mine).index(moved)}, not {place}"


def _aligned(now: list[Held], then: list[Held]) -> tuple[dict, dict]:
    """Both lists by path; by path with automatic numbers counted anew where that fits better."""
    exact = {one.path: one for one in now}, {one.path: one for one in then}
    anew = (
        dict(zip(_counted_anew(now), now, strict=True)),
        dict(zip(_counted_anew(then), then, strict=True)),
    )
    return max(exact, anew, key=lambda pair: len(set(pair[0]) & set(pair[1])))


def _counted_anew(held: list[Held]) -> list[str]:
    """Paths in which `dense_7`, the first of its name, is `dense`, and the next `dense_1`."""
    seen: dict[str, list[str]] = {}

    def segment(name: str) -> str:
        base = re.sub(r"_\d+$", "", name)
        of_base = seen.setdefault(base, [])
        if name not in of_base:
            of_base.append(name)
        rank = of_base.index(name)
        return f"{base}_{rank}" if rank else base

    return ["/".join(map(segment, one.path.split("/"))) for one in held]


def _path(variable) -> str:
    return getattr(variable, "path", None) or variable.name.split(":")[0]
