"""The ledger: one row per log window, whose total is the sum of weight times raw."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from losses.terms.constraint import Constraint
from trainer.ledger.window import StackedSums, WindowSums

STAMP = ("step", "split", "time", "phase")  # what a row has beside its tags


def term_entries(names, raw, weight) -> dict[str, Any]:
    """`total`, `terms/*`, `raw/*`, `weight/*` of values [T]; weighted = weight * raw.

    The total is summed in float64 from the very numbers that stand beside it. A term whose raw
    value is None is not there: its entries are None, and the total is that of the others.
    """
    raw = [None if value is None else float(value) for value in raw]
    return _entries(_tags(tuple(names)), raw, [float(value) for value in weight])


@functools.lru_cache(maxsize=16)
def _tags(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The tags of the terms' weighted values, of their raw values, and of their weights."""
    return [tuple(f"{head}/{name}" for name in names) for head in ("terms", "raw", "weight")]


def _entries(tags, raw: list, weight: list) -> dict[str, Any]:
    """What `term_entries` says, of floats, by the tags of `_tags`."""
    weighted = [None if r is None else w * r for r, w in zip(raw, weight, strict=True)]
    there = [value for value in weighted if value is not None]
    exact = all(map(math.isfinite, there))
    row: dict[str, Any] = {"total": (math.fsum(there) if exact else sum(there)) if there else None}
    if len(there) < len(weight):
        weight = [None if r is None else w for r, w in zip(raw, weight, strict=True)]
    for of_head, values in zip(tags, (weighted, raw, weight), strict=True):
        row.update(zip(of_head, values, strict=True))
    return row


def window_row(names, sums: WindowSums) -> dict[str, Any]:
    """The row of one log window; see `window_rows`."""
    return window_rows(names, StackedSums.stack([sums]))[0]


def window_rows(names, sums: StackedSums) -> list[dict[str, Any]]:
    """Means over the steps of W log windows, from their sums; None where no step counts.

    A raw value is the mean over the steps that have the term; what it adds to the total is a mean
    over all steps. A term's weight is weighted / raw of the window, so that the row adds up under
    schedules too; where raw is 0 the last step's, times the share of steps that have the term.
    """
    mass = np.asarray(sums.mass, np.float64)
    divisor = np.where(mass, mass, 1)[:, None]
    there = mass[:, None] - sums.absent
    last = _decimals(sums.weight) * (there / divisor)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        raw, weighted = sums.raw / there, sums.weighted / divisor
        weight = weighted / raw
        moved = np.abs(weight - last) > 1e-6 * np.abs(last)
    weight = np.where((raw != 0) & np.isfinite(weight) & moved, weight, last).tolist()
    values = raw.tolist()
    for window, term in np.argwhere(there == 0).tolist():
        values[window][term] = None
    norms = (sums.grad_norm / divisor[:, 0]).tolist()
    tags, rows = _tags(tuple(names)), []
    for number, (steps, skipped) in enumerate(
        zip(sums.steps.tolist(), sums.skipped.tolist(), strict=True)
    ):
        row = _entries(tags, values[number], weight[number])
        row["grad_norm/total"] = norms[number] if steps else None
        if skipped:
            row["skipped_steps"] = skipped
        rows.append(row)
    return rows


def _decimals(weight: np.ndarray) -> np.ndarray:
    """float64 [W, T], the shortest decimals of float32: 0.1, not 0.10000000149."""
    if len(weight) > 1 and (weight == weight[0]).all():
        weight = weight[:1]
    return np.asarray([[float(str(value)) for value in row] for row in weight])


def violations(constraints: Iterable[Constraint], row: Mapping) -> dict[str, float | None]:
    """`violation/*`, by how much the raw values of a row break their bounds; None where absent."""
    raw = {constraint: row.get(f"raw/{constraint.name}") for constraint in constraints}
    return {
        f"violation/{constraint.name}": None if value is None else constraint.violation(value)
        for constraint, value in raw.items()
    }


def stamped(row: dict, *, step: int, split: str, seconds: float | None = None) -> dict:
    """The row as it is written: with step, split and time, null for what is not finite.

    Args:
      seconds: the time, since 1970; now by default.
    """
    clean = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }
    return {"step": step, "split": split, "time": seconds or time.time(), **clean}
