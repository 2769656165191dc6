"""Tables and pictures for notebooks."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from losses.errors import TermwiseError

VIEWS = ("stack", "share", "lines", "raw")
# Okabe and Ito's colours, which colour-blind readers tell apart; the page has the same.
COLOURS = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7"),
    *("#56b4e9", "#d55e00", "#7a68c6", "#a5a02a"),
)
HATCHES = ("", "///", "...")  # where there are more terms than colours


def html_tables(tables: Iterable[Sequence], notes: Iterable[str] = ()) -> str:
    """Tables as HTML. What stands in a cell is text: `<` is shown as that.

    Args:
      tables: lists of rows of cells, the head first.
      notes: lines below.

    Example:
      >>> html_tables([[("term", "raw"), ("<b>", "1")]])
      '<table><thead><tr><th>term</th><th>raw</th></tr></thead><tbody><tr><td>&lt;b&gt;</td>...
    """
    parts = []
    for head, *rows in tables:
        body = "".join(_row(row, "td") for row in rows)
        parts.append(f"<table><thead>{_row(head, 'th')}</thead><tbody>{body}</tbody></table>")
    parts += [f"<p>{html.escape(note)}</p>" for note in notes]
    return "".join(parts)


def _row(cells: Sequence[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(str(cell))}</{tag}>' for cell in cells)}</tr>"


def draw(columns: Mapping[str, list], view: str, split: str, axes: Any) -> Any:
    """Draws the terms of a history's columns; see `History.plot`."""
    if view not in VIEWS:
        raise TermwiseError(f"view={view!r}: give one of {', '.join(VIEWS)}.")
    if not columns:
        raise TermwiseError(f"split={split!r}: the history has no such rows, so nothing to draw.")
    if axes is None:
        axes = _new_axes()
    head = "raw/" if view == "raw" else "terms/"
    names = [tag.removeprefix(head) for tag in columns if tag.startswith(head)]
    values = np.array([columns[head + name] for name in names], dtype=float)  # None becomes NaN
    steps = np.array(columns["step"])
    if view == "share":
        sizes = np.nansum(np.abs(values), axis=0)
        values = values / np.where(sizes > 0, sizes, np.nan)
    if view in ("stack", "share"):
        _areas(axes, steps, names, values)
    else:
        for index, name in enumerate(names):
            axes.plot(steps, values[index], color=COLOURS[index % len(COLOURS)], label=name)
    if view in ("stack", "lines"):
        total = np.array(columns["total"], dtype=float)
        axes.plot(steps, total, color="black", linewidth=1.6, label="total")
    axes.set_xlabel("step")
    axes.set_ylabel({"raw": "raw value", "share": "share"}.get(view, "weighted term"))
    axes.legend(fontsize="small", frameon=False)
    return axes


def _areas(axes, steps, names: Sequence[str], values: np.ndarray) -> None:
    """Each term on those before it; what is below zero hangs down from there."""
    up, down = np.zeros(len(steps)), np.zeros(len(steps))
    for index, name in enumerate(names):
        value = np.nan_to_num(values[index])
        # where it is 0 or absent, on the side where it mostly is
        hangs = (value < 0) | ((value == 0) & (value.sum() < 0))
        start = np.where(hangs, down, up)
        axes.fill_between(
            steps,
            start,
            start + value,
            color=COLOURS[index % len(COLOURS)],
            hatch=HATCHES[index // len(COLOURS) % len(HATCHES)],
            edgecolor="white",
            linewidth=0.5,
            label=name,
        )
        up, down = up + np.maximum(value, 0), down + np.minimum(value, 0)


def _new_axes() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            "history.plot() draws with matplotlib, which cannot be imported "
            f'({error}): pip install "termwise[plot]". history.rows and to_dict() need nothing.'
        ) from error
    return pyplot.subplots(figsize=(8, 4))[1]
