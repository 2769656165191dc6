"""A step whose values or gradient are not finite: which term, at which step, and what is done."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from losses.objective.outputs import flatten
from trainer.debugging.bad_values import find_bad_value, find_in_batch
from trainer.debugging.errors import Nonfinite
from trainer.ledger.format import format_table
from trainer.ledger.rows import window_row
from trainer.model.variables import read

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


def describe_nonfinite(names, sums, first: int, step: int, last_total, kept) -> Nonfinite:
    """The error of a run that stopped after `step`, the first whose record is not finite.

    Args:
      names: the terms.
      sums: `window.Sums` of the log window that ends with that step.
      first: the window's first step.
      last_total: the last finite total, or None.
      kept: path of the newest checkpoint, or None.
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
        f"Kept: {kept or 'nothing, no checkpoint was written'}.",
        bad,
    )


def variables_lost(trainer) -> list[str]:
    """Paths of the trained variables that hold values that are not finite."""
    variables = trainer.loops.replica.trained.variables
    return [path for path, v in variables.items() if not np.isfinite(read(v)).all()]


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


def look(trainer, batch) -> str:
    """A table of one step that is not taken: each term's raw value, weight and gradient norm."""
    loops, replica = trainer.loops, trainer.loops.replica

    @tf.function(autograph=False)
    def measure(batch):
        totals = loops.sums(batch) if loops.first_pass else None
        rows = loops.probe(batch, totals)
        local = [trainer.strategy.experimental_local_results(row)[0] for row in rows.values()]
        squares = [tf.reduce_sum(tf.reshape(r, [tf.shape(r)[0], -1]) ** 2, 1) for r in local]
        passed = loops.plain_pass(batch, totals)
        return passed.raw, passed.weights, tf.sqrt(tf.add_n(squares))

    raw, weights, norms = (np.asarray(value) for value in measure(batch))
    table: list[tuple] = [("term", "raw", "weight", "gradient norm of raw")]
    for name, *numbers in zip(replica.layout.names, raw, weights, norms, strict=False):
        table.append((name, *(f"{number:.6g}" for number in numbers)))
    return format_table(table)


def first_bad_gradient(trainer, batch) -> list[str]:
    """The terms whose gradient of this batch is not finite, at the present weights."""
    loops = trainer.loops

    @tf.function(autograph=False)
    def measure(batch):
        rows = loops.probe(batch, loops.sums(batch) if loops.first_pass else None)
        local = [trainer.strategy.experimental_local_results(row)[0] for row in rows.values()]
        return [tf.reduce_sum(tf.reshape(r, [tf.shape(r)[0], -1]), 1) for r in local]

    sums: Any = sum(np.asarray(value, np.float64) for value in measure(batch))
    names = loops.replica.layout.names
    return [name for name, total in zip(names, sums, strict=False) if not np.isfinite(total)]


def blamed(error: Nonfinite, trainer, source, step: int, data_start: int, checkpoints) -> Nonfinite:
    """The error with what else can be known: the term of a gradient, the batch, how to replay.

    Where only the gradient is not finite, the update has already spoilt the weights. Data that
    is indexed is trained once more from the last checkpoint up to that step; a pipeline cannot
    be opened twice in one process, and is left to `replay`.
    """
    batch, workdir = trainer.loops.last_batch, trainer.workdir
    if source.indexed:
        batch = source.next(tf.constant(step - 1 - data_start, tf.int64))
    notes, terms = [], list(error.terms)
    found = None
    if source.indexed:
        found = find_bad_value(trainer, source, step - 1 - data_start, 1)
    elif batch != ():
        found = find_in_batch(trainer, source, batch)
        found = found and f"{found} (batch {step - 1 - data_start} of the data, counted from 0)"
    if not terms:
        lost = variables_lost(trainer)
        if lost:
            notes.append(f"Of {', '.join(lost[:4])}{' and others' if lost[4:] else ''}.")
        if source.indexed and checkpoints is not None and checkpoints.latest:
            trainer.state.restore_newest(checkpoints)
            at = trainer.state.step_now
            trainer.loops.open(source, at - data_start, at)
            trainer.loops.train(source, trainer.state.window(), at - data_start, step - 1 - at)
            terms = first_bad_gradient(trainer, batch)
            if terms:
                notes.insert(0, f"It is that of term {', '.join(map(repr, terms))}.")
    if workdir is not None and trainer.hosts.chief and batch != ():
        path = save_batch(workdir.path, step, batch)
        if path is not None:
            notes.append(f"Its batch: {path}.")
    if workdir is not None:
        command = f"python -m experiments.run --workdir={workdir.path} --mode=replay --step={step}"
        notes.append(f"See the step again: {command}, or trainer.replay(data, {step}).")
    told = [f"{error}\n{found}." if found else str(error), *notes]
    return Nonfinite(" ".join(told), terms)


def replay(trainer, source, step: int) -> str:
    """Trains from the newest earlier checkpoint up to a step, and shows that step's terms.

    Returns:
      a table, see `look`.
    Raises:
      ValueError: the run stands behind that step already.
    """
    state = trainer.state
    now = state.step_now
    if now >= step:
        raise TermwiseError(f"replay({step}): the newest checkpoint is of step {now} already.")
    began = state.open_data(source, resumed=True)
    window = state.window()
    trainer.loops.train(source, window, now - began, step - 1 - now)
    position = tf.constant(step - 1 - began, tf.int64)

    @tf.function(autograph=False)
    def following():
        return trainer.loops.following(source, position)

    return look(trainer, following())
