"""The results as a table for people, JSON for programs, and a plot."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.ratios import ratios, shares

EXPLAINED = """\
A ratio is a contestant's rate over its reference's, so more than 1 is faster than the reference;
of seconds and megabytes, less than 1 is better. "best" compares the best rounds of both, "median",
"low" and "high" are over the ratios within each round, and "CPU" is the reference's processor time
per step over the contestant's, which other programs on the machine disturb least. "of JAX" and
"of the bound" are a rate over JAX's, and over that of the step's matrix products alone,
the faster of with XLA and without: best (median).
"""


FILES = ("results.json", "results.md", "results.png")


def table(results: dict[str, dict]) -> str:
    """Markdown: one table for each benchmark, one line for each contestant with a reference."""
    lines = []
    for name, result in results.items():
        rounds = max(len(one["rates"]) for one in result["contestants"].values())
        columns, of = list(result.get("columns", {})), shares(result)
        heads = ["", "against", "best", "median", "low", "high", "CPU", *columns, result["unit"]]
        measured = f"{result['title']}; {rounds} rounds{_where(result.get('machine', {}))}."
        lines += [f"## {name}", "", measured, ""]
        lines += [_row(heads), "|" + "---|" * len(heads)]
        shown = set()
        for ratio in ratios(result):
            cpu = "" if ratio.cpu is None else f"{ratio.cpu:.2f}"
            spread = [f"{x:.2f}" for x in (ratio.best, ratio.median, ratio.low, ratio.high)]
            beside = _shares(of[ratio.label], columns)
            cells = [ratio.label, ratio.reference, *spread, cpu, *beside, _number(ratio.rate)]
            lines.append(_row(cells))
            shown.add(ratio.label)
        best = min if result["lower_is_better"] else max
        for label, one in result["contestants"].items():
            if label not in shown:
                beside = _shares(of[label], columns)
                lines.append(
                    _row([label, "", "1", *[""] * 4, *beside, _number(best(one["rates"]))])
                )
        lines += ["", *(f"{line}\n" for line in result.get("missing", ()))]
    return "\n".join(lines)


def _where(machine: dict[str, str]) -> str:
    """The machine, and the revision, that measured one benchmark; not all were on one day."""
    told = [machine[key] for key in ("processor", "revision") if key in machine]
    return f" on {', revision '.join(told)}" if told else ""


def _row(cells: list[str]) -> str:
    return "".join(f"| {cell} " if cell else "| " for cell in cells) + "|"


def _shares(of: dict[str, tuple[float, float]], columns: list[str]) -> list[str]:
    """The cells of further columns: best (median)."""
    return [f"{of[one][0]:.2f} ({of[one][1]:.2f})" if one in of else "" for one in columns]


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def write(results: dict[str, dict], machine: dict[str, str], folder: Path) -> list[str]:
    """Writes results.json, results.md and results.png; gives lines on what could not be written."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine, "results": results}, indent=1)
    (folder / "results.json").write_text(text + "\n")
    described = "\n".join(f"- {key}: {value}" for key, value in machine.items())
    page = f"# Results\n\nWritten by `python -m benchmarks`.\n\n{described}\n\n{EXPLAINED}\n"
    (folder / "results.md").write_text(page + table(results) + "\n")
    try:
        from benchmarks.plot import draw
    except ImportError as error:
        return [f"no plot: {error}. Install it with pip install -e '.[bench]'."]
    draw(results, folder / "results.png")
    return []
