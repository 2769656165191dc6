"""Why a step was not finite: the term of the gradient, the batch, and how to see it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.debugging.bad_values import find_bad_value, find_in_batch
from trainer.debugging.nonfinite import Nonfinite, save_batch
from trainer.debugging.replay import terms_of_bad_gradients
from trainer.loop.traced_step import TracedStep
from trainer.model.variables import read
from trainer.run.run import Run


@dataclass(frozen=True)
class BadStep:
    """A step that was not finite.

    Attributes:
      number: the global step, counted from 1.
      data_start: the step at which the data began.
      last_batch: the last batch of a pipeline, where it was kept; else ().
      checkpoints: of the run, or None.
    """

    number: int
    data_start: int
    last_batch: Any
    checkpoints: Any

    @property
    def position(self) -> int:
        """The position of its batch in the data."""
        return self.number - 1 - self.data_start


def blamed(error: Nonfinite, run: Run, step: TracedStep, source, bad: BadStep) -> Nonfinite:
    """The error with what else can be known: the term of a gradient, the batch, how to replay.

    Where only the gradient is not finite, the update has already spoilt the weights. Data that
    is indexed is trained once more from the last checkpoint up to that step; a pipeline cannot
    be opened twice in one process, and is left to `replay`.
    """
    batch = source.batch_again(bad.position, bad.last_batch)
    cause = _cause(run, source, bad, batch)
    terms, notes = list(error.terms), []
    if not terms:
        notes += _spoilt(run)
        terms = _terms_of_gradient(run, step, source, bad, batch)
        if terms:
            notes.insert(0, f"It is that of term {', '.join(map(repr, terms))}.")
    notes += _where_to_look(run, bad, batch)
    return Nonfinite(" ".join([f"{error}\n{cause}." if cause else str(error), *notes]), terms)


def _cause(run: Run, source, bad: BadStep, batch) -> str | None:
    """What is wrong with the batch, as one clause."""
    if source.indexed or len(source.each()) > 1:
        return find_bad_value(run, source, bad.position, 1)
    if not tf.nest.flatten(batch):
        return None
    cause = find_in_batch(run, source, batch)
    return cause and f"{cause} (batch {bad.position} of the data, counted from 0)"


def _spoilt(run: Run) -> list[str]:
    """A sentence about the trained variables that hold values that are not finite."""
    variables = run.program.trainables.variables
    paths = [path for path, v in variables.items() if not np.isfinite(read(v)).all()]
    if not paths:
        return []
    return [f"Of {', '.join(paths[:4])}{' and others' if paths[4:] else ''}."]


def _terms_of_gradient(run: Run, step, source, bad: BadStep, batch) -> list[str]:
    """The terms whose gradient was not finite, by training up to the step once more."""
    if not source.indexed or bad.checkpoints is None or not bad.checkpoints.latest:
        return []
    run.state.restore_newest(run.programs, bad.checkpoints)
    now = run.state.step
    loop = run.open(step, source, bad.data_start)
    window = run.state.window(run.programs)
    loop.run(window, now - bad.data_start, bad.number - 1 - now)
    return terms_of_bad_gradients(step, batch)


def _where_to_look(run: Run, bad: BadStep, batch) -> list[str]:
    """Where the batch was saved, and how to see the step again."""
    if run.workdir is None:
        return []
    notes = []
    if run.hosts.chief and tf.nest.flatten(batch):
        try:
            path = save_batch(run.workdir.path, bad.number, batch)
        except OSError as error:  # a full disk must not hide what broke
            notes.append(f"Its batch was not written: {error}")
        else:
            notes += [f"Its batch: {path}."] if path else []
    command = (
        f"python -m experiments.run --workdir={run.workdir.path} --mode=replay --step={bad.number}"
    )
    notes.append(f"See the step again: {command}, or trainer.replay(data, {bad.number}).")
    return notes
