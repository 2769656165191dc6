"""Runs as one file: a page that needs no server, Markdown, JSON, CSV."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from trainer.report.hint import number
from trainer.report.runs import POINTS, STAMP, WIDE, Runs

PAGE = Path(__file__).resolve().parent / "page"
MODULES = (  # in their order
    *("dom", "terms", "data", "plot", "state", "tables", "saving", "controls", "figures", "index"),
)
AT_FIRST = 4  # runs that a report opens with, at most
MOST_WIDE = 200_000  # cosines in one report


def write_html(runs: Runs, names: list[str], points: int, file: IO[str]) -> None:
    """The page with its rows, as one file that asks nobody for anything."""
    rows = {name: runs.rows(name, points=points) for name in names}
    listed = runs.listed()
    shown = [run for run in listed["runs"] if run["name"] in names]
    data = {
        "runs": {**listed, "runs": shown, "first": names[:AT_FIRST]},
        "rows": rows,
        "wide": {name: _wide(runs, name) for name in names},
        "about": {name: runs.about(name) for name in names},
        "compare": {"fields": runs.compare(names)},
    }
    script = f"{bundle()}\nrender();\n"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src blob: data:"
    )
    title = html.escape(f"Termwise: {', '.join(names)}"[:200])
    # within a script element nothing but these characters could end it
    embedded = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    file.write(
        "<!DOCTYPE html>\n"
        '<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{title}</title>\n<style>\n{(PAGE / 'style.css').read_text('utf-8')}</style>\n"
        "</head><body>\n"
        f'<script type="application/json" id="termwise-data">{embedded}</script>\n'
        f'<script type="module">{script}</script>\n</body></html>\n'
    )


def bundle() -> str:
    """The page's modules as one script: what they import from each other stands above."""
    parts = []
    for name in MODULES:
        text = (PAGE / f"{name}.js").read_text("utf-8")
        text = re.sub(r'^import .* from "\./\w+\.js";\n', "", text, flags=re.M)
        parts.append(re.sub(r"^export ", "", text, flags=re.M))
    return "\n".join(parts)


def write_json(runs: Runs, names: list[str], points: int, file: IO[str]) -> None:
    """Each run: configuration, starts, hints, and rows as metrics.jsonl holds them."""
    answer = {}
    for name in names:
        rows = [row for _, row in sorted(_each_row(runs, name, points), key=lambda pair: pair[0])]
        answer[name] = {**runs.about(name), "rows": rows}
    json.dump({"runs": answer, "differences": runs.compare(names)}, file, indent=1)
    file.write("\n")


def write_csv(runs: Runs, names: list[str], points: int, file: IO[str]) -> None:
    """A line for each row of each run: run, step, split, time, and all tags."""
    rows = [
        {"run": name, **row}
        for name in names
        for _, row in sorted(_each_row(runs, name, points), key=lambda pair: pair[0])
    ]
    tags = dict.fromkeys(key for row in rows for key in row if key not in STAMP and key != "run")
    writer = csv.DictWriter(file, ["run", *STAMP, *tags], restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: "" if value is None else value for key, value in row.items()})


def write_markdown(runs: Runs, names: list[str], points: int, file: IO[str]) -> None:
    """The ledger at the end, the hints and the differences, as Markdown."""
    file.write("\n".join(_markdown(runs, names, points)) + "\n")


def _markdown(runs: Runs, names: list[str], points: int) -> Iterator[str]:
    ends = {}
    for name in names:
        about, splits = runs.about(name), runs.rows(name, points=2)["splits"]
        first, last = _row(splits["train"], 0), _row(splits["train"], -1)
        ends[name] = last
        yield f"# {_cell(name)}\n"
        if not last:
            yield "No rows yet.\n"
            continue
        seconds = about["seconds"]
        done = f"done in {seconds:.0f} s" if seconds is not None else "not done"
        total, before = _short(last["total"]), _short(first["total"])
        yield f"Step {last['step']}, {done}. Total {total} ({before} at step {first['step']}).\n"
        yield from _ledger(first, last)
        yield from _hints(about["hints"])
    if len(names) > 1:
        yield from _differences(runs, names, ends)


