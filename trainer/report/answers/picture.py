"""What the page draws of some rows besides their values: axes, sizes, groups, small charts."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from trainer.report.answers.charts import charts_of
from trainer.report.answers.colours import group_of
from trainer.report.hint import number

Columns = dict[str, Any]


def picture_of(splits: dict[str, Columns], begun: float | None) -> dict[str, Any]:
    """What is drawn of the rows of a run.

    Args:
      splits: split -> columns `step`, `time` and `tags`; train among them.
      begun: when the first row was written; None where no row says.
    Returns:
      `splits`, with the further columns `seconds` since the first row, `examples` seen, and
      `sizes`, the absolute weighted values of all terms added up; `sizes`, term -> its mean over
      the rows of training; `groups`, term -> what it may be folded into; `negative`, whether a term
      is anywhere below zero; `charts` beside the terms.
    """
    _add_axes(splits, begun)
    tags = dict.fromkeys(tag for columns in splits.values() for tag in columns["tags"])
    names = dict.fromkeys(name for columns in splits.values() for name in _terms(columns))
    return {
        "splits": splits,
        "sizes": _sizes(splits["train"]),
        "groups": {name: group_of(name) for name in names},
        "negative": any(map(_has_negative, splits.values())),
        "charts": charts_of(tags),
    }


def _add_axes(splits: dict[str, Columns], begun: float | None) -> None:
    """Adds `seconds`, `examples` and `sizes` to the columns of each split."""
    train = splits["train"]
    seen = _examples(train)
    for split, columns in splits.items():
        times = columns["time"]
        columns["seconds"] = [None if time is None else time - (begun or 0) for time in times]
        terms = [map(_size, values) for values in _terms(columns).values()]
        columns["sizes"] = [sum(row) for row in zip(*terms, strict=True)]
        steps = columns["step"]
        columns["examples"] = (
            seen if split == "train" else [_between(train["step"], seen, step) for step in steps]
        )


def _sizes(columns: Columns) -> dict[str, float]:
    """Term -> the mean of its absolute weighted value, where it has one."""
    sizes = {}
    for name, values in _terms(columns).items():
        there = [_size(value) for value in values if number(value) is not None]
        sizes[name] = sum(there) / len(there) if there else 0.0
    return sizes


def _has_negative(columns: Columns) -> bool:
    """Whether a term is anywhere below zero."""
    return any((number(value) or 0) < 0 for values in _terms(columns).values() for value in values)


def _terms(columns: Columns) -> dict[str, list[Any]]:
    tags = columns["tags"].items()
    return {tag.removeprefix("terms/"): each for tag, each in tags if tag.startswith("terms/")}


def _size(value: Any) -> float:
    return abs(number(value) or 0.0)


def _examples(train: Columns) -> list[float]:
    """Examples seen: between two rows as many a step as the later one says."""
    steps, tags = train["step"], train["tags"]
    nothing = [None] * len(steps)
    rates = tags.get("examples_per_second", nothing)
    speeds = tags.get("steps_per_second", nothing)
    examples, seen, before, batch = [], 0.0, 0, 1.0
    for step, rate, speed in zip(steps, rates, speeds, strict=True):
        if rate and speed and rate > 0 and speed > 0:
            batch = rate / speed
        seen += (step - before) * batch
        before = step
        examples.append(seen)
    return examples


def _between(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """y at x on the straight line between two points; outside of them in proportion."""
    if not xs:
        return x
    i = bisect_left(xs, x)
    if i == len(xs) or i == 0 or xs[i] == x:
        i = min(i, len(xs) - 1)
        return ys[i] * (x / xs[i] if xs[i] else 1.0)
    return ys[i - 1] + (x - xs[i - 1]) / (xs[i] - xs[i - 1]) * (ys[i] - ys[i - 1])
