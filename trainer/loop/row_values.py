"""What stands in a row of the ledger beside the terms: parameters, multipliers, metrics, rates."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from trainer.balancing.multipliers import multiplier_values
from trainer.step.program import StepProgram


def row_values(program: StepProgram, told: dict | None = None) -> dict[str, Any]:
    """tag -> [], a row's parameters (means of larger ones), multipliers, metrics, rates, shares.

    Metrics are among them where `program.reads_metrics`; else the host reads them.

    Args:
      told: tag -> [], what a second-order method tells instead of rates.
    """
    values: dict[str, Any] = {
        f"loss_parameters/{name}": tf.reduce_mean(tf.cast(value, tf.float32))
        for name, value in program.trainables.parameter_values().items()
    }
    values.update(multiplier_values(program.objective.terms))
    if program.reads_metrics:
        metrics = program.metrics.tensors()
        values.update({f"metrics/{name}": value for name, value in metrics.items()})
    optimizers = program.optimizers.of_group if told is None else {}
    values.update(told or {})
    for group, optimizer in optimizers.items():
        tag = "learning_rate" if len(optimizers) == 1 else f"learning_rate/{group}"
        values[tag] = tf.convert_to_tensor(optimizer.learning_rate)
    shares = {f"hardest/{name}": share for name, share in program.shares.items()}
    values.update({tag: tf.constant(share, tf.float64) for tag, share in shares.items()})
    return values