def _ledger(first: dict[str, Any], last: dict[str, Any]) -> Iterator[str]:
    """The table that the terminal shows at the end of a run."""
    yield "| term | raw | weight | weighted | share | first |\n|---|--:|--:|--:|--:|--:|"
    for name in _terms(last):
        weighted, total = last.get(f"terms/{name}"), last.get("total")
        share = f"{100 * weighted / total:.1f}%" if total and weighted is not None else "-"
        values = (last.get(f"raw/{name}"), last.get(f"weight/{name}"), weighted)
        cells = [_cell(name), *map(_short, values), share, _short(first.get(f"terms/{name}"))]
        yield f"| {' | '.join(cells)} |"
    yield f"| **total** |  |  | {_short(last['total'])} | 100% | {_short(first['total'])} |\n"


def _hints(hints: list[dict[str, Any]]) -> Iterator[str]:
    if hints:
        yield "What is off:\n"
        for hint in hints:
            yield "- " + _cell(f"{hint['what']}: {hint['look']}")
        yield ""


def _differences(runs: Runs, names: list[str], ends: dict[str, dict]) -> Iterator[str]:
    head = " | ".join(map(_cell, names))
    rule = "|---" * (len(names) + 1) + "|"
    yield f"# What differs\n\n| field | {head} |\n{rule}"
    for row in runs.compare(names):
        values = [_cell(json.dumps(row["values"][n])) if n in row["values"] else "" for n in names]
        yield f"| {_cell(row['field'])} | {' | '.join(values)} |"
    yield f"\n| term at the end | {head} |\n{rule}"
    terms = dict.fromkeys(term for row in ends.values() for term in _terms(row or {}))
    for term in [*(f"terms/{term}" for term in terms), "total"]:
        values = [_short((ends[name] or {}).get(term)) for name in names]
        yield f"| {_cell(term.removeprefix('terms/'))} | {' | '.join(values)} |"


def _wide(runs: Runs, name: str) -> dict[str, Any] | None:
    """The rows of a run with the cosines, as many as these allow; None where there are none."""
    rows = runs.rows(name, points=2, wide=True)["splits"]["train"]["tags"]
    pairs = sum(tag.startswith(WIDE) for tag in rows)
    if not pairs:
        few = runs.rows(name, points=100, wide=True)["splits"]["train"]["tags"]
        pairs = sum(tag.startswith(WIDE) for tag in few)
    return (
        runs.rows(name, points=min(max(MOST_WIDE // pairs, 20), POINTS), wide=True)
        if pairs
        else None
    )


def _each_row(runs: Runs, name: str, points: int) -> Iterator[tuple[tuple[int, bool], dict]]:
    """((step, whether of validation), row) of the rows of a run, thinned to `points` of a split."""
    splits = runs.rows(name, points=points, wide=True)["splits"]
    for split, columns in splits.items():
        for index in range(len(columns["step"])):
            row = _row(columns, index)
            yield (row["step"], split != "train"), {**row, "split": split}


def _row(columns: dict[str, Any], index: int) -> dict[str, Any]:
    """One row of columns; empty where there is none."""
    if not columns["step"]:
        return {}
    row = {"step": columns["step"][index], "split": None, "time": columns["time"][index]}
    return {**row, **{tag: values[index] for tag, values in columns["tags"].items()}}


def _terms(row: dict[str, Any]) -> list[str]:
    return [key.removeprefix("terms/") for key in row if key.startswith("terms/")]


def _short(value: Any) -> str:
    return "-" if number(value) is None else f"{value:.4g}"


def _cell(text: str) -> str:
    """Text that is neither markup nor the end of a cell."""
    return re.sub(r"([\\`*_{}\[\]<>|#!])", r"\\\1", " ".join(text.split()))
