"""How the variables of a run differ from those of a checkpoint, by name."""

from __future__ import annotations

import re
from collections.abc import Iterator

import tensorflow as tf

from losses.errors import TermwiseError
from trainer.persistence.reader import SavedVariable

_SHOWN = 6  # lines of an error that name variables


def check_fit(path: str, named: dict[str, dict], saved: dict[str, list[SavedVariable]]) -> None:
    """Raises ValueError where a checkpoint holds other variables than the run has.

    Args:
      path: of the checkpoint.
      named: list name -> path -> variable, of the run.
      saved: list name -> variables, of the checkpoint.
    """
    heads, lines = [], []
    for part in [*named, *(part for part in saved if part not in named)]:
        now = [
            SavedVariable(name, tuple(variable.shape), variable.dtype.name)
            for name, variable in named.get(part, {}).items()
        ]
        then = saved.get(part, [])
        differing = list(_differences(now, then))
        if not differing:
            continue
        lines += differing
        if len(now) != len(then):
            heads.append(f"{part} has {len(now)} variables, the checkpoint {len(then)}")
        else:
            heads.append(f"{part} differs")
    if not lines:
        return
    more = [f"... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    raise TermwiseError(
        "\n  ".join([f"{path} does not fit this run: {'; '.join(heads)}.", *lines[:_SHOWN], *more])
        + "\nRestore it with the same model, optimizer and terms, or use a new workdir."
    )


def _differences(now: list[SavedVariable], then: list[SavedVariable]) -> Iterator[str]:
    """Lines that tell two lists apart; variables are restored by place, so order counts."""
    if _same_places(now, then):
        return
    ours, theirs = _aligned(now, then)
    for key, variable in ours.items():
        if key not in theirs:
            yield f"missing in the checkpoint: {variable}"
        elif (line := _other_kind(variable, theirs[key])) is not None:
            yield line
    yield from (f"only in the checkpoint: {theirs[key]}" for key in theirs if key not in ours)
    if set(ours) == set(theirs) and list(ours) != list(theirs):
        moved = next(a for a, b in zip(ours, theirs, strict=True) if a != b)
        now_at, then_at = list(ours).index(moved), list(theirs).index(moved)
        yield f"another order: {ours[moved].path} stands at {now_at}, not {then_at}"


def _same_places(now: list[SavedVariable], then: list[SavedVariable]) -> bool:
    """Whether each place has a variable of the same shape and dtype, and none has moved.

    Another name alone is the automatic numbering, or a layer that was renamed; the same names in
    another order are other variables.
    """
    if len(now) != len(then):
        return False
    if any(_other_kind(*pair) is not None for pair in zip(now, then, strict=True)):
        return False
    paths, saved_paths = ([variable.path for variable in side] for side in (now, then))
    return paths == saved_paths or set(paths) != set(saved_paths)


def _other_kind(variable: SavedVariable, saved: SavedVariable) -> str | None:
    if not tf.TensorShape(variable.shape).is_compatible_with(saved.shape):
        return f"another shape: {variable}, the checkpoint {saved.shape}"
    if saved.dtype != variable.dtype:
        return f"another dtype: {variable.path} {variable.dtype}, the checkpoint {saved.dtype}"
    return None


def _aligned(now: list[SavedVariable], then: list[SavedVariable]) -> tuple[dict, dict]:
    """Both lists by path; by path with automatic numbers counted anew where that fits better."""
    exact = {v.path: v for v in now}, {v.path: v for v in then}
    counted_anew = (
        dict(zip(_counted_anew(now), now, strict=True)),
        dict(zip(_counted_anew(then), then, strict=True)),
    )
    return max(exact, counted_anew, key=lambda pair: len(set(pair[0]) & set(pair[1])))


def _counted_anew(variables: list[SavedVariable]) -> list[str]:
    """Paths in which `dense_7`, the first of its name, is `dense`, and the next `dense_1`."""
    seen: dict[str, list[str]] = {}

    def segment(name: str) -> str:
        base = re.sub(r"_\d+$", "", name)
        of_base = seen.setdefault(base, [])
        if name not in of_base:
            of_base.append(name)
        rank = of_base.index(name)
        return f"{base}_{rank}" if rank else base

    return ["/".join(map(segment, variable.path.split("/"))) for variable in variables]
