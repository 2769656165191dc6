"""One program by Keras and by Termwise, on one replica and two, whole and interrupted."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.differential import programs
from tests.differential.known import reason
from tests.differential.programs import Program
from trainer import Trainer

# Optimizers that divide a gradient by its own size turn rounding of a small one into a step.
NORMALIZING = {
    *("Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "Nadam", "Lion", "Lamb"),
    *("Adafactor", "Ftrl"),
}


@dataclass
class Outcome:
    """Where a training ended.

    Attributes:
      weights: path below the model -> numpy.
      totals: the objective of each step; None where it was not looked at.
    """

    weights: dict[str, np.ndarray]
    totals: np.ndarray | None


def by_keras(program: Program) -> Outcome:
    """Trained by `train_on_batch`; by `fit` where there are callbacks."""
    with _policy(program):
        model = programs.make_model(program)
        model.compile(
            programs.make_optimizer(program),
            programs.make_loss(program),
            metrics=programs.make_metrics(program),
            jit_compile=False,
        )
        data = programs.make_data(program)
        totals = None
        if program.callback:
            _fit(program, model, data)
        else:
            totals = _numbers(
                [_on_batch(program, model, batch) for batch in _batches(program, data)]
            )
        return Outcome(_weights(model), totals)


def _fit(program, model, data):
    x, y, *weights = data
    model.fit(
        x,
        y,
        batch_size=program.batch,
        epochs=program.steps // -(-program.examples // program.batch),
        sample_weight=weights[0] if weights else None,
        class_weight=programs.class_weights(program),
        validation_data=data,
        shuffle=False,
        callbacks=programs.make_callbacks(program),
        verbose=0,
    )


def _on_batch(program, model, batch) -> float:
    x, y, *weights = batch
    model.reset_metrics()
    logs = model.train_on_batch(
        x,
        y,
        sample_weight=weights[0] if weights else None,
        class_weight=programs.class_weights(program),
        return_dict=True,
    )
    return float(logs["loss"])


def _batches(program, data):
    """The batches of the steps, epoch after epoch."""
    starts = range(0, program.examples, program.batch)
    for step in range(program.steps):
        start = starts[step % len(starts)]
        examples = slice(start, start + program.batch)
        yield tf.nest.map_structure(lambda array, examples=examples: array[examples], data)


def by_termwise(
    program: Program, strategy: Any = "one_device", interrupted: bool = False
) -> Outcome:
    """Trained by `Trainer.fit`; as two runs of one workdir where it is interrupted."""
    with _policy(program), tempfile.TemporaryDirectory() as folder:
        rows: list = []
        ends = [program.interrupted, program.steps] if interrupted else [program.steps]
        for steps in ends:
            trainer = _trainer(program, strategy, folder + "/run" if interrupted else None)
            rows = _train(program, trainer, steps).rows
        totals = [row["total"] for row in rows if row["split"] == "train"]
        return Outcome(_weights(trainer.model), None if interrupted else _numbers(totals))


def _skipped(outcome: Outcome) -> bool:
    return outcome.totals is not None and not np.isfinite(outcome.totals).all()


def _numbers(totals) -> np.ndarray:
    """Totals as numbers: NaN where a step was skipped, which Keras reports as NaN or infinite."""
    numbers = np.array([np.nan if total is None else total for total in totals], np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _trainer(program, strategy, workdir) -> Trainer:
    return Trainer(
        lambda: programs.make_model(program),
        optimizer=programs.make_optimizer(program),
        loss=programs.make_loss(program),
        metrics=programs.make_metrics(program),
        strategy=strategy,
        workdir=workdir,
        jit_compile=program.jit_compile,
    )


def _train(program, trainer, steps):
    data, arguments = programs.make_data(program), {}
    if program.pipeline:
        data = tf.data.Dataset.from_tensor_slices(data).batch(program.batch)
    else:
        arguments = dict(batch_size=program.batch, shuffle=False)
    if program.callback:
        epoch = -(-program.examples // program.batch)
        arguments |= dict(validation_data=data, validate_every=epoch)
        arguments |= dict(callbacks=programs.make_callbacks(program))
    return trainer.fit(
        data,
        steps=steps,
        log_every=1,
        class_weight=programs.class_weights(program),
        verbose=False,
        **arguments,
    )


class _policy:
    """The Keras dtype policy of a program, for a while."""

    def __init__(self, program):
        self._policy, self._before = program.policy, keras.config.dtype_policy()

    def __enter__(self):
        keras.config.set_dtype_policy(self._policy)

    def __exit__(self, *_):
        keras.config.set_dtype_policy(self._before)


def _weights(model) -> dict[str, np.ndarray]:
    """Numbered, since paths count what else was made in the process."""
    return {
        f"{index} {variable.path}": np.asarray(tf.convert_to_tensor(variable), np.float64)
        for index, variable in enumerate(model.weights)
    }


def differences(program: Program, strategy) -> list[str]:
    """What differs that should not; one line each.

    Args:
      strategy: of two replicas, or None: not compared.
    """
    whole = by_termwise(program)
    faults = []
    if reason(program) is None:
        faults += _compare("Keras", by_keras(program), whole, *_tolerances(program))
    if strategy is not None and not program.jit_compile:
        two = by_termwise(program, strategy)
        if _skipped(whole) or _skipped(two):
            return faults  # half a batch's gradient overflows float16 at another scale
        faults += _compare("two replicas", whole, two, *_tolerances(program, replicas=True))
    if program.interrupted and not program.callback:
        faults += _compare("interrupted", whole, by_termwise(program, interrupted=True), 0, 0)
    return faults


def _tolerances(program, replicas=False) -> tuple[float, float]:
    """Of the weights (absolute), of the totals (relative)."""
    if program.policy == "mixed_bfloat16":
        return 0.05, 0.05
    if program.policy == "mixed_float16":
        return 0.02, 0.02
    return (2e-3 if program.optimizer in NORMALIZING else 2e-5), 1e-4


def _compare(name, expected: Outcome, outcome: Outcome, of_weights, of_totals) -> list[str]:
    faults = []
    theirs, mine = expected.totals, outcome.totals
    if theirs is not None and mine is not None:
        seen = np.isfinite(theirs) & np.isfinite(mine)  # of a skipped step Keras tells a value
        if not np.allclose(mine[seen], theirs[seen], rtol=of_totals, atol=of_totals):
            faults.append(f"{name}: totals {theirs} and {mine}")
    pairs = zip(expected.weights.items(), outcome.weights.values(), strict=True)
    for (path, value), other in pairs:
        off = float(np.max(np.abs(value - other))) if value.shape == other.shape else np.inf
        if not off <= of_weights:
            faults.append(f"{name}: {path} differs by {off:.2g}")
    return faults
