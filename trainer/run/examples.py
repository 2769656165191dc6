"""One pass over the data that keeps, of each example, its value of each term."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from trainer.data.batch import unpack
from trainer.errors import OF_INPUT, reading_failure
from trainer.ledger.examples import Example, Examples, checked_top
from trainer.run.evaluate import prepare_reading
from trainer.run.run import Run
from trainer.step.outputs import ExampleNotes


def read_examples(run: Run, source, top: int | None = None) -> Examples:
    """Every example's value of every term, in the order of the data.

    The weights are those of `evaluate`: the run's, or those of its newest checkpoint; averages
    where the optimizer keeps some.

    Args:
      run: whose model.
      source: the data.
      top: how many of the hardest examples of each term are wanted; None: the values of all.
    Returns:
      `Examples`.
    Raises:
      ValueError: there is no batch, or no end; inputs are wanted that other hosts have read.
    """
    top = checked_top(top)
    if source.names:
        raise TermwiseError(
            "examples() takes data of one source, and this has "
            f"{', '.join(map(repr, source.names))}: "
            f"their examples have no common order. Give those of {source.names[0]!r} alone."
        )
    if source.steps_per_epoch == -1:
        raise TermwiseError("This data is infinite. Give data that ends: .take(batches).")
    if top is not None and source.per_host and run.hosts.count > 1:
        raise TermwiseError(
            "examples(top=) shows the examples' inputs, and each host reads others here. Leave "
            "top= out, or give a pipeline of global batches."
        )
    prepare_reading(run, source)
    program = run.program
    program.build(program, source.element_spec)
    with contextlib.ExitStack() as stack:
        stack.enter_context(program.optimizers.averages(program.trainables.variables))
        stack.enter_context(run.evaluation.metrics.set_aside(run.strategy))
        try:
            return _read(run, source, top)
        except OF_INPUT as error:
            raise reading_failure(source, error) from error


def _read(run: Run, source, top: int | None) -> Examples:
    traced = run.evaluation.trace_examples(source, run.jit.xla, top is not None)
    batches: list[dict[str, _Values]] = []
    lengths: list[int] = []
    hardest: dict[str, list[Example]] = {}
    for batch in source.batches():
        tensors = tf.nest.flatten(batch, expand_composites=True)
        rows, examples, y_pred = traced.step(*tensors)
        notes = traced.notes
        batches.append({name: _Values(rows[name], name in notes.sums) for name in rows})
        if top is not None:
            seen = (*_packed(tensors, source.element_spec), y_pred)
            for name, values in batches[-1].items():
                listed = hardest.get(name, [])
                hardest[name] = _harder(listed, values, sum(lengths), seen, top)
        lengths.append(int(examples))
    if not lengths:
        raise TermwiseError(f"{source.what} is an empty dataset. Give at least one batch.")
    return _told(traced.notes, batches, lengths, None if top is None else hardest)


def examples_of(notes: ExampleNotes, rows: dict[str, Any]) -> Examples:
    """The values of one batch, of what a pass over it gave.

    Args:
      notes: of the pass.
      rows: term -> float32 [examples, 3]; of several sources each has those of its own.
    """
    parts = {name: _Values(values, name in notes.sums) for name, values in rows.items()}
    values = {name: part.values for name, part in parts.items()}
    counted = {name: part.counted for name, part in parts.items()}
    counts = {name: None if name in notes.sums else part.counts for name, part in parts.items()}
    without = {name: why for name, why in notes.terms.items() if why is not None}
    return Examples(values, counts, counted, without)


class _Values:
    """The values of one term for the examples of a batch.

    Args:
      rows: float32 [examples, 3], of `examples_replica`.
      is_sum: whether the term is divided by nothing.
    """

    def __init__(self, rows, is_sum: bool):
        self.numerators, self.counts, counted = np.asarray(rows).T
        self.counted = (counted > 0) & (is_sum | (self.counts != 0))
        divisors = np.where(self.counted & (not is_sum), self.counts, 1.0).astype(np.float64)
        self.values = np.where(self.counted, self.numerators / divisors, np.nan).astype(np.float32)


def _packed(tensors, spec) -> tuple:
    """(x, y, sample_weight) of a batch's tensors; None where the data has none."""
    size = len(tf.nest.flatten(spec, expand_composites=True))
    return unpack(tf.nest.pack_sequence_as(spec, tensors[:size], expand_composites=True))


def _told(notes: ExampleNotes, batches: list, lengths: list[int], hardest) -> Examples:
    """What was read, term by term."""
    terms: dict[str, list[_Values]] = {}
    without = {name: why for name, why in notes.terms.items() if why is not None}
    for name in (name for name, why in notes.terms.items() if why is None):
        parts = [of_batch[name] for of_batch in batches]
        pairs = zip((len(part.values) for part in parts), lengths, strict=True)
        odd = next((pair for pair in pairs if pair[0] != pair[1]), None)
        if odd is not None:
            without[name] = f"it gave {odd[0]} values for a batch of {odd[1]} examples"
            continue
        terms[name] = parts

    def joined(part: str) -> dict[str, Any]:
        return {n: np.concatenate([getattr(p, part) for p in parts]) for n, parts in terms.items()}

    values, counted = joined("values"), joined("counted")
    counts = {**joined("counts"), **dict.fromkeys(notes.sums.intersection(terms))}
    if hardest is not None:
        hardest = {name: [_beside(e, name, values) for e in hardest[name]] for name in values}
    return Examples(values, counts, counted, without, hardest)


def _beside(example: Example, name: str, values: dict[str, np.ndarray]) -> Example:
    """The example of a term with its values of the others."""
    others = {other: float(of[example.index]) for other, of in values.items() if other != name}
    return replace(example, terms=others)


def _harder(listed: list[Example], values: _Values, first: int, seen, top: int) -> list[Example]:
    """The hardest examples among those listed before and those of a batch, the hardest first.

    What is not finite is the hardest of all; of examples with one value the first comes first.

    Args:
      listed: the hardest so far.
      values: of the batch.
      first: the place of the batch's first example in the data.
      seen: x, y, sample_weight and y_pred of the batch.
      top: how many are wanted.
    """
    places = np.flatnonzero(values.counted)
    keys = values.values[places]
    order = np.argsort(-np.where(np.isfinite(keys), keys, np.inf), kind="stable")[:top]
    candidates: list[Any] = [*listed, *((int(i), float(values.values[i])) for i in places[order])]
    candidates.sort(
        key=lambda each: -_hardness(each.value if isinstance(each, Example) else each[1])
    )
    return [
        each
        if isinstance(each, Example)
        else Example(first + each[0], each[1], *_row(seen, each[0]))
        for each in candidates[:top]
    ]


def _hardness(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _row(seen, index: int):
    """One example of nests of tensors, in numpy; None stays."""
    return tf.nest.map_structure(lambda leaf: _row_of_leaf(leaf, index), seen)


def _row_of_leaf(leaf, index: int):
    if leaf is None:
        return None
    if isinstance(leaf, tf.SparseTensor):
        leaf = tf.sparse.to_dense(leaf)
    return np.array(leaf[index])  # a copy: the batch need not stay
