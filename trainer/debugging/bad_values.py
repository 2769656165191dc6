"""Which value of the data made a step fail: one that is not finite, or a class id out of range."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from losses.objective.class_ids import class_ids
from trainer.data.batch import unpack
from trainer.debugging.errors import OutOfMemoryError
from trainer.debugging.tensorflow_errors import explain, raised_by_user_code
from trainer.fitting.evaluate import evaluate

LARGEST = 200_000_000  # elements of an array that is looked through before a fit
MOST_BATCHES = 10_000  # of a pipeline that are read again after a failure


def check_arrays(trainer, source) -> None:
    """Looks through resident arrays, once before a fit: nothing is trained or written yet.

    A value that is not finite is refused where some term of its example is not finite either:
    a model may know how to read it. Arrays above `LARGEST` elements are not looked through.

    Args:
      trainer: traced; one that leaves out what is not finite takes the data as it is.
      source: of `open_data`; pipelines pass.
    Raises:
      ValueError: names the array, the example and the terms.
    """
    if not source.indexed or trainer.loops.skipping or trainer.on_nonfinite == "restore":
        return
    found = _nonfinite(source.arrays, LARGEST)
    if found is None:
        return
    place, example = found
    row = tf.nest.map_structure(lambda array: array[example : example + 1], source.arrays)
    values = evaluate(trainer, trainer.open(row, 1))
    terms = [
        repr(key.removeprefix("terms/"))
        for key, value in values.items()
        if key.startswith("terms/") and not math.isfinite(value)
    ]
    trainer.loops.replica.eval_metrics.reset()
    if terms:
        raise TermwiseError(
            f"{source.what}: {place}, and with it {_plural('term', terms)} not finite. Clean the "
            "data, or pass on_nonfinite='skip' to leave such steps out."
        )


def find_in_batch(trainer, source, batch) -> str | None:
    """What is wrong with a batch that was kept, as `find_bad_value` says it."""
    try:
        return _of_batch(trainer, source, batch, batch)
    except Exception:  # the failure itself is told; this only adds to it
        return None


def find_bad_value(trainer, source, position: int, count: int) -> str | None:
    """What is wrong with the data of some steps, as one clause; None where nothing is found.

    Reads the batches again, so a pipeline that gives others each time is not seen through.

    Args:
      source: of `open_data`.
      position, count: the batches: the first, and how many.

    Returns:
      "data: x of example 5 is nan at [2]" or "data: the label of example 5 is 12, but term ...";
      examples are counted from 0, in the arrays, or in a batch that is named too.
    """
    try:
        if source.indexed:
            return _of_batch(trainer, source, source.arrays, source.next(tf.constant(0, tf.int64)))
        for number, batch in enumerate(source.reread(position, min(count, MOST_BATCHES))):
            found = _of_batch(trainer, source, batch, batch)
            if found:
                return f"{found} (batch {position + number} of the data, counted from 0)"
    except Exception:  # the failure itself is told; this only adds to it
        return None
    return None


def step_failure(trainer, source, position: int, steps: range, error: Exception) -> Exception:
    """The exception to raise from one of `tensorflow_errors.OF_INPUT`: the cause first.

    Args:
      source: of `open_data`.
      position: of the first batch of the call that failed.
      steps: the global steps of that call.
      error: what TensorFlow raised.
    """
    if isinstance(error, tf.errors.OutOfRangeError) and not raised_by_user_code(error):
        return TermwiseError(_ended(trainer, source, position, steps))
    cause = explain(error)
    if raised_by_user_code(error):
        return TermwiseError(f"{source.what} cannot be read: {cause}.")
    found = find_bad_value(trainer, source, position, len(steps))
    if found:
        return TermwiseError(f"{found}. TensorFlow says: {cause}.")
    where = f"Between steps {steps[0] + 1} and {steps[-1] + 1}"
    if len(steps) == 1:
        where = f"At step {steps[0] + 1}"
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return OutOfMemoryError(
            f"{where}: {cause}. Give a smaller global batch, or a smaller model."
        )
    return TermwiseError(f"{where}: {cause}.")


def _ended(trainer, source, position, steps) -> str:
    done = int(trainer.step) - steps[0]
    if not position and not done:
        return (
            f"{source.what} ended before its first batch: the dataset is empty. "
            "Give at least one batch."
        )
    return (
        f"{source.what} ended between steps {steps[0] + 1} and {steps[-1] + 1} and could not be "
        "started again: its generator is used up. Give from_generator a function that makes a "
        "new one each time it is called, or pass fewer steps."
    )


def _of_batch(trainer, source, values, batch) -> str | None:
    found = _nonfinite(values)
    if found:
        return f"{source.what}: {found[0]}"
    y = unpack(values)[1]
    objective = trainer.objective
    if objective.loss is None or y is None:
        return None
    y_pred = trainer.reading.predict(batch, source)
    given = class_ids(objective.loss, y=y, y_pred=y_pred, output_names=objective.output_names)
    for one in given:
        labels = np.asarray(one.labels)
        if labels.ndim > 1 and labels.shape[-1] == 1:
            labels = labels[..., 0]
        wrong = ~((labels >= 0) & (labels < one.classes))
        if one.ignored is not None:
            wrong &= labels != one.ignored
        if wrong.any():
            at = np.argwhere(wrong)[0]
            return (
                f"{source.what}: the label of example {at[0]} is {labels[tuple(at)]}{_inside(at)}, "
                f"but term {one.term!r} takes class ids from 0 to {one.classes - 1}; found were "
                f"{labels.min()} to {labels.max()}"
            )
    return None


def _nonfinite(batch, largest: int | None = None) -> tuple[str, int] | None:
    """The first value that is not finite: what and where in words, and its example."""
    for part, nest in zip(("x", "y", "sample_weight"), unpack(batch), strict=True):
        for path, leaf in keras.tree.flatten_with_path(nest):
            if not tf.is_tensor(leaf) or not isinstance(leaf, tf.Tensor):
                continue  # absent, ragged or sparse
            if not leaf.dtype.is_floating or (largest and int(tf.size(leaf)) > largest):
                continue
            finite = tf.math.is_finite(leaf)
            if not bool(tf.reduce_all(finite)):
                at = np.asarray(tf.where(~finite)[0])
                value = float(leaf[tuple(at)])
                name = part + "".join(f"[{key!r}]" for key in path)
                return f"{name} of example {at[0]} is {value}{_inside(at)}", int(at[0])
    return None


def _inside(at) -> str:
    return f" at {[int(i) for i in at[1:]]}" if len(at) > 1 else ""


def _plural(word: str, names: list[Any]) -> str:
    return f"{word} {names[0]} is" if len(names) == 1 else f"{word}s {', '.join(names)} are"
