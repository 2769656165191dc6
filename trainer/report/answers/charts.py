"""The small charts beside the terms: which there are, and of which tags their lines are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

NORM, OF_TOTAL = "grad_norm/", "grad_norm/total"
BEFORE = {
    "metrics/": "metric",
    "loss_parameters/": "loss parameter",
    "multiplier/": "constraint",
    "violation/": "constraint",
    "helps/": "more weight",
}


def charts_of(tags: Iterable[str]) -> list[list[Any]]:
    """[kind, name, tags] of each chart, in their order.

    Args:
      tags: all that the rows of a run have.
    """
    tags = list(dict.fromkeys(tags))
    charts: list[list[Any]] = []
    for head, kind in BEFORE.items():
        bare = head in ("metrics/", "loss_parameters/")
        for tag in tags:
            if tag.startswith(head):
                charts.append([kind, tag.removeprefix(head) if bare else tag, [tag]])
    norms = [tag for tag in tags if tag.startswith(NORM) and tag != OF_TOTAL]
    if norms:
        charts.append(["", "gradient norms of the terms", norms])
    if OF_TOTAL in tags:
        charts.append(["", "gradient norm of the total", [OF_TOTAL]])
    rates = [tag for tag in tags if tag.startswith("learning_rate")]
    speeds = [tag for tag in tags if tag.endswith("_per_second")]
    return [*charts, *(["", tag.replace("_per_", " per "), [tag]] for tag in rates + speeds)]
