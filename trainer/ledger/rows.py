"""The ledger: one row per log window, whose total is the sum of weight times raw."""

from __future__ import annotations

import math
import time

import numpy as np


class Nonfinite(FloatingPointError):
    """A term or the gradient was not finite in a log window; `.terms` names the terms."""

    def __init__(self, message, terms):
        super().__init__(message)
        self.terms = terms


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


def window_row(names, sums) -> dict[str, float]:
    """Means over the steps of a log window, given its `window.Sums`.

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


class History:
    """What `fit` returns: `rows`, one dict per log window, the lines of metrics.jsonl."""

    def __init__(self, rows=()):
        self.rows: list[dict] = list(rows)

    def append(self, row: dict) -> None:
        self.rows.append(row)

    def last(self, split="train") -> dict | None:
        return next((row for row in reversed(self.rows) if row["split"] == split), None)

    def cut(self, step: int) -> None:
        """Drops the rows after a step."""
        self.rows[:] = [row for row in self.rows if row["step"] <= step]

    def first(self, split="train") -> dict | None:
        return next((row for row in self.rows if row["split"] == split), None)


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


def ledger_table(history: History) -> str:
    """The table at the end of a run: term, raw, weight, weighted, share of total, first, last.

    Below it the loss parameters, in the first window and in the last.
    """
    first, last = history.first(), history.last()
    if not first or not last:
        return ""
    names = [key.removeprefix("terms/") for key in last if key.startswith("terms/")]
    total = last["total"]
    rows = [("term", "raw", "weight", "weighted", "share", "first", "last")]
    for name in names:
        weighted = last[f"terms/{name}"]
        share = f"{100 * weighted / total:.1f}%" if total and weighted is not None else "-"
        rows.append(
            (
                name,
                _number(last[f"raw/{name}"]),
                _number(last[f"weight/{name}"]),
                _number(weighted),
                share,
                _number(first.get(f"terms/{name}")),
                _number(weighted),
            )
        )
    rows.append(("total", "", "", _number(total), "100%", _number(first["total"]), _number(total)))
    table = format_table(rows)
    learned = [key for key in last if key.startswith("loss_parameters/")]
    if learned:
        held = [("loss parameter", "first", "last")]
        for key in learned:
            name = key.removeprefix("loss_parameters/")
            held.append((name, _number(first.get(key)), _number(last[key])))
        table += "\n" + format_table(held)
    return table


def format_table(rows) -> str:
    """Columns padded to equal width; the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _number(value) -> str:
    return "-" if value is None else f"{value:.4g}"
