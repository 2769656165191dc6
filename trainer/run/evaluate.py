"""Evaluation and prediction: one pass over the data, exact however it is batched."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from losses.terms.constraint import constraints_of
from trainer.data.batch import is_whole
from trainer.errors import OF_INPUT, reading_failure
from trainer.ledger.rows import term_entries, violations
from trainer.loop.eval_loop import EvalSums
from trainer.run.events import ReadingEvents, silent, untold
from trainer.run.run import Run


def prepare_reading(run: Run, source, steps: int | None = None) -> None:
    """Restores a run of another process, before its model evaluates or predicts a source.

    Raises:
      ValueError: the data has no end, and no `steps` are given; `steps` that cannot be counted.
    """
    if steps is not None and (not is_whole(steps) or not 1 <= steps < 2**63):
        raise TermwiseError(f"evaluate(steps={steps!r}): give a whole number of at least 1.")
    if source.steps_per_epoch == -1 and steps is None:
        raise TermwiseError("This data is infinite. Give data that ends, or evaluate(steps=).")
    if run.state.restorable or (run.init_from and run.state.fresh):
        run.traced(source)
        _prepare_all(run)


def _prepare_all(run: Run) -> None:
    """Gives a traced run its state, or what it starts with, before it is looked at."""
    if run.state.restorable:
        run.restore()
    elif run.init_from and run.state.fresh:
        run.state.initialize(run.programs, run.init_from, run.init_loss_parameters)


def prepare_model(run: Run, networks: bool = False) -> None:
    """Gives the model the weights of its run, or those it starts with, without any data.

    Args:
      networks: whether those of networks that a subclass keeps are needed too.
    Raises:
      ValueError: weights that can be read only once the run is built.
    """
    if run.programs.prepared:
        _prepare_all(run)
        return
    model, state = run.program.model, run.state
    stored: Path | str | None = (
        run.workdir.path if state.restorable and run.workdir is not None else None
    )
    if stored is not None and run.program.optimizers.keeps_averages:
        raise TermwiseError(
            "The optimizer keeps moving averages of the weights, which predict() and export() "
            "use: they are read once the run is built. Call trainer.build(data) first."
        )
    if stored is None and run.init_from and state.fresh:
        stored = run.init_from
    if stored is None:
        return
    if networks and state.owns_variables:
        raise TermwiseError(
            "forward() may read networks that the Trainer keeps beside the model: their weights "
            f"in {stored} are read once the run is built. Call trainer.build(data) first."
        )
    state.load_model(model, stored)


def follow(run: Run, poll_seconds: float = 5.0):
    """Restores each new checkpoint of a run that another process trains, until it is done.

    The run is traced. Checkpoints that come and go between two looks are passed over.

    Yields:
      int, the step of the checkpoint that is restored.
    """
    checkpoints = run.state.open_checkpoints(run.programs, None, writes=False)
    if run.workdir is None or checkpoints is None:
        raise TermwiseError("follow() needs workdir=, where another process trains.")
    seen = None
    while True:
        done = run.workdir.seconds() is not None  # before the look: its last one counts
        newest = checkpoints.look_again()
        if newest is not None and newest != seen:
            run.state.restore_newest(run.programs, checkpoints)
            seen = newest
            yield run.state.step
        elif done:
            return
        else:
            time.sleep(poll_seconds)


def evaluate(
    run: Run, source, steps: int | None = None, events: ReadingEvents | None = None
) -> dict[str, float]:
    """Every term and metric over a source's examples.

    Sums are carried over the batches and divided once, so that the result does not depend on
    how the data is batched; a term that is a sum is the sum over all examples.

    Args:
      run: whose model, at its present weights.
      source: the data.
      steps: batches to take; all by default.
      events: who hears of it; nobody by default.
    Returns:
      dict: total, terms/*, raw/*, weight/*, violation/*, metrics/*; None for a term of which the
      data holds nothing.
    Raises:
      ValueError: there is no batch.
    """
    events = events or silent("test")
    events.begin()
    sums, metrics = _read(run, source, steps, events)
    if not int(sums.batches):
        raise TermwiseError(f"{source.what} is an empty dataset. Give at least one batch.")
    numerators, denominators = (
        tf.cast(values, tf.float32) for values in (sums.numerators, sums.denominators)
    )
    absent = np.equal(sums.counts, 0).astype(np.float32)
    raw = np.asarray(sums.layout.raw(numerators, denominators, absent))
    there = [None if nothing else value for value, nothing in zip(raw, absent, strict=True)]
    # the shortest decimal of a float32: 0.1, not 0.10000000149
    weights = [float(str(value)) for value in np.asarray(sums.weights)]
    values = term_entries(sums.layout.names, there, weights)
    values.update(violations(constraints_of(run.program.objective.terms), values))
    values.update({f"metrics/{name}": value for name, value in metrics.items()})
    events.end(values)
    return values


def _read(run: Run, source, steps: int | None, events: ReadingEvents) -> tuple[EvalSums, dict]:
    """The sums of a pass over a source, and its metrics."""
    program, evaluation = run.program, run.evaluation
    program.build(program, source.element_spec)
    evaluation.trace(source, run.jit.xla)
    with contextlib.ExitStack() as stack:
        stack.enter_context(program.optimizers.averages(program.trainables.variables))
        stack.enter_context(evaluation.metrics.set_aside(run.strategy))
        evaluation.metrics.reset()
        try:
            sums = evaluation.evaluate(source, steps, run.jit.xla, events.on_batch)
        except OF_INPUT as error:
            raise reading_failure(source, error) from error
        return sums, evaluation.metrics.results()


def predict(run: Run, source, events: ReadingEvents | None = None):
    """The model's outputs for every example, in order.

    Returns:
      numpy [examples, ...] each; a `tf.RaggedTensor` where the output is ragged.
    Raises:
      ValueError: there is no batch; outputs of batches that do not fit together.
    """
    program = run.program
    if source.steps_per_epoch == -1:
        raise TermwiseError("This data is infinite. Give data that ends.")
    if source.names:
        raise TermwiseError(
            "predict() takes data of one source, and this has "
            f"{', '.join(map(repr, source.names))}. Give the inputs of one of them."
        )
    events = events or silent("predict")
    program.build(program, source.element_spec)
    prepare_model(run, networks=run.own_forward)
    events.begin()
    with contextlib.ExitStack() as stack:
        stack.enter_context(program.optimizers.averages(program.trainables.variables))
        stack.enter_context(program.metrics.set_aside(run.strategy))
        try:
            parts = _predicted(run, source, events)
        except OF_INPUT as error:
            raise reading_failure(source, error) from error
    if not parts:
        raise TermwiseError(f"{source.what} is an empty dataset. Give at least one batch.")
    outputs = tf.nest.map_structure(_concatenated, *parts)
    events.end()
    return outputs


def _predicted(run: Run, source, events: ReadingEvents) -> list:
    """The outputs of each batch."""
    parts: list = []
    on_batch = events.on_batch or untold
    for batch in source.batches():
        with on_batch(len(parts)) as logs:
            parts.append(run.evaluation.predict(batch, source, run.jit.xla))
            logs["outputs"] = parts[-1]
    return parts


def _concatenated(*parts):
    """The outputs of all batches, one after another."""
    if isinstance(parts[0], tf.RaggedTensor):
        return tf.concat(parts, 0)
    arrays = [np.asarray(part) for part in parts]
    if len({array.shape[1:] for array in arrays}) > 1:
        shapes = ", ".join(str(shape) for shape in dict.fromkeys(a.shape for a in arrays))
        raise TermwiseError(
            f"predict() cannot put outputs of different shapes together: {shapes[:200]}. Pad the "
            "batches to one width, predict each by itself, or return a tf.RaggedTensor."
        )
    return np.concatenate(arrays)
