"""The ledger: one row per log window, whose total is the sum of weight times raw."""

from __future__ import annotations

import math
import time

import numpy as np

from trainer.ledger.window import WindowSums

STAMP = ("step", "split", "time")  # what a row has beside its tags


def term_entries(names, raw, weight) -> dict[str, float]:
    """`total`, `terms/*`, `raw/*`, `weight/*` of values [T]; weighted = weight * raw.

    The total is summed in float64 from the very numbers that stand beside it.
    """
    raw = [float(value) for value in raw]
    weight = [float(value) for value in weight]
    weighted = [w * r for w, r in zip(weight, raw, strict=True)]
    row = {"total": math.fsum(weighted) if all(map(math.isfinite, weighted)) else sum(weighted)}
    row.update({f"terms/{name}": value for name, value in zip(names, weighted, strict=True)})
    row.update({f"raw/{name}": value for name, value in zip(names, raw, strict=True)})
    row.update({f"weight/{name}": value for name, value in zip(names, weight, strict=True)})
    return row


def window_row(names, sums: WindowSums) -> dict[str, float]:
    """Means over the steps of a log window, from its sums.

    A term's weight is weighted / raw of the window, so that the row adds up under schedules;
    the last step's where raw is 0.
    """
    steps = max(sums.steps, 1)
    raw, weighted = sums.raw / steps, sums.weighted / steps
    # the shortest decimal of a float32: 0.1, not 0.10000000149
    last = np.asarray([float(str(value)) for value in sums.weight])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        weight = weighted / raw
        moved = np.abs(weight - last) > 1e-6 * np.abs(last)
    row = term_entries(names, raw, np.where((raw != 0) & np.isfinite(weight) & moved, weight, last))
    row["grad_norm/total"] = sums.grad_norm / steps
    if sums.skipped:
        row["skipped_steps"] = sums.skipped
    return row


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
