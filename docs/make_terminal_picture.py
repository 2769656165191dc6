"""Makes docs/see/terminal.svg: what the quickstart prints, of a real run that this program starts.

    python docs/make_terminal_picture.py

The lines are those that were printed, without the middle of the training and the speed, which is
that of a machine.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "see" / "terminal.svg"
COMMAND = "python -m experiments.run --config=digits --workdir=runs/digits"
FONT, ADVANCE, LEADING, MARGIN = 13, 7.83, 19, 16  # pixels; the advance of a monospaced letter
COLOURS = {"background": "#1e1e2e", "text": "#cdd6f4", "command": "#a6e3a1", "names": "#89b4fa"}


def main():
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, *COMMAND.split()[1:]],
            cwd=folder,
            env={"PYTHONPATH": str(ROOT), "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        )
    PICTURE.write_text(drawing(shortened(done.stdout.splitlines())), encoding="utf-8")


def shortened(lines: list[str]) -> list[str]:
    """Without the middle of the training, and without speeds."""
    steps = [k for k, line in enumerate(lines) if line.startswith("step ")]
    first, last = steps[2], steps[-2]
    kept = [*lines[: first + 1], "...", *lines[last:]]
    return [re.sub(r" \| \S+ steps/s.*| in \d+s(?= \|)", "", line) for line in kept]


def drawing(lines: list[str]) -> str:
    """An SVG of the lines, below the command."""
    width = max(map(len, lines)) * ADVANCE + 2 * MARGIN
    height = (len(lines) + 1) * LEADING + 2 * MARGIN
    rows = [row(f"$ {COMMAND}", 0, "command"), *(row(line, k) for k, line in enumerate(lines, 1))]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="{FONT}">',
            f'<rect width="100%" height="100%" rx="8" fill="{COLOURS["background"]}"/>',
            *rows,
            "</svg>\n",
        ]
    )


def row(line: str, number: int, colour: str = "") -> str:
    """One line of text; the heads of tables and the names of progress lines stand out."""
    colour = colour or ("names" if line.startswith(("term ", "run ", "done ")) else "text")
    y = MARGIN + (number + 0.75) * LEADING
    return (
        f'<text x="{MARGIN}" y="{y:.1f}" fill="{COLOURS[colour]}" xml:space="preserve" '
        f'textLength="{len(line) * ADVANCE:.1f}">{escape(line)}</text>'
    )


if __name__ == "__main__":
    main()
