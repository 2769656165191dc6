"""Evaluation and prediction: one pass over the data, exact however it is batched."""

from __future__ import annotations

import time

import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from trainer.data.source import default_batch
from trainer.debugging.tensorflow_errors import OF_INPUT, reading_failure
from trainer.ledger.rows import term_entries
from trainer.loop.first_trace import trace
from trainer.model.build import build_model


def open_for_reading(trainer, data, batch_size=None, steps=None):
    """The source of data to evaluate or predict; a run of another process is restored first.

    Raises:
      ValueError: the data has no end, and no `steps` are given.
    """
    source = trainer.open(data, batch_size or default_batch(data))
    if source.steps_per_epoch == -1 and steps is None:
        raise TermwiseError("This data is infinite. Give data that ends, or evaluate(steps=).")
    if trainer.state.restorable:
        trace(trainer, source)
        trainer.state.restore(trainer.state.open_checkpoints(None, writes=False))
    return source


def follow(trainer, poll_seconds: float = 5.0):
    """Restores each new checkpoint of a run that another process trains, until it is done.

    The trainer is built. Checkpoints that come and go between two looks are passed over.

    Yields:
      int, the step of the checkpoint that is restored.
    """
    checkpoints = trainer.state.open_checkpoints(None, writes=False)
    seen = None
    while True:
        done = trainer.workdir.seconds() is not None  # before the look: its last one counts
        newest = checkpoints.look_again()
        if newest is not None and newest != seen:
            trainer.state.restore_newest(checkpoints)
            seen = newest
            yield trainer.state.step_now
        elif done:
            return
        else:
            time.sleep(poll_seconds)


def evaluate(trainer, source, steps: int | None = None) -> dict[str, float]:
    """Every term and metric over a source's examples.

    Sums are carried over the batches and divided once, so that the result does not depend on
    how the data is batched; a term that is a sum is the sum over all examples.

    Returns:
      dict: total, terms/*, raw/*, weight/*, metrics/*.
    Raises:
      ValueError: there is no batch.
    """
    replica = trainer.loops.replica
    build_model(trainer.model, trainer.strategy, source.element_spec)
    replica.eval_metrics.reset()
    with replica.optimizers.averages(replica.trained.variables):
        try:
            top, bottom, weights, batches = trainer.reading.evaluate(source, steps)
        except OF_INPUT as error:
            raise reading_failure(source, error) from error
    if not int(batches):
        raise TermwiseError(f"{source.what} is an empty dataset. Give at least one batch.")
    layout = replica.eval_layout
    raw = layout.raw(tf.cast(top, tf.float32), tf.cast(bottom, tf.float32))
    # the shortest decimal of a float32: 0.1, not 0.10000000149
    weights = [float(str(value)) for value in np.asarray(weights)]
    values = term_entries(layout.names, np.asarray(raw), weights)
    values.update({f"metrics/{k}": v for k, v in replica.eval_metrics.results().items()})
    return values


def predict(trainer, source):
    """The model's outputs for every example, in order: numpy [examples, ...] each."""
    replica = trainer.loops.replica
    build_model(trainer.model, trainer.strategy, source.element_spec)
    with replica.optimizers.averages(replica.trained.variables):
        try:
            parts = [trainer.reading.predict(batch, source) for batch in source.batches()]
        except OF_INPUT as error:
            raise reading_failure(source, error) from error
    if not parts:
        raise TermwiseError(f"{source.what} is an empty dataset. Give at least one batch.")
    return tf.nest.map_structure(lambda *p: np.concatenate([np.asarray(v) for v in p]), *parts)
