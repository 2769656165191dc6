"""What the page costs: time to the first picture, bytes, memory of the server.

`make bench BENCH=page`, or `python -m benchmarks.page [--quick]`; the largest file has 7 GB.
"""

from __future__ import annotations

import gzip
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import describe_machine

SIZES = ((8, 10_000), (64, 100_000), (64, 1_000_000))  # terms, rows
RUNS = 200  # in the list
RESULTS = Path(__file__).resolve().parent / "results" / "page.md"
COLUMNS = {
    "terms × rows": "size",
    "file, MB": "file",
    "200 runs listed, s": "listed",
    "first picture, s": "first",
    "all rows indexed, s": "indexed",
    "picture, s": "picture",
    "zoomed picture, s": "zoomed",
    "picture, kB (gzip)": "bytes",
    "server, MB (before)": "memory",
}


def main(argv: list[str] | None = None) -> int:
    """Measures each size in a process of its own, and writes results/page.md.

    Args:
      argv: `--quick` leaves out the largest file and writes nothing.
    """
    quick = "--quick" in (sys.argv[1:] if argv is None else argv)
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for terms, rows in SIZES[: 2 if quick else 3]:
        with tempfile.TemporaryDirectory() as folder:
            _write_runs(Path(folder), terms, rows)
            command = [sys.executable, "-m", "benchmarks.page", "child", folder]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(done.stderr[-2000:])
        answer = {"size": f"{terms} × {rows:,}", **json.loads(done.stdout)}
        lines.append(f"| {' | '.join(str(answer[key]) for key in COLUMNS.values())} |")
        print(f"{lines[0]}\n{lines[-1]}", flush=True)
    machine = "\n".join(f"- {key}: {value}" for key, value in describe_machine().items())
    text = "# What the page costs\n\nWritten by `make bench BENCH=page`.\n\n"
    if not quick:
        RESULTS.write_text(f"{text}{machine}\n\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return 0


def _write_runs(folder: Path, terms: int, rows: int) -> None:
    """One long run, and so many short ones beside it."""
    ends = [_row_end(terms, variant) for variant in range(64)]
    run = folder / "run"
    run.mkdir()
    with (run / "metrics.jsonl").open("w", buffering=1 << 22) as file:
        for step in range(1, rows + 1):
            split = "eval" if step % 100 == 0 else "train"
            file.write(f'{{"step": {step}, "split": "{split}", "time": {step}.5, {ends[step % 64]}')
    for number in range(RUNS - 1):
        other = folder / f"other_{number}"
        other.mkdir()
        (other / "metrics.jsonl").write_text(
            f'{{"step": 1, "split": "train", "time": 0.5, {ends[0]}'
        )


def _row_end(terms: int, variant: int) -> str:
    """A row without its stamp, which varies."""
    values = {f"term_{i:02d}": math.exp(-0.1 * i) + 1e-3 * variant for i in range(terms)}
    row = {"total": math.fsum(values.values())}
    for head, factor in (("terms", 1.0), ("raw", 1 / 0.3), ("weight", 0.0)):
        row |= {f"{head}/{name}": value * factor or 0.3 for name, value in values.items()}
    row |= {"grad_norm/total": 1.5, "steps_per_second": 100.5, "examples_per_second": 6432.5}
    return json.dumps(row)[1:] + "\n"


def _child(folder: str) -> dict:
    """What one server measures."""
    from trainer.report.plugin import TermwisePlugin  # what a server has loaded
    from trainer.report.runs import Runs

    assert TermwisePlugin.plugin_name
    before, runs = _megabytes(), Runs(folder)
    listed, _ = _timed(runs.overview)
    first, answer = _timed(lambda: runs.rows("run"))
    indexed = first
    while not answer["complete"]:
        seconds, answer = _timed(lambda: runs.rows("run", points=2))
        indexed += seconds
    picture, answer = _timed(lambda: json.dumps(runs.rows("run")).encode())
    middle = json.loads(answer)["splits"]["train"]["count"] // 2
    zoomed, _ = _timed(lambda: json.dumps(runs.rows("run", first=middle, last=middle + 300)))
    return {
        "file": round(Path(folder, "run", "metrics.jsonl").stat().st_size / 1e6),
        "listed": round(listed, 3),
        "first": round(first, 2),
        "indexed": round(indexed, 2),
        "picture": round(picture, 2),
        "zoomed": round(zoomed, 2),
        "bytes": f"{len(answer) // 1000} ({len(gzip.compress(answer, 3)) // 1000})",
        "memory": f"{_megabytes():.0f} ({before:.0f})",
    }


def _timed(function):
    began = time.perf_counter()
    answer = function()
    return time.perf_counter() - began, answer


def _megabytes() -> float:
    """At the peak of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        print(json.dumps(_child(sys.argv[2])))
    else:
        sys.exit(main())
