"""`python -m trainer.report runs/a [runs/b ...] --output=report.html`: runs as one file."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path

from trainer.launch.exit_codes import WRONG
from trainer.report.errors import ReportError
from trainer.report.files import write_csv, write_html, write_json, write_markdown
from trainer.report.runs import MOST_POINTS, POINTS, Runs

WRITERS = {"html": write_html, "md": write_markdown, "json": write_json, "csv": write_csv}


def main(argv: list[str] | None = None) -> int:
    """Writes the report; 2 where something that was given is wrong."""
    arguments = _parse(argv)
    try:
        runs = Runs(_folders(arguments.folders), seconds=None)
        names = [run["name"] for run in runs.overview()]
        if not names:
            folders = ", ".join(map(str, arguments.folders))
            raise ReportError(f"no runs at or below {folders}: a run has metrics.jsonl.")
        kind = arguments.format or _format(arguments.output)
        output = arguments.output or ("report.html" if kind == "html" else "-")
        with contextlib.ExitStack() as stack:
            file = sys.stdout if output == "-" else stack.enter_context(_opened(output))
            points = arguments.points or (POINTS if kind == "html" else MOST_POINTS)
            WRITERS[kind](runs, names, points, file)
    except (ReportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG
    if output != "-":
        print(f"{output}: {len(names)} run{'s' if len(names) > 1 else ''}")
    return 0


def _opened(output: str):
    return open(output, "w", encoding="utf-8", newline="")


def _parse(argv):
    parser = argparse.ArgumentParser(
        prog="python -m trainer.report", description="One file that shows runs, without a server."
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="RUN", help="or folders of runs")
    parser.add_argument("--output", help="the file; - for the terminal")
    parser.add_argument("--format", choices=sorted(WRITERS), help="by --output; html by default")
    parser.add_argument(
        "--points",
        type=int,
        help=f"rows of a split at most, each whole; {POINTS} in html, else {MOST_POINTS}",
    )
    arguments = parser.parse_args(argv)
    if arguments.points is not None and not 2 <= arguments.points <= MOST_POINTS:
        parser.error(f"--points={arguments.points}: give 2 to {MOST_POINTS}.")
    return arguments


def _format(output: str | None) -> str:
    """The format that a file's ending asks for."""
    ending = Path(output or "report.html").suffix.removeprefix(".")
    if ending in WRITERS:
        return ending
    raise ReportError(f"--output={output}: give --format={'|'.join(WRITERS)}.")


def _folders(paths: list[Path]) -> dict[str, str]:
    """Name -> folder; the last part of the path, or all of it where two would be the same."""
    for path in paths:
        if not path.is_dir():
            raise ReportError(f"{path}: there is no such folder.")
    short = [os.path.basename(os.path.abspath(path)) for path in paths]
    return {
        name if short.count(name) == 1 else str(path): str(path)
        for name, path in zip(short, paths, strict=True)
    }


if __name__ == "__main__":
    sys.exit(main())
