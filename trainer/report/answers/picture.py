"""What the page draws of some rows besides their values: axes, sizes, groups, small charts."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from trainer.report.answers.charts import charts_of
from trainer.report.answers.colours import group_of

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
    train = splits["train"]
    seen = _examples(train)
    terms = {split: _terms(columns) for split, columns in splits.items()}
    for split, columns in splits.items():
        times, steps = columns["time"], columns["step"]
        columns["seconds"] = [None if time is None else time - (begun or 0) for time in times]
        columns["examples"] = (
            seen if split == "train" else [_between(train["step"], seen, step) for step in steps]
        )
        sizes = [[abs(value or 0.0) for value in values] for values in terms[split].values()]
        columns["sizes"] = [sum(row) for row in zip(*sizes, strict=True)]
    every = [(name, values) for each in terms.values() for name, values in each.items()]
    return {
        "splits": splits,
        "sizes": {name: _mean_size(values) for name, values in terms["train"].items()},
        "groups": {name: group_of(name) for name, _ in every},
        "negative": any((value or 0) < 0 for _, values in every for value in values),
        "charts": charts_of(tag for columns in splits.values() for tag in columns["tags"]),
    }


def _terms(columns: Columns) -> dict[str, list[float | None]]:
    """Term -> its weighted values; None where there is no number."""
    return {
        tag.removeprefix("terms/"): [None if isinstance(value, str) else value for value in values]
        for tag, values in columns["tags"].items()
        if tag.startswith("terms/")
    }


def _mean_size(values: Sequence[float | None]) -> float:
    there = [abs(value) for value in values if value is not None]
    return sum(there) / len(there) if there else 0.0


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
