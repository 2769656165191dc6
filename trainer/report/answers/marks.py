"""Where something happened in a run: marks on the axis of steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from trainer.report.hint import number


def marks_of_starts(starts: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Where a run was resumed, or restored because a step was not finite.

    Args:
      starts: the lines of starts.jsonl, in their order.
    Returns:
      dicts of step, short (a word on the chart) and label. What lies behind a step that a later
      start went back to was written again: its marks are left out.
    """
    marks: list[dict[str, Any]] = []
    for start in (start for start in starts if "resumed_from" in start):
        step, bad = number(start.get("resumed_from")), number(start.get("not_finite"))
        marks = [mark for mark in marks if mark["step"] <= (step or 0)]
        if step is None:
            continue
        short, label = "resumed", f"resumed from step {step:.0f}"
        if bad is not None:
            short, label = "restored", f"step {bad:.0f} not finite: restored to step {step:.0f}"
        when = f", {start['time']}" if isinstance(start.get("time"), str) else ""
        marks.append({"step": int(step), "short": short, "label": label + when})
    return marks


def marks_of_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Where a phase began, and where steps were skipped (these have no `short`).

    Args:
      rows: of training, in their order.
    """
    marks: list[dict[str, Any]] = []
    before = None
    for place, row in enumerate(rows):
        step, skipped, phase = row["step"], number(row.get("skipped_steps")), row.get("phase")
        if skipped:
            label = f"{skipped:.0f} steps skipped as not finite, up to step {step}"
            marks.append({"step": step, "label": label})
        if isinstance(phase, str) and phase != before:
            if place:
                marks.append({"step": step, "short": phase, "label": f"phase {phase}"})
            before = phase
    return marks
