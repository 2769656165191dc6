"""Rows of a run, made by hand."""

import json
import math


def row(step, raw, weight=None, split="train", **more):
    """A row as metrics.jsonl holds it, of raw values and weights by term; weights are 1."""
    weight = {name: 1.0 for name in raw} | (weight or {})
    terms = {name: weight[name] * value for name, value in raw.items() if value is not None}
    entries = {f"terms/{name}": terms.get(name) for name in raw}
    entries |= {f"raw/{name}": value for name, value in raw.items()}
    entries |= {f"weight/{name}": weight[name] for name in raw}
    stamp = {"step": step, "split": split, "time": 1000.0 + step}
    return {**stamp, "total": math.fsum(terms.values()), **entries, **more}


def healthy(count=40, **more):
    """Two terms that fall, of 70 % and 30 % of the total at first."""
    return [
        row(step, {"a": 0.7 / step + 0.1, "b": 0.3 / step + 0.02}, steps_per_second=100.0, **more)
        for step in range(1, count + 1)
    ]


def write_run(folder, rows, **files):
    """A run's folder with these rows; further files by name: config, DONE, starts."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    for name, value in files.items():
        if name == "starts":
            lines = "".join(json.dumps(start) + "\n" for start in value)
            (folder / "starts.jsonl").write_text(lines, encoding="utf-8")
        else:
            (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    return folder
