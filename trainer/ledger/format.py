"""Rows and numbers as text: equations that add up, tables, durations."""

from __future__ import annotations

import math

from trainer.ledger.history import History

SHOWN_TERMS = 6


def equation(row: dict) -> str:
    """A row as `total 1.284 = a 1.071 + b 0.213`.

    The rounded terms add up to the rounded total. Of many terms the largest are shown, and the
    sum of the others. Terms that no step had are named behind: `(absent: c)`. Where all steps were
    skipped it says so.
    """
    terms = {k.removeprefix("terms/"): v for k, v in row.items() if k.startswith("terms/")}
    total, skipped = row["total"], row.get("skipped_steps")
    if total is None and skipped:
        return f"skipped {skipped} of {skipped}"
    if total is None:
        shown = " + ".join(f"{name} {number(value, 'nan')}" for name, value in terms.items())
        return f"total nan = {shown}"
    absent = [name for name, value in terms.items() if value is None]
    terms = {name: value for name, value in terms.items() if value is not None}
    behind = f" (absent: {', '.join(absent)})" if absent else ""
    behind += f" (skipped {skipped})" if skipped else ""
    digits = _digits([total, *terms.values()])
    terms = _fold(terms)
    rounded = round_to_sum(list(terms.values()), digits)
    signed = (
        f"{'- ' if value < 0 else '+ '}{name} {abs(value):.{digits}f}"
        for name, value in zip(terms, rounded, strict=True)
    )
    return f"total {sum(rounded):.{digits}f} = {' '.join(signed).removeprefix('+ ')}{behind}"


def _digits(values: list[float]) -> int:
    """The decimals with which the largest value shows four significant digits."""
    largest = max(map(abs, values))
    return min(max(3 - math.floor(math.log10(largest)) if largest else 3, 0), 12)


def _fold(terms: dict[str, float]) -> dict[str, float]:
    """The terms themselves, or the largest of them and the sum of the others."""
    if len(terms) <= SHOWN_TERMS:
        return terms
    largest = sorted(terms, key=lambda name: -abs(terms[name]))[: SHOWN_TERMS - 1]
    others = math.fsum(value for name, value in terms.items() if name not in largest)
    shown = {name: value for name, value in terms.items() if name in largest}
    return {**shown, f"{len(terms) - len(largest)} more": others}


def round_to_sum(values: list[float], digits: int) -> list[float]:
    """The values rounded so that they add up to their rounded sum, none moved by a whole unit."""
    unit = 10.0**digits
    whole = [math.floor(value * unit) for value in values]
    missing = round(math.fsum(values) * unit) - sum(whole)
    order = sorted(range(len(values)), key=lambda i: whole[i] - values[i] * unit)
    for index in order[:missing]:
        whole[index] += 1
    return [value / unit for value in whole]


def ledger_table(history: History) -> str:
    """The table at the end of a run: term, raw, weight, weighted, share of total, first, last.

    Below it the loss parameters and multipliers, in the first window and in the last.
    """
    return "\n".join(map(format_table, ledger_cells(history)))


def ledger_cells(history: History) -> list[list[tuple[str, ...]]]:
    """The cells of `ledger_table`: two tables, one, or none where there are no rows."""
    first, last = history.first(), history.last()
    if not first or not last:
        return []
    names = [key.removeprefix("terms/") for key in last if key.startswith("terms/")]
    total = number(last["total"])
    rows: list[tuple[str, ...]] = [("term", "raw", "weight", "weighted", "share", "first", "last")]
    rows += [_term_cells(name, first, last) for name in names]
    rows.append(("total", "", "", total, "100%", number(first["total"]), total))
    tables = [rows]
    for head, title in (("loss_parameters/", "loss parameter"), ("multiplier/", "multiplier")):
        values = [
            (key.removeprefix(head), number(first.get(key)), number(last[key]))
            for key in last
            if key.startswith(head)
        ]
        if values:
            tables.append([(title, "first", "last"), *values])
    return tables


def _term_cells(name: str, first: dict, last: dict) -> tuple[str, ...]:
    """The cells of one term in the table at the end of a run."""
    total, weighted = last["total"], last[f"terms/{name}"]
    share = f"{100 * weighted / total:.1f}%" if total and weighted is not None else "-"
    raw, weight = number(last.get(f"raw/{name}")), number(last.get(f"weight/{name}"))
    in_first = number(first.get(f"terms/{name}"))
    return name, raw, weight, number(weighted), share, in_first, number(weighted)


def format_table(rows, words: bool = False) -> str:
    """Rows of cells as lines, in columns of equal width.

    Args:
      rows: list of tuples of str, the head first.
      words: every column is aligned to the left; otherwise only the first one is, and the
        others, which hold numbers, are aligned to the right.

    Example:
      >>> print(format_table([("term", "raw"), ("mse", "0.5")]))
      term  raw
      mse   0.5
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if words or not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """`3s`, `4m 10s`, `2h 05m`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes}m {seconds:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m"


def number(value: float | None, missing: str = "-") -> str:
    """Four significant digits; `missing` where there is no number."""
    return missing if value is None else f"{value:.4g}"
