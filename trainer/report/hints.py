"""What is probably wrong with an objective, from the rows of its run alone.

Each rule says nothing unless it is sure: it looks at whole stretches of a run, never at one row.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from trainer.report.gradient_hints import no_gradient, opposed
from trainer.report.hint import FEWEST, WHOLE_SIZE, Hint, Rows, listed, mean, number, percent, shown

WHOLE, NOTHING = 0.99, 1e-4  # shares of the total that are too large, and too small
FEWEST_EVALS = 5
DRIFT = 1.25  # times its lowest value, by which the evaluation of a term has risen
SKIPPED = 0.05
SLOW, SLOW_SECONDS = 0.5, 120.0  # of the speed before; runs that took less are too short to tell
PLAIN = ("regularization/", "add_loss/", "uncertainty/")
STILL = 1e-7  # of a value's size: less is no change


def find_hints(rows: Sequence[dict[str, Any]], every: dict[str, float] | None = None) -> list[Hint]:
    """The hints on a run, the most serious first; none for a healthy one.

    Args:
      rows: dicts as in metrics.jsonl, in order, of both splits.
      every: split -> how many rows of the file each of these stands for, where they were thinned.
    Example: a term that is not trained at all
      >>> row = {"split": "train", "time": 0.0, "terms/a": 1.0, "raw/a": 1.0, "weight/a": 1.0}
      >>> row.update({"terms/b": 0.0, "weight/b": 0.0})
      >>> rows = [{"step": i, "total": 1.0 / i, **row, "raw/b": i} for i in range(1, 9)]
      >>> rows = [{**row, "terms/a": row["total"], "raw/a": row["total"]} for row in rows]
      >>> [str(hint) for hint in find_hints(rows)][0].split(":")[0]
      "the weight of 'b' is 0 throughout"
    """
    run = Rows(rows, every)
    hints: list[Hint] = list(_skipped(run))
    if len(run.train) >= FEWEST:
        for rule in RULES:
            hints += rule(run)
    return hints


def _skipped(run: Rows) -> Iterator[Hint]:
    share = min(run.skipped / run.steps, 1.0) if run.steps > 0 else 0.0
    if share > SKIPPED:
        yield Hint(
            "skipped",
            f"{percent(share)} of the steps were skipped as not finite",
            "lower the learning rate or clip gradients; --mode=replay names the term",
            numbers={"share": share, "skipped": run.skipped, "steps": run.steps},
        )


def _falling(run: Rows) -> Iterator[Hint]:
    """A total below zero that falls as fast as before, with the term that it is owed to."""
    totals = run.column("total")
    quarter = len(totals) // 4
    if quarter < 2 or max(totals[-2 * quarter :]) >= 0:
        return
    third, last = mean(totals[-2 * quarter : -quarter]), mean(totals[-quarter:])
    second = mean(totals[-3 * quarter : -2 * quarter])
    if third - last < 0.75 * max(second - third, 1e-3 * abs(last)):
        return
    if any(_negative_uncertainty(run)):
        return  # that one says why
    lowest = min(run.terms, key=lambda name: (run.column(f"terms/{name}") or [0.0])[-1])
    value = (run.column(f"terms/{lowest}") or [0.0])[-1]
    yield Hint(
        "falling",
        f"the total is below 0 and falls as fast as before ({shown(third)}, then {shown(last)}), "
        f"owing to '{lowest}' ({shown(value)})",
        "see that this term has a lower bound",
        (lowest,),
        {"before": third, "last": last, "term": value},
    )


def _negative_uncertainty(run: Rows) -> Iterator[Hint]:
    """An uncertainty weight on a term that is negative, however the total moves."""
    for name in run.terms:
        if f"uncertainty/{name}" not in run.terms:
            continue
        raw = run.column(f"raw/{name}")
        half = raw[len(raw) // 2 :]
        if len(half) >= FEWEST // 2 and max(half) < 0 and half[-1] < half[0]:
            yield Hint(
                "negative_uncertainty",
                f"'{name}' has an uncertainty weight and is negative ({shown(half[-1])})",
                "the weight then grows without bound; weigh it by a number, or make it at least 0",
                (name,),
                {"raw": half[-1]},
            )


def _drifting(run: Rows) -> Iterator[Hint]:
    """A term whose evaluation rises while its training value goes on falling."""
    for split, rows in run.sets.items():
        if len(rows) >= FEWEST_EVALS:
            for name in run.terms:
                if (hint := _drift(run, split, rows, name)) is not None:
                    yield hint


def _drift(run: Rows, split: str, rows: list, name: str) -> Hint | None:
    """The hint on one term and the rows of one validation set."""
    tag = f"raw/{name}"
    places = [row for row in rows if number(row.get(tag)) is not None]
    values = run.column(tag, places)
    if len(values) < FEWEST_EVALS or min(values) <= 0:
        return None
    lowest = values.index(min(values))
    end = mean(values[-(len(values) // 3 or 1) :])
    if len(values) - lowest < 4 or end < DRIFT * values[lowest] or _weighs_little(run, rows, name):
        return None
    at = places[lowest]["step"]
    before = [row for row in run.train if row["step"] <= at][-3:]
    first, last = run.column(tag, before), run.column(tag, run.train[-3:])
    if not first or not last or mean(last) > 0.9 * mean(first):
        return None
    where = "the evaluation" if split == "eval" else f"'{split}'"
    return Hint(
        "drift",
        f"'{name}' of {where} rises since step {at} ({shown(values[lowest])} to "
        f"{shown(values[-1])}) while that of training falls ({shown(mean(first))} to "
        f"{shown(mean(last))})",
        "it overfits: stop there (EarlyStopping, keep_best), or regularize",
        (name,),
        {"step": at, "lowest": values[lowest], "eval": values[-1], "train": mean(last)},
    )


def _weighs_little(run: Rows, rows: list, name: str) -> bool:
    """Whether a term is less than 2 % of the last evaluation."""
    row = rows[-1]
    whole = sum(abs(number(row.get(f"terms/{other}")) or 0.0) for other in run.terms)
    return abs(number(row.get(f"terms/{name}")) or 0.0) < 0.02 * whole


def _shares(run: Rows, names: Iterable[str]) -> list[float]:
    """The share of some terms in the sum of all absolute values, row by row."""
    shares, names = [], list(names)
    for sizes in run.sizes:
        there = [sizes[name] for name in names if name in sizes]
        whole = sizes[WHOLE_SIZE]
        if there and whole > 0:
            shares.append(sum(there) / whole)
    return shares


def _one_is_all(run: Rows) -> Iterator[Hint]:
    # one loss with small regularizers is how most models are trained
    weighed = [
        name
        for name in run.terms
        if not name.startswith(PLAIN) and any(run.column(f"weight/{name}"))
    ]
    if len(weighed) < 2:
        return
    for name in weighed:
        shares = _shares(run, [name])
        if len(shares) >= FEWEST and min(shares) > WHOLE:
            yield Hint(
                "dominates",
                f"'{name}' is more than {percent(WHOLE)} of the total throughout (at least "
                f"{percent(min(shares))})",
                "see the weights of the others, or the unit of this one",
                (name,),
                {"least": min(shares)},
            )


def _is_nothing(run: Rows) -> Iterator[Hint]:
    negligible = []
    for group, names in run.groups().items():
        if group.startswith("uncertainty/") or run.constraints & set(names):
            continue
        shares = _shares(run, names)
        if len(shares) >= FEWEST and 0 < max(shares) < NOTHING:
            negligible.append((group, max(shares)))
    if negligible:
        names, most = [group for group, _ in negligible], max(share for _, share in negligible)
        verb = "is" if len(names) == 1 else "are each"
        yield Hint(
            "negligible",
            f"{listed(names)} {verb} less than 0.01 % of the total throughout (at most "
            f"{percent(most)})",
            "raise its weight, or leave it out",
            tuple(names),
            {"most": most},
        )


def _unmoved(values: Sequence[float]) -> bool:
    return max(values) - min(values) <= STILL * max(map(abs, values))


def _weightless(run: Rows) -> Iterator[Hint]:
    names = [
        name
        for name in run.terms
        if len(weights := run.column(f"weight/{name}")) >= FEWEST
        and not any(weights)
        and name not in run.constraints
    ]
    if names:
        verb = "weight" if len(names) == 1 else "weights"
        yield Hint(
            "weightless",
            f"the {verb} of {listed(names)} {'is' if len(names) == 1 else 'are'} 0 throughout",
            "logged but not trained; see loss_weights=",
            tuple(names),
        )


def _constant(run: Rows) -> Iterator[Hint]:
    names = [
        name
        for name in run.terms
        if len(raw := run.column(f"raw/{name}")) >= FEWEST
        and _unmoved(raw)
        and any(run.column(f"weight/{name}"))
    ]
    if names:
        value = run.column(f"raw/{names[0]}")[-1]
        yield Hint(
            "constant",
            f"{listed(names)} never changed ({shown(value)})",
            "see that it reads what trains",
            tuple(names),
            {"raw": value},
        )


def _still_parameters(run: Rows) -> Iterator[Hint]:
    """Loss parameters that did not move, and those that stopped at one value while others moved."""
    rates = run.column("learning_rate") or [1.0]
    for name in run.tags("loss_parameters/"):
        values = run.column(f"loss_parameters/{name}")
        if len(values) < FEWEST:
            continue
        half = values[-(len(values) // 2) :]
        if _unmoved(values):
            yield Hint(
                "still_parameter",
                f"loss parameter '{name}' did not move from {shown(values[-1])}",
                "see that its term depends on it, and the learning rate it has",
                (name,),
                {"value": values[-1]},
            )
        elif len(set(half)) == 1 and rates[-1] > 1e-3 * max(rates):
            yield Hint(
                "at_constraint",
                f"loss parameter '{name}' is {shown(half[-1])} exactly, in all of the last half",
                "it sits on its constraint; see whether the constraint is meant",
                (name,),
                {"value": half[-1]},
            )


def _slower(run: Rows) -> Iterator[Hint]:
    speeds = run.column("steps_per_second")
    seconds = (number(run.train[-1].get("time")) or 0) - (number(run.train[0].get("time")) or 0)
    fifth = len(speeds) // 5
    if fifth < 4 or seconds < SLOW_SECONDS:
        return
    before = statistics.median(speeds[fifth : 3 * fifth])
    last = speeds[-fifth:]
    if statistics.median(last) < SLOW * before and max(last) < 0.75 * before:
        now = statistics.median(last)
        yield Hint(
            "slower",
            f"steps per second fell from {shown(before)} to {shown(now)}",
            "see what else runs on the machine; --profile_steps says where the time goes",
            numbers={"before": before, "last": now},
        )


RULES: tuple[Callable[[Rows], Iterator[Hint]], ...] = (
    _negative_uncertainty,
    _falling,
    no_gradient,
    _weightless,
    _constant,
    _one_is_all,
    opposed,
    _drifting,
    _still_parameters,
    _is_nothing,
    _slower,
)
