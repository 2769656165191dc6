"""Hints from the gradients of the terms, where diagnostics have measured them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from trainer.report.hint import Hint, Rows, listed, number

OPPOSED = -0.5  # a cosine
BALANCED = 0.1  # of a term's gradient; where that of the total is less, the terms are in balance
FEWEST_MEASURED = 5


def no_gradient(run: Rows) -> Iterator[Hint]:
    """Terms whose gradient was 0 in all measurements."""
    names = [
        name
        for name in run.terms
        if len(norms := run.column(f"grad_norm/{name}")) >= 3
        and max(norms) == 0
        and any(run.column(f"weight/{name}"))
    ]
    if names:
        measured = len(run.column(f"grad_norm/{names[0]}"))
        yield Hint(
            "no_gradient",
            f"the gradient of {listed(names)} was 0 in all {measured} measurements",
            "see that it reaches a variable that trains: stop_gradient, argmax, a cast to integers",
            tuple(names),
            {"measured": measured},
        )


def opposed(run: Rows) -> Iterator[Hint]:
    """The two terms whose gradients oppose each other most, for most of the run."""
    pairs = []
    tags = [key for key in run.keys if key.startswith("grad_cosine/")]
    measured_rows = [row for row in run.train if any(tag in row for tag in tags)]
    for tag in tags:
        pair = tag.removeprefix("grad_cosine/")
        names = _names_of(pair, run.terms)
        if run.constraints & set(names):
            continue  # it pulls against the others at its bound, as it should
        moving = [row for row in measured_rows if _moves(row, names)]
        cosines = run.column(tag, moving)
        below = [cosine for cosine in cosines if cosine < OPPOSED]
        if len(cosines) >= FEWEST_MEASURED and len(below) > 0.6 * len(cosines):
            pairs.append((statistics.median(cosines), names, len(below), len(cosines)))
    pairs.sort()
    for middle, names, below_count, measured in pairs[:1]:
        more = f" (so do {len(pairs) - 1} more pairs)" if len(pairs) > 1 else ""
        yield Hint(
            "opposed",
            f"{listed(names)} oppose each other: cosine {middle:.2f} (median), below {OPPOSED} in "
            f"{below_count} of {measured} measurements{more}",
            "see what each weighs; balancers such as PCGrad and CAGrad are made for this",
            names,
            {
                "median": middle,
                "below": below_count,
                "measured": measured,
                "pairs": len(pairs),
            },
        )


def _moves(row: dict[str, Any], names: Sequence[str]) -> bool:
    """Whether a step leads anywhere: where all is balanced, terms must oppose each other."""
    norms = [number(row.get(f"grad_norm/{name}")) or 0.0 for name in names]
    return (number(row.get("grad_norm/total")) or 0.0) >= BALANCED * max(norms)


def _names_of(pair: str, terms: Sequence[str]) -> tuple[str, ...]:
    """The two terms of `a:b`; a name may hold a colon itself."""
    for first in terms:
        second = pair.removeprefix(f"{first}:")
        if second != pair and second in terms:
            return first, second
    return (pair,)
