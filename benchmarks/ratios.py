"""What the rounds say: rates become ratios, with their spread."""

from __future__ import annotations

import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """One contestant against its reference.

    Attributes:
      best: best of its rounds / best of the reference's rounds.
      median, low, high: of the ratios within each round.
      cpu: the reference's processor time per step / its own, medians; None if not measured.
      rate: the best of its rounds, in the result's unit.
    """

    label: str
    reference: str
    rate: float
    best: float
    median: float
    low: float
    high: float
    cpu: float | None = None


def ratios(result: dict) -> list[Ratio]:
    """A `Ratio` for each contestant of a result.

    Args:
      result: "contestants": label -> {"rates": [rounds], "cpu": [rounds] or nothing};
        "references": label -> label; "lower_is_better": seconds or bytes instead of rates.

    Example:

    >>> [one] = ratios({"references": {"a": "b"}, "lower_is_better": False, "contestants": {
    ...     "a": {"rates": [2.0, 6.0, 3.0]}, "b": {"rates": [4.0, 3.0, 3.0]}}})
    >>> one.best, one.median, one.low, one.high
    (1.5, 1.0, 0.5, 2.0)
    """
    found = []
    best = min if result["lower_is_better"] else max
    for label, reference in result["references"].items():
        own, other = result["contestants"][label], result["contestants"][reference]
        each = [a / b for a, b in zip(own["rates"], other["rates"], strict=True)]
        cpu = None
        if own.get("cpu") and other.get("cpu"):
            cpu = statistics.median(other["cpu"]) / statistics.median(own["cpu"])
        rate = best(own["rates"])
        ratio = Ratio(
            label,
            reference,
            rate,
            rate / best(other["rates"]),
            statistics.median(each),
            min(each),
            max(each),
            cpu,
        )
        found.append(ratio)
    return found


def shares(result: dict) -> dict[str, dict[str, tuple[float, float]]]:
    """label -> column -> (best, median): each contestant against the fastest of some others.

    Args:
      result: as of `ratios`; "columns": column -> labels, of which each round has its fastest.

    Example:

    >>> shares({"columns": {"of the bound": ["b", "c"]}, "contestants": {
    ...     "a": {"rates": [2.0, 6.0, 3.0]}, "b": {"rates": [4.0, 3.0, 3.0]},
    ...     "c": {"rates": [8.0, 2.0, 1.0]}}})["a"]
    {'of the bound': (0.75, 1.0)}
    """
    contestants = result["contestants"]
    found: dict[str, dict[str, tuple[float, float]]] = {label: {} for label in contestants}
    for column, labels in result.get("columns", {}).items():
        fastest = [
            max(rates) for rates in zip(*(contestants[b]["rates"] for b in labels), strict=True)
        ]
        for label, one in contestants.items():
            if label in labels:
                continue
            each = [a / b for a, b in zip(one["rates"], fastest, strict=True)]
            best = max(one["rates"]) / max(fastest)
            found[label][column] = best, statistics.median(each)
    return found
