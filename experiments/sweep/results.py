"""What the settings of a sweep came to: mean and standard error over seeds, best first."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.sweep.settings import Setting


def final_values(workdir: Path) -> dict[str, float] | None:
    """The numbers of a finished run, `total` of training as that and of evaluation `eval/total`.

    The values of its checks are `checks/<name>`. None where the run is not finished.
    """
    try:
        done = json.loads((workdir / "DONE.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(done, dict):
        return None
    evaluated = done.pop("eval", None) or {}
    checks = done.pop("checks", None) or {}
    values = {
        **done,
        **{f"eval/{tag}": value for tag, value in evaluated.items()},
        **{f"checks/{name}": check["value"] for name, check in checks.items()},
    }
    return {tag: value for tag, value in values.items() if isinstance(value, (int, float))}


def choose(values: Sequence[dict[str, float]]) -> str:
    """By what settings are compared unless it is said: the evaluation's total, else training's."""
    evaluated = bool(values) and all("eval/total" in run for run in values)
    return "eval/total" if evaluated else "total"


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean and its standard error: s / √n, s with n - 1; None for one value.

    Example:
      >>> mean_and_error([1.0, 2.0, 3.0])
      (2.0, 0.577)
    """
    if len(values) < 2:
        return values[0], None
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))


def summarize(
    runs: Sequence[tuple[Setting, str, dict[str, float] | None]], by: str, descending: bool
) -> list[dict[str, Any]]:
    """One entry for each group of settings that differ in seeds alone, the best first.

    Args:
      runs: (setting, state, its values or None).
      by: the tag by which they are compared.
      descending: more is better.
    Returns:
      list of {"values", "runs", "mean", "error", "count"}; mean is None where no run has the tag.
    """
    groups: dict[tuple, list[tuple[Setting, str, dict[str, float] | None]]] = {}
    for run in runs:
        groups.setdefault(run[0].group, []).append(run)
    entries: list[dict[str, Any]] = []
    for group, members in groups.items():
        scores = [values[by] for _, _, values in members if values is not None and by in values]
        mean, error = mean_and_error(scores) if scores else (None, None)
        entries.append(
            {
                "values": dict(group),
                "mean": mean,
                "error": error,
                "count": len(scores),
                "runs": [
                    {"name": setting.name, "state": state, "values": values}
                    for setting, state, values in members
                ],
            }
        )
    sign = -1 if descending else 1
    entries.sort(key=lambda entry: (entry["mean"] is None, sign * (entry["mean"] or 0.0)))
    return entries


def table(entries: Sequence[dict[str, Any]], by: str) -> str:
    """The entries as lines, in columns."""
    fields = list(entries[0]["values"]) if entries else []
    rows = [[*fields, by, "± standard error", "runs"]]
    for entry in entries:
        states = [run["state"] for run in entry["runs"]]
        failed = len(states) - states.count("done")
        count = f"{states.count('done')}" + (f", {failed} not done" if failed else "")
        mean = "-" if entry["mean"] is None else f"{entry['mean']:.4g}"
        error = "-" if entry["error"] is None else f"{entry['error']:.2g}"
        rows.append([*(entry["values"][field] for field in fields), mean, error, count])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
