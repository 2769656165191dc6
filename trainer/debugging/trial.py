"""A step that is tried and not taken: what each term is, and which variables it reaches."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from losses.layers import layers_of
from trainer.data.dataset import DatasetSource
from trainer.data.unseeded import find_unseeded
from trainer.ledger.examples import Examples
from trainer.ledger.format import format_table, number
from trainer.ledger.notebook import html_tables
from trainer.loop.eager import parts_of
from trainer.loop.traced_step import Asked, TracedStep
from trainer.model.variables import by_path, put_back
from trainer.run.evaluate import prepare_reading
from trainer.run.examples import examples_of
from trainer.run.run import Run
from trainer.step.outputs import TrialNotes

SHOWN_PATHS = 3  # of variables in a cell or a line
TRIED = 2**31 - 1  # the batch of arrays of which no size is given: all examples
MOST_TRIED = 1024  # examples of such a batch


@dataclass(frozen=True)
class TriedTerm:
    """One term of a step that was tried.

    Attributes:
      name, origin: as in `Trainer.describe()`.
      shape: of its values, the examples first; () where it is one number of the batch.
      least, largest: of the examples' values; None where no example has one.
      raw: float, over the global batch; None where this holds nothing of the term.
      weight: float, by which it counts.
      gradients: path -> norm of the raw value's gradient, of the variables that it reaches.
    """

    name: str
    origin: str
    shape: tuple[int | None, ...]
    least: float | None
    largest: float | None
    raw: float | None
    weight: float
    gradients: Mapping[str, float] = field(default_factory=dict)

    @property
    def gradient_norm(self) -> float:
        """The norm of the raw value's gradient by all variables that the term trains."""
        return math.sqrt(sum(norm**2 for norm in self.gradients.values()))


@dataclass(frozen=True, repr=False)
class TriedStep:
    """What a training step of one batch would be; nothing was changed by it.

    Shown as a table, in a notebook too.

    Attributes:
      terms: name -> `TriedTerm`, in the ledger's order.
      examples: `trainer.examples` of this batch, in training: each example's value of each term.
      total: float, the sum of weight times raw.
      unreached: paths of the model's variables that are to train and that no term reaches.
      frozen: paths of those that do not train: `trainable` is False, or the group has no optimizer.
    """

    terms: dict[str, TriedTerm]
    examples: Examples
    total: float
    unreached: tuple[str, ...]
    frozen: tuple[str, ...]

    @property
    def notes(self) -> list[str]:
        """What is probably wrong, and what stays as it is, a sentence each."""
        without = [name for name, term in self.terms.items() if not term.gradients]
        flat = [n for n, t in self.terms.items() if t.gradients and t.gradient_norm == 0]
        absent = [name for name, term in self.terms.items() if term.raw is None]
        told = {
            "this batch holds nothing of": absent,
            "no variable is reached by": [name for name in without if name not in absent],
            "the gradient is 0 of": [name for name in flat if name not in absent],
            "no term reaches": self.unreached,
            "frozen": self.frozen,
        }
        return [f"{what}: {_few(names)}" for what, names in told.items() if names]

    @property
    def _cells(self) -> list[tuple[str, ...]]:
        head = ("term", "from", "values", "least", "largest", "raw", "weight")
        rows: list[tuple[str, ...]] = [(*head, "gradient norm of raw", "reaches")]
        for term in self.terms.values():
            numbers = (term.least, term.largest, term.raw, term.weight, term.gradient_norm)
            least, largest, raw, weight, norm = (
                "-" if value is None else number(value) for value in numbers
            )
            shape = str(list(term.shape)) if term.shape else "one number"
            reached = f"{len(term.gradients)}: {_few(term.gradients)}" if term.gradients else "none"
            of_term = (term.name, term.origin, shape, least, largest, raw, weight)
            rows.append((*of_term, norm, reached))
        return rows

    def __repr__(self) -> str:
        total = f"total {number(self.total)}"
        return "\n".join([format_table(self._cells, words=True), total, *self.notes])

    def _repr_html_(self) -> str:
        return html_tables([self._cells], [f"total {number(self.total)}", *self.notes])


def check_tried(source, batch_size) -> None:
    """Raises ValueError where data cannot be tried.

    More examples than make a batch, without a size; a pipeline of which another reading draws on,
    so that the fit that follows would read other batches than without a trial.

    Args:
      source: what was opened with the size `TRIED` where `batch_size` is None.
    """
    sizes = [part.batch_size or 0 for part in source.each() if part.examples is not None]
    if batch_size is None and max(sizes, default=0) > MOST_TRIED:
        raise TermwiseError(
            f"try_step() takes one batch, and was given {max(sizes)} examples. Give batch_size=, "
            "as to fit()."
        )
    for part in source.each():
        draws = find_unseeded(part.dataset, True) if isinstance(part, DatasetSource) else []
        shuffles = [draw.partition("(")[0] for draw in draws]
        if draws:
            raise TermwiseError(
                f"{part.what} draws ({', '.join(dict.fromkeys(shuffles))}), and to read it here "
                "would change what fit() reads. Give one batch as arrays, (x, y), or the pipeline "
                "before it draws."
            )


