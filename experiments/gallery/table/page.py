"""docs/gallery.md: the table, and a section of each experiment, made of what was measured."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.check import Check
from experiments.gallery.table.entry import Entry
from experiments.gallery.table.measured import Measured

INTRODUCTION = " ".join(
    [
        "Experiments that reach results which are known beforehand. `make experiments` runs all of",
        "them and writes this page of what it measured; `python -m experiments.gallery NAME` runs",
        "some and writes their part. Each is one configuration in `experiments/configs/` and one",
        "module in `experiments/gallery/` that reads in five minutes. A result is the mean over",
        "seeds ± its standard error, of test data or against a truth that is known. Validation",
        "data chose the settings; where test data were seen before, the configuration says so",
        "(`burgers`, `constrained`).",
    ]
)
HEAD = (
    "| experiment | shows | seeds | seconds a run | result | aim | |\n|---|---|---|---|---|---|---|"
)
NOT_MEASURED = "not measured"


def read_results(file: Path) -> dict[str, Any]:
    """What was measured so far: the entry's name -> {"runs", "cores"}; empty where nothing was.

    Raises:
      ValueError: the file is not what this program writes.
    """
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    if not isinstance(results, dict):
        raise ValueError(f"{file}: holds a {type(results).__name__}, not an object.")
    return results


def page(entries: Mapping[str, Entry], results: Mapping[str, Any]) -> str:
    """The page, in Markdown.

    Args:
      entries: all of the gallery.
      results: as `read_results` gives them; an entry without results says so.
    """
    parts = {name: _Part(name, entry, results.get(name)) for name, entry in entries.items()}
    rows = [row for part in parts.values() for row in part.rows()]
    sections = [section for part in parts.values() for section in part.section()]
    return "\n".join(["# Gallery", "", INTRODUCTION, "", HEAD, *rows, *sections]) + "\n"


def measured_of(entry: Entry, result: Mapping[str, Any] | None) -> Measured | None:
    """What was measured of an entry; None unless all its variants and seeds were."""
    if result is None:
        return None
    runs = result["runs"]
    wanted = {str(seed) for seed in entry.seeds}
    if any(not wanted <= runs.get(variant, {}).keys() for variant in entry.variants):
        return None
    return Measured(
        {
            variant: {str(seed): runs[variant][str(seed)] for seed in entry.seeds}
            for variant in entry.variants
        }
    )


class _Part:
    """One experiment's rows of the table, and its section."""

    def __init__(self, name: str, entry: Entry, result: Mapping[str, Any] | None):
        self.name, self.entry = name, entry
        self.cores = None if result is None else result.get("cores")
        self.measured = measured_of(entry, result)

    def rows(self) -> list[str]:
        """A line of the table for each aim."""
        first = f"| [{self.name}](#{self.name}) | {_cell(self.entry.shows)} |"
        first += f" {len(self.entry.seeds)} |"
        if self.measured is None:
            return [f"{first} | {NOT_MEASURED} | | |"]
        seconds = self.measured.seconds(next(iter(self.entry.variants)))
        first += f" {seconds:.0f} |" if seconds >= 9.5 else f" {seconds:.1f} |"
        lines = [
            f" {self._result(name, check)} | {_cell(name)} {_aim(check)} | {_word(check)} |"
            for name, check in self.entry.reached(self.measured).items()
        ]
        return [first + lines[0], *("| | | | |" + line for line in lines[1:])]

    def _result(self, name: str, check: Check) -> str:
        """The value, with its standard error where it is a mean over the seeds of a variant."""
        assert self.measured is not None
        if name not in self.measured.names():
            return _number(check.value)
        return _with_error(check.value, self.measured.error(next(iter(self.entry.variants)), name))

    def section(self) -> list[str]:
        """What it shows, how to run it, its variants, its picture."""
        lines = ["", f"## {self.name}", "", self.entry.shows, "", "```console"]
        config = f"--config=experiments/configs/{self.name}.py"
        for variant, arguments in self.entry.variants.items():
            workdir = f"runs/{self.name}_{variant}".replace(" ", "_").removesuffix("_as_it_is")
            words = ["python -m experiments.run", config, *arguments, f"--workdir={workdir}"]
            lines.append(" ".join(words))
        lines.append("```")
        if self.measured is None:
            return [*lines, "", f"Its results are {NOT_MEASURED} yet."]
        lines += ["", *self._table()]
        if self.cores:
            lines += ["", f"Measured on {self.cores} CPU cores; seconds are of training alone."]
        if self.entry.pictured:
            lines += ["", f"![{self.name}](gallery/{self.name}.png)"]
        return lines

    def _table(self) -> list[str]:
        """A line for each variant, a column for each check."""
        assert self.measured is not None
        names = self.measured.names()
        lines = [
            f"| variant | {' | '.join(map(_cell, names))} | seconds |",
            f"|---|{'---|' * (len(names) + 1)}",
        ]
        for variant in self.entry.variants:
            cells = [self._mean(variant, name) for name in names]
            seconds = f"{self.measured.seconds(variant):.1f}"
            lines.append(f"| {variant} | {' | '.join(cells)} | {seconds} |")
        return lines

    def _mean(self, variant: str, check: str) -> str:
        assert self.measured is not None
        try:
            mean = self.measured.mean(variant, check)
        except KeyError:
            return ""
        return _with_error(mean, self.measured.error(variant, check))


def _with_error(mean: float, error: float) -> str:
    """`0.9342 ± 0.0021`: the error in two digits, the mean to the same place."""
    if not math.isfinite(error) or error == 0.0:
        return _number(mean)
    if error < 1e-4 * abs(mean) or error < 1e-4:
        return f"{mean:.4g} ± {error:.1e}"
    places = max(0, 1 - math.floor(math.log10(error)))
    return f"{mean:.{places}f} ± {error:.{places}f}"


def _number(value: float) -> str:
    return f"{value:.4g}"


def _aim(check: Check) -> str:
    """The bounds in words of a formula: ≥ 0.9."""
    if check.at_least is not None and check.at_most is not None:
        return f"{check.at_least:g} to {check.at_most:g}"
    if check.at_least is not None:
        return f"≥ {check.at_least:g}"
    return "" if check.at_most is None else f"≤ {check.at_most:g}"


def _word(check: Check) -> str:
    return "reached" if check.reached else "**missed**"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
