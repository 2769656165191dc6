"""A look at one step: what each term's value, weight and gradient are, and which one is bad."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from trainer.ledger.format import format_table
from trainer.loop.traced_step import Asked, TracedStep
from trainer.run.run import Run


def look(step: TracedStep, batch) -> str:
    """A table of one step that is not taken: each term's raw value, weight and gradient norm."""
    passes, strategy = step.passes, step.program.placement.strategy

    @tf.function(autograph=False)
    def measure(batch):
        squares = [
            tf.reduce_sum(_flat(strategy, rows) ** 2, 1)
            for rows in passes.jacobian(batch, passes.precomputed(batch)).values()
        ]
        result = passes.one_pass(batch)
        return result.raw, result.weights, tf.sqrt(tf.add_n(squares))

    columns = [np.asarray(value) for value in measure(batch)]
    table: list[tuple] = [("term", "raw", "weight", "gradient norm of raw")]
    for name, *numbers in zip(step.program.layout.names, *columns, strict=True):
        table.append((name, *(f"{number:.6g}" for number in numbers)))
    return format_table(table)


def terms_of_bad_gradients(step: TracedStep, batch) -> list[str]:
    """The terms whose gradient of this batch is not finite, at the present weights."""
    passes, strategy = step.passes, step.program.placement.strategy

    @tf.function(autograph=False)
    def measure(batch):
        jacobian = passes.jacobian(batch, passes.precomputed(batch))
        return [tf.reduce_sum(_flat(strategy, rows), 1) for rows in jacobian.values()]

    sums: Any = sum(np.asarray(value, np.float64) for value in measure(batch))
    names = step.program.layout.names
    return [name for name, total in zip(names, sums, strict=True) if not np.isfinite(total)]


def _flat(strategy, rows) -> tf.Tensor:
    """[T, n], rows [T, ...] that are the same on every replica."""
    rows = strategy.experimental_local_results(rows)[0]
    return tf.reshape(rows, [tf.shape(rows)[0], -1])


def replay(run: Run, source, number: int, asked: Asked) -> str:
    """Trains from the newest checkpoint up to a step, and shows that step's terms.

    Args:
      run: which is restored.
      source: the data, as it was trained on.
      number: int, the step.
      asked: what the fit asked of its step.
    Returns:
      a table, see `look`.
    Raises:
      ValueError: the run stands behind that step already.
    """
    now = run.state.step
    if now >= number:
        raise TermwiseError(f"replay({number}): the newest checkpoint is of step {now} already.")
    step, began = run.traced(source, asked), run.state.data.start
    loop = run.open(step, source, began)
    loop.run(run.state.window(run.programs), now - began, number - 1 - now)
    position = tf.constant(number - 1 - began, tf.int64)
    batch = tf.function(lambda: loop.batch_at(position), autograph=False)
    return look(step, batch())