def try_step(run: Run, source, asked: Asked) -> TriedStep:
    """A training step of the first batch of a source, which is not taken.

    Args:
      run: at its present weights, or those of its newest checkpoint.
      source: the data, as a fit takes it.
      asked: what a fit would ask of the step.
    """
    prepare_reading(run, source, 1)
    step = run.traced(source, asked)
    if step.program.placement.precomputes_sums:  # what gathers examples is not compiled there
        step = run.programs.step(source, False, asked)
    batch = source.peek()
    notes = TrialNotes()
    gradients, trial = _measured(step, notes, batch)
    raw, weights, absent = (np.asarray(part) for part in (trial.raw, trial.weights, trial.absent))
    examples = examples_of(notes.examples, trial.columns)
    terms: dict[str, TriedTerm] = {}
    reached = _reached(step, notes)
    for place, name in enumerate(step.program.layout.names):
        shape, least, largest = _shape_and_range(notes, examples, name)
        terms[name] = TriedTerm(
            name,
            _origin(step, name),
            shape,
            least,
            largest,
            None if absent[place] else float(raw[place]),
            float(str(weights[place])),
            {path: float(gradients[path][place]) for path in reached[name]},
        )
    total = math.fsum(t.weight * t.raw for t in terms.values() if t.raw is not None)
    return TriedStep(terms, examples, total, *_untouched(step, reached))


def _measured(step: TracedStep, notes: TrialNotes, batch) -> tuple[dict, Any]:
    """path -> float32 [T], the norms of the terms' gradients; and the `Trial`."""
    program = step.program
    strategy = program.placement.strategy

    def measure(batch):
        rows, trial = step.passes.tried(notes, batch)
        local = {p: strategy.experimental_local_results(r)[0] for p, r in rows.items()}
        flat = {path: tf.reshape(r, [tf.shape(r)[0], -1]) for path, r in local.items()}
        return {path: tf.norm(tf.cast(r, tf.float64), axis=1) for path, r in flat.items()}, trial

    if not program.placement.eager:
        return tf.function(measure, autograph=False)(batch)
    variables = [*program.model.variables, *program.metrics.variables]
    with put_back(parts_of(strategy, variables)) if variables else contextlib.nullcontext():
        return measure(batch)


def _reached(step: TracedStep, notes: TrialNotes) -> dict[str, list[str]]:
    """term -> the paths of the variables that it trains."""
    program, optimizers = step.program, step.program.optimizers
    trains = {line.name: line.trains or () for line in program.objective.described or ()}
    trainables = program.trainables.of_groups(program.trained)
    passes = trainables.passes(program.layout, trains, optimizers.accumulates)
    masks = {path: mask for (mask, _), paths in passes.items() for path in paths}
    return {
        name: [p for p in notes.reached.get(name, ()) if p in masks and masks[p][place]]
        for place, name in enumerate(program.layout.names)
    }


def _untouched(step: TracedStep, reached: Mapping) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The paths of the model's variables that no term reaches, and of those that do not train."""
    program = step.program
    trained = program.trainables.of_groups(program.trained)
    groups, optimizers = program.trainables.groups, program.optimizers.of_group
    paths = {path for of_term in reached.values() for path in of_term}
    off = [layer for layer in layers_of(program.model) if not layer.trainable]
    asleep = {id(variable) for layer in off for variable in layer.weights}
    left: list[str] = []
    frozen: list[str] = []
    for path, variable in by_path(program.model.variables).items():
        group = groups.get(path)
        without = group is not None and group not in optimizers
        without = without or (path in program.trainables.owners and path not in trained.owners)
        if id(variable) in asleep or (variable.trainable and without):
            frozen.append(path)
        elif variable.trainable and path not in paths:
            left.append(path)
    return tuple(left), tuple(frozen)


def _origin(step: TracedStep, name: str) -> str:
    line = next(each for each in step.program.objective.described or () if each.name == name)
    return f"{line.origin}, of {line.source}" if line.source else line.origin


def _shape_and_range(notes: TrialNotes, examples: Examples, name: str) -> tuple:
    if name not in notes.shapes:
        return (), None, None
    values = examples.of_examples[name]
    there = values[examples.counted[name]]
    shape = (len(values), *notes.shapes[name])
    if not len(there):
        return shape, None, None
    return shape, float(there.min()), float(there.max())


def _few(names) -> str:
    """Some names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - SHOWN_PATHS} more" if len(names) > SHOWN_PATHS else ""
    return ", ".join(names[:SHOWN_PATHS]) + more
