"""One training step of a second-order method: one iteration over all data."""

from __future__ import annotations

import tensorflow as tf

from trainer.data.batch import examples_in
from trainer.second_order.memory import Memory
from trainer.second_order.objective import Total
from trainer.step.forward import make_step
from trainer.step.outputs import StepRecord
from trainer.step.program import StepProgram


def second_order_step(program: StepProgram, memory: Memory, batch) -> StepRecord:
    """An iteration, and the record of where it began.

    Args:
      program: of the step.
      memory: of its phase.
      batch: all data.
    """
    function = Total(program, batch, memory.vector).function
    if program.metrics.metrics:
        program.metrics.count(make_step(program, batch, training=True), None)
    point, same = memory.point(function.at)
    before = memory.state()
    still = {name: tf.zeros_like(before[name]) for name in ("evaluations",)}
    # where no step lowers the total any more, none is looked for again
    after, state = tf.cond(
        same & before["stalled"],
        lambda: (point, {**before, **still}),
        lambda: memory.method.iterate(before, point, function),
    )
    memory.keep(after, state)
    raw, absent = point.beside
    weights = program.objective.weights(program.layout.names, program.step)
    examples = tf.cast(examples_in(batch), tf.float32)
    norm = tf.cast(tf.norm(point.gradient), tf.float32)
    return StepRecord(raw, weights, weights * raw, examples, norm, absent)
