"""A step whose values or gradient are not finite: which term, at which step, and what is done."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

from losses.errors import TermwiseError
from losses.objective.outputs import flatten
from trainer.debugging.errors import Nonfinite
from trainer.ledger.rows import window_row

MODES = ("raise", "skip", "restore")
RESTORES = 10  # in a row, without a new checkpoint between them


def check_mode(on_nonfinite: str, workdir) -> str:
    """The mode, if it is one and can work; else ValueError."""
    if on_nonfinite not in MODES:
        raise TermwiseError(
            f"on_nonfinite={on_nonfinite!r}: accepted are {', '.join(map(repr, MODES))}."
        )
    if on_nonfinite == "restore" and workdir is None:
        raise TermwiseError("on_nonfinite='restore' needs workdir=, where checkpoints are kept.")
    return on_nonfinite


def describe_nonfinite(names, sums, first: int, step: int, last_total, newest) -> Nonfinite:
    """The error of a run that stopped after `step`, the first whose record is not finite.

    Args:
      names: the terms.
      sums: `WindowSums` of the log window that ends with that step.
      first: the window's first step.
      last_total: the last finite total, or None.
      newest: path of the newest checkpoint, or None.
    """
    row = window_row(names, sums)
    bad = [name for name in names if not math.isfinite(row[f"terms/{name}"])]
    what = f"term {bad[0]!r}" if bad else "the gradient"
    value = row[f"terms/{bad[0]}"] if bad else row["grad_norm/total"]
    others = f" (also {', '.join(bad[1:])})" if bad[1:] else ""
    before = "" if last_total is None else f" (last finite total {last_total:.4g})"
    return Nonfinite(
        f"{what} became {'NaN' if math.isnan(value) else 'infinite'}{others} between steps "
        f"{first} and {step}, at step {step}{before}. "
        f"Kept: {newest or 'nothing, no checkpoint was written'}.",
        bad,
    )


def save_batch(workdir: Path, step: int, batch) -> Path | None:
    """Writes the arrays of a step's batch to `nonfinite/step-<k>.npz`; None without arrays."""
    named = {name or "x": np.asarray(value) for name, value in flatten(_named(batch)).items()}
    if not named:
        return None
    path = workdir / "nonfinite" / f"step-{step}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as file:
        np.savez(file, **named)  # type: ignore[arg-type]
    os.replace(temporary, path)
    return path


def _named(batch):
    parts = batch if isinstance(batch, tuple) else (batch,)
    return {n: p for n, p in zip(("x", "y", "sample_weight"), parts, strict=False) if p is not None}
