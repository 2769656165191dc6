"""The results as a table for people, JSON for programs, and a plot."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.ratios import ratios

EXPLAINED = """\
A ratio is a contestant's rate over its reference's, so more than 1 is faster than the reference;
of seconds and megabytes, less than 1 is better. "best" compares the best rounds of both, "median",
"low" and "high" are over the ratios within each round, and "CPU" is the reference's processor time
per step over the contestant's, which other programs on the machine disturb least.
"""


FILES = ("results.json", "results.md", "results.png")


def table(results: dict[str, dict]) -> str:
    """Markdown: one table for each benchmark, one line for each contestant with a reference."""
    lines = []
    for name, result in results.items():
        rounds = max(len(one["rates"]) for one in result["contestants"].values())
        lines += [f"## {name}", "", f"{result['title']}; {rounds} rounds.", ""]
        lines += [f"| | against | best | median | low | high | CPU | {result['unit']} |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        shown = set()
        for ratio in ratios(result):
            cpu = "" if ratio.cpu is None else f"{ratio.cpu:.2f}"
            lines.append(
                f"| {ratio.label} | {ratio.reference} | {ratio.best:.2f} | {ratio.median:.2f} | "
                f"{ratio.low:.2f} | {ratio.high:.2f} | {cpu} | {_number(ratio.rate)} |"
            )
            shown.add(ratio.label)
        best = min if result["lower_is_better"] else max
        for label, one in result["contestants"].items():
            if label not in shown:
                lines.append(f"| {label} | | 1 | | | | | {_number(best(one['rates']))} |")
        lines += ["", *(f"{line}\n" for line in result.get("missing", ()))]
    return "\n".join(lines)


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
