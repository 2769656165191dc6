"""Which value of the data made a step fail: one that is not finite, or a class id out of range."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from losses.objective.class_ids import class_ids
from trainer.data.batch import unpack
from trainer.debugging.errors import OutOfMemoryError
from trainer.distributed.hosts import peer_lost
from trainer.errors import OF_INPUT, cache_failure, explain, raised_by_user_code, user_failure
from trainer.ledger.examples import Examples
from trainer.run.evaluate import evaluate
from trainer.run.events import ReadingEvents
from trainer.run.examples import read_examples
from trainer.run.run import Run

MOST_LOOKED_AT = 1000  # batches of an evaluation that are read again
LARGEST = 200_000_000  # elements of an array that is looked through before a fit
LOOKED_AT = 64  # examples that are tried before a fit
CLEAN = "Clean the data, or pass on_nonfinite='skip' to leave such steps out."
MISSING_LABEL = (
    "Where a label is missing, give its example the sample weight 0: it then does not count."
)


def evaluate_told(
    run: Run, source, steps: int | None = None, events: ReadingEvents | None = None
) -> dict[str, float]:
    """`evaluate`; where a value is not finite because of a label, the label is told.

    Raises:
      ValueError: a label that is no class id, with its place.
    """
    values = evaluate(run, source, steps, events)
    if all(value is None or math.isfinite(value) for value in values.values()):
        return values
    _refuse_bad_label(run, source, steps)
    return values


def examples_told(run: Run, source, top: int | None = None) -> Examples:
    """`read_examples`; where a value is not finite because of a label, the label is told.

    Raises:
      ValueError: a label that is no class id, with its place.
    """
    examples = read_examples(run, source, top)
    for name, values in examples.of_examples.items():
        if not np.isfinite(values[examples.counted[name]]).all():
            _refuse_bad_label(run, source)
            break
    return examples


def _refuse_bad_label(run: Run, source, steps: int | None = None) -> None:
    """Raises ValueError where a label is no class id, of the data or its first batches."""
    count = MOST_LOOKED_AT if steps is None else steps
    if (source.steps_per_epoch or 0) > 0:
        count = min(count, source.steps_per_epoch)
    label = find_bad_value(run, source, 0, count, labels_alone=True)
    if label:
        raise TermwiseError(f"{label}.")


def check_arrays(run: Run, source) -> None:
    """Looks through resident arrays, once before a fit: nothing is trained or written yet.

    A value that is not finite is refused where some term of its example is not finite either:
    a model may know how to read it. Arrays above `LARGEST` elements are not looked through.

    Args:
      run: traced; one that leaves out what is not finite takes the data as it is.
      source: of `open_data`; pipelines pass.
    Raises:
      ValueError: names the array, the example and the terms.
    """
    if len(source.each()) > 1:
        return  # what the terms make of one source is known in a step of all of them alone
    (source,) = source.each()  # one source with a name
    if not source.indexed or run.skips or run.on_nonfinite == "restore":
        return
    examples = _nonfinite_examples(source.arrays)[:LOOKED_AT]
    if not examples or not _bad_terms(run, source, examples):
        return
    for example in examples:
        terms = _bad_terms(run, source, [example])
        if terms:
            place, part = _nonfinite(_rows(source.arrays, [example]), first=example) or ("", "")
            raise TermwiseError(
                f"{source.what}: {place}, and with it {_plural('term', terms)} not finite. "
                f"{MISSING_LABEL if part == 'y' else CLEAN}"
            )


def _nonfinite_examples(arrays) -> list[int]:
    """The examples of arrays in which some value is not finite."""
    examples: set[int] = set()
    for leaf in tf.nest.flatten(arrays):
        if leaf.dtype.is_floating and int(tf.size(leaf)) <= LARGEST:
            finite = tf.math.is_finite(leaf)
            if not bool(tf.reduce_all(finite)):
                examples.update(tf.where(~finite)[:, 0].numpy().tolist())
    return sorted(examples)


def _rows(arrays, examples: list[int]):
    return tf.nest.map_structure(lambda array: tf.gather(array, examples), arrays)


def _bad_terms(run: Run, source, examples: list[int]) -> list[str]:
    """The terms that are not finite over some examples."""
    values = evaluate(run, run.open_data(_rows(source.arrays, examples), 1))
    run.evaluation.metrics.reset()
    return [
        repr(key.removeprefix("terms/"))
        for key, value in values.items()
        if key.startswith("terms/") and value is not None and not math.isfinite(value)
    ]


def find_in_batch(run: Run, source, batch) -> str | None:
    """What is wrong with a batch that was kept, as `find_bad_value` says it."""
    try:
        return _cause(run, source, batch, batch)
    except Exception:  # the failure itself is told; this only adds to it
        return None


def find_bad_value(
    run: Run, source, position: int, count: int, labels_alone: bool = False
) -> str | None:
    """What is wrong with the data of some steps, as one clause; None where nothing is found.

    Reads the batches again, so a pipeline that gives others each time is not seen through.

    Args:
      run: traced.
      source: the data.
      position, count: the batches: the first, and how many.
      labels_alone: whether only labels are looked at.

    Returns:
      "data: x of example 5 is nan at [2]" or "data: the label of example 5 is 12, but term ...";
      examples are counted from 0, in the arrays, or in a batch that is named too.
    """
    try:
        for part, first in source.places_at(position):
            for values, batch, place in part.look_again(first, count):
                cause = _cause(run, part, values, batch, labels_alone)
                if cause:
                    return cause + place
    except Exception:  # the failure itself is told; this only adds to it
        return None
    return None


@contextlib.contextmanager
def told_by_cause(run: Run, source, position: int, steps: range) -> Iterator[None]:
    """What TensorFlow raises in a call of the loop is told by its cause; see `step_failure`."""
    try:
        yield
    except OF_INPUT as error:
        if run.hosts.count > 1 and peer_lost(error):
            raise
        raise step_failure(run, source, position, steps, error) from error


def step_failure(run: Run, source, position: int, steps: range, error: Exception) -> Exception:
    """The exception to raise from one of `errors.OF_INPUT`: the cause first.

    Args:
      run: traced.
      source: the data.
      position: of the first batch of the call that failed.
      steps: the global steps of that call.
      error: what TensorFlow raised.
    """
    if (failure := cache_failure(error)) is not None:
        return failure
    if isinstance(error, tf.errors.OutOfRangeError) and not raised_by_user_code(error):
        done = run.state.step - steps[0]
        return TermwiseError(_ended(source, position + done, steps))
    if raised_by_user_code(error):
        return TermwiseError(user_failure(source, error))
    cause = explain(error)
    value = find_bad_value(run, source, position, len(steps))
    if value:
        return TermwiseError(f"{value}. TensorFlow says: {cause}.")
    where = f"Between steps {steps[0] + 1} and {steps[-1] + 1}"
    if len(steps) == 1:
        where = f"At step {steps[0] + 1}"
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return OutOfMemoryError(
            f"{where}: {cause}. Give a smaller global batch, or a smaller model."
        )
    return TermwiseError(f"{where}: {cause}.")


def _ended(source, batches: int, steps: range) -> str:
    """What to say of a pipeline that has ended after some batches."""
    if not batches:
        return (
            f"{source.what} ended before its first batch: the dataset is empty. "
            "Give at least one batch."
        )
    return (
        f"{source.what} ended between steps {steps[0] + 1} and {steps[-1] + 1} and could not be "
        "started again: its generator is used up. Give from_generator a function that makes a "
        "new one each time it is called, or pass fewer steps."
    )


def _cause(run: Run, source, values, batch, labels_alone: bool = False) -> str | None:
    """What is wrong with some values; `batch` is one that the model takes."""
    bad = None if labels_alone else _nonfinite(values)
    if bad:
        return f"{source.what}: {bad[0]}"
    y, objective = unpack(values)[1], run.program.objective
    loss = objective.loss_of(source.name)
    if loss is None or y is None:
        return None
    y_pred = run.evaluation.predict(batch, source, run.jit.xla)
    for ids in class_ids(loss, y=y, y_pred=y_pred, output_names=objective.output_names):
        example = _first_out_of_range(ids)
        if example is not None:
            return f"{source.what}: {example}"
    return None


def _first_out_of_range(ids) -> str | None:
    """The first label that is no class id, or a part of one, in words; of one of `class_ids`."""
    labels = np.asarray(ids.labels)
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    wrong = ~((labels >= 0) & (labels < ids.classes) & (labels == np.floor(labels)))
    if ids.ignored is not None:
        wrong &= labels != ids.ignored
    if not wrong.any():
        return None
    at = np.argwhere(wrong)[0]
    return (
        f"the label of example {at[0]} is {labels[tuple(at)]}{_inside(at)}, "
        f"but term {ids.term!r} takes class ids from 0 to {ids.classes - 1}; found were "
        f"{labels.min()} to {labels.max()}"
    )


def _nonfinite(batch, first: int = 0) -> tuple[str, str] | None:
    """The first value that is not finite: what and where in words, and the part of the batch.

    Args:
      first: the number of the batch's first example, in words.
    """
    for part, nest in zip(("x", "y", "sample_weight"), unpack(batch), strict=True):
        for path, leaf in keras.tree.flatten_with_path(nest):
            if not tf.is_tensor(leaf) or not isinstance(leaf, tf.Tensor):
                continue  # absent, ragged or sparse
            if not leaf.dtype.is_floating:
                continue
            finite = tf.math.is_finite(leaf)
            if not bool(tf.reduce_all(finite)):
                at = np.asarray(tf.where(~finite)[0])
                value = float(leaf[tuple(at)])
                name = part + "".join(f"[{key!r}]" for key in path)
                return f"{name} of example {first + at[0]} is {value}{_inside(at)}", part
    return None


def _inside(at) -> str:
    return f" at {[int(i) for i in at[1:]]}" if len(at) > 1 else ""


def _plural(word: str, names: list[Any]) -> str:
    return f"{word} {names[0]} is" if len(names) == 1 else f"{word}s {', '.join(names)} are"
