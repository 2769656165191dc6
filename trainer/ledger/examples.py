"""The examples behind the terms: each one's value of each term, and the hardest as a table."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from losses.errors import TermwiseError
from trainer.ledger.format import format_table, number
from trainer.persistence.files import refusal, replace_bytes, replace_text

SHOWN_VALUES = 4  # of an array in a cell of the table


@dataclass(frozen=True)
class Example:
    """One example, and what a term makes of it.

    Attributes:
      index: int, its place in the data, from 0.
      value: float, of the term that it is listed under.
      x, y, sample_weight: its part of the data, without the axis of examples; None where the data
        has none.
      y_pred: the model's outputs for it.
      terms: the other terms by name -> its value; NaN where it does not count.
    """

    index: int
    value: float
    x: Any
    y: Any
    sample_weight: Any
    y_pred: Any
    terms: dict[str, float] = field(default_factory=dict)


class Examples(dict):
    """The values of the terms, example by example: name -> float32 [examples].

    An example that a mask or a sample weight of 0 leaves out has the value NaN. A term's raw value
    over the data, as `evaluate` gives it, is the mean of the values by `counts`:

        raw = sum over the examples that count of value * count / sum of all counts

    and of a term that is a sum (`counts[name]` is None) the sum of the values.

    Where the hardest were asked for, each term has a list of `Example` instead, the hardest first.

    Attributes:
      counts: name -> float32 [examples], how much each counts: 1, or how many of its time steps or
        pixels do, or its weight where the term divides by the weights; None: of a sum.
      counted: name -> bool [examples], which examples count.
      of_examples: name -> float32 [examples], the values, also beside the hardest.
      without: the terms that have no value per example: name -> why.
    """

    def __init__(self, values, counts, counted, without, hardest=None):
        super().__init__(values if hardest is None else hardest)
        self.of_examples, self.counts, self.counted = values, counts, counted
        self.without: dict[str, str] = without
        self._listed = hardest is not None

    def __missing__(self, name):
        if name in self.without:
            raise KeyError(f"Term {name!r} has no value per example: {self.without[name]}.")
        raise KeyError(f"There is no term {name!r}. There are: {', '.join(map(repr, self))}.")

    def raw(self, name: str) -> float:
        """A term's value over the data, of its examples' values; NaN where none counts."""
        values, counts = self.of_examples[name].astype(np.float64), self.counts[name]
        there = self.counted[name]
        if not there.any():
            return float("nan")
        if counts is None:
            return float(values[there].sum())
        counts = counts.astype(np.float64)
        return float((values[there] * counts[there]).sum() / counts.sum())

    def __str__(self) -> str:
        """The hardest of each term as a table, or without them a line for each term."""
        tables = [self._hardest_table(name) for name in self] if self._listed else [self._summary()]
        left_out = [f"{name}: no value per example, {why}" for name, why in self.without.items()]
        return "\n\n".join(part for part in (*tables, "\n".join(left_out)) if part)

    def _summary(self) -> str:
        rows: list[tuple] = [("term", "examples", "raw", "least", "median", "largest")]
        for name, values in self.of_examples.items():
            there = values[self.counted[name]]
            spread = np.quantile(there, [0.0, 0.5, 1.0]) if len(there) else [np.nan] * 3
            rows.append((name, str(len(there)), *map(number, [self.raw(name), *spread])))
        return format_table(rows) if len(rows) > 1 else ""

    def _hardest_table(self, name: str) -> str:
        others = [other for other in self if other != name]
        rows: list[tuple] = [("example", name, *others, "y", "y_pred", "x")]
        for example in self[name]:
            cells = [str(example.index), number(example.value)]
            cells += [number(example.terms[other]) for other in others]
            parts = (shown(part) for part in (example.y, example.y_pred, example.x))
            rows.append((*cells, *parts))
        return format_table(rows, words=True)

    def save(self, path, heading: str = "") -> Path:
        """Writes the values as an .npz, and beside it as .txt what `str()` gives.

        The arrays are `value/<term>`, `counted/<term>` and, but for a sum, `count/<term>`. Each
        file is whole or not there.

        Args:
          path: of the .npz; the suffix is added where it ends otherwise.
          heading: the first line of the text.
        Returns:
          The path.
        Raises:
          OSError: a file cannot be written.
        """
        path = Path(path)
        path = path if path.suffix == ".npz" else path.with_name(path.name + ".npz")
        arrays = {}
        for name, values in self.of_examples.items():
            arrays[f"value/{name}"], arrays[f"counted/{name}"] = values, self.counted[name]
            if self.counts[name] is not None:
                arrays[f"count/{name}"] = self.counts[name]
        content = io.BytesIO()
        np.savez(content, **arrays)
        text = "\n\n".join(part for part in (heading, str(self)) if part)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_bytes(path, content.getvalue())
            replace_text(path.with_suffix(".txt"), f"{text}\n")
        except OSError as error:
            raise refusal(path, error) from error
        return path


def shown(nest) -> str:
    """A part of an example in a few words: numbers where there are few, else dtype and shape."""
    if nest is None:
        return "-"
    if isinstance(nest, dict):
        return " ".join(f"{key}={shown(value)}" for key, value in nest.items())
    if isinstance(nest, (list, tuple)):
        return " ".join(map(shown, nest))
    array = np.asarray(nest)
    if array.size > SHOWN_VALUES:
        largest = ""
        if array.ndim == 1 and array.dtype.kind == "f" and array.size <= 1000:
            largest = f", largest {number(float(array.max()))} at {int(array.argmax())}"
        return f"{array.dtype.name}{list(array.shape)}{largest}"
    cells = [number(float(v)) if array.dtype.kind == "f" else str(v) for v in array.ravel()]
    return " ".join(cells)


def checked_top(top) -> int | None:
    """`top=` if it can be one. ValueError: no whole number of at least 1, nor None."""
    whole = isinstance(top, (int, np.integer)) and not isinstance(top, bool)
    if top is not None and not (whole and top >= 1):
        raise TermwiseError(f"examples(top={top!r}): give a whole number of at least 1, or None.")
    return None if top is None else int(top)
