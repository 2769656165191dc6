"""What a run prints: its lines, and each row as an equation that adds up."""

from __future__ import annotations

import sys
import time

from trainer.ledger.format import duration, equation
from trainer.ledger.writer import Writer

LINES_PER_SECOND, LINES_AT_ONCE = 10.0, 20.0  # of progress: nobody reads more


class Console(Writer):
    """Prints a run's progress; `quiet` prints nothing but notices and warnings."""

    def __init__(self, quiet=False):
        self.quiet = quiet
        self._lines_left, self._refilled_at = LINES_AT_ONCE, time.monotonic()

    def line(self, text="") -> None:
        """Prints a line."""
        if not self.quiet:
            print(text, flush=True)

    def notice(self, text: str) -> None:
        """Prints a line that is needed to understand what happened, also when quiet."""
        if text:
            print(text, flush=True)

    def warning(self, text: str) -> None:
        """What went wrong and was mended, on stderr."""
        print(f"warning: {text}", file=sys.stderr, flush=True)

    def write(self, row: dict, total_steps: int) -> None:
        """Prints a training row as progress, another one as an evaluation."""
        if row["split"] == "train":
            self.progress(row, total_steps)
        else:
            self.evaluation(row)

    def progress(self, row: dict, total_steps: int) -> None:
        """`step  100/1000  total 1.284 = a 1.071 + b 0.213 | 4100 steps/s | eta 0s`.

        Rows that come faster than `LINES_PER_SECOND` are left out, but for the last.
        """
        if self.quiet or not self._take_line(due=row["step"] >= total_steps):
            return
        rate = row.get("steps_per_second") or 0.0
        eta = duration((total_steps - row["step"]) / rate) if rate else "?"
        step = f"{row['step']:>{len(str(total_steps))}}/{total_steps}"
        self.line(f"step {step}  {equation(row)} | {rate:.0f} steps/s | eta {eta}")

    def evaluation(self, row: dict) -> None:
        """`eval 100  total 1.3 = a 1.1 + b 0.2 | accuracy 0.9812`."""
        metrics = "".join(
            f" | {key.removeprefix('metrics/')} {value:.4f}"
            for key, value in row.items()
            if key.startswith("metrics/") and value is not None
        )
        self.line(f"{row['split']} {row['step']}  {equation(row)}{metrics}")

    def cut(self, step: int) -> None:
        """What was printed stays."""

    def flush(self, to_disk: bool) -> None:
        """Each line is flushed when it is printed."""

    def close(self, finished: bool) -> None:
        """The streams are the program's."""

    def _take_line(self, due: bool) -> bool:
        """Whether a line of progress may be printed now; it counts as printed then.

        Args:
          due: it is printed in any case, and taken from those that follow.
        """
        now = time.monotonic()
        refill = (now - self._refilled_at) * LINES_PER_SECOND
        self._lines_left = min(self._lines_left + refill, LINES_AT_ONCE)
        self._refilled_at = now
        if self._lines_left < 1 and not due:
            return False
        self._lines_left -= 1
        return True
