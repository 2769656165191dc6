"""The ledger: one row per log window, whose total is the sum of weight times raw."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from losses.terms.constraint import Constraint
from trainer.ledger.window import WindowSums

STAMP = ("step", "split", "time", "phase")  # what a row has beside its tags


def term_entries(names, raw, weight) -> dict[str, Any]:
    """`total`, `terms/*`, `raw/*`, `weight/*` of values [T]; weighted = weight * raw.

    The total is summed in float64 from the very numbers that stand beside it. A term whose raw
    value is None is not there: its entries are None, and the total is that of the others.
    """
    triples = [
        (name, float(w) * float(r), float(r), float(w)) if r is not None else (name, *[None] * 3)
        for name, r, w in zip(names, raw, weight, strict=True)
    ]
    there = [weighted for _, weighted, *_ in triples if weighted is not None]
    exact = all(map(math.isfinite, there))
    row = {"total": (math.fsum(there) if exact else sum(there)) if there else None}
    for place, head in enumerate(("terms", "raw", "weight"), 1):
        row.update({f"{head}/{entry[0]}": entry[place] for entry in triples})
    return row


def window_row(names, sums: WindowSums) -> dict[str, Any]:
    """Means over the steps of a log window, from its sums; None where no step counts.

    A raw value is the mean over the steps that have the term; what it adds to the total is a mean
    over all steps. A term's weight is weighted / raw of the window, so that the row adds up under
    schedules too; where raw is 0 the last step's, times the share of steps that have the term.
    """
    mass = sums.mass or 1
    there = sums.mass - sums.absent + np.zeros(len(names))
    # the shortest decimal of a float32: 0.1, not 0.10000000149
    last = np.asarray([float(str(value)) for value in sums.weight]) * (there / mass)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        raw, weighted = sums.raw / there, sums.weighted / mass
        weight = weighted / raw
        moved = np.abs(weight - last) > 1e-6 * np.abs(last)
    weight = np.where((raw != 0) & np.isfinite(weight) & moved, weight, last)
    row = term_entries(names, [r if n else None for r, n in zip(raw, there, strict=True)], weight)
    row["grad_norm/total"] = sums.grad_norm / mass if sums.steps else None
    if sums.skipped:
        row["skipped_steps"] = sums.skipped
    return row


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
