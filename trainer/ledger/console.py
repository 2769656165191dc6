"""What a run prints: its line, the table of terms, equations that add up, the ledger."""

from __future__ import annotations

import math
import sys
import time

SHOWN_TERMS = 6
LINES_PER_SECOND, LINES_AT_ONCE = 10.0, 20.0  # of progress: nobody reads more


class Console:
    """Prints a run's progress; `quiet` prints nothing."""

    def __init__(self, quiet=False):
        self.quiet = quiet
        self._allowed, self._asked = LINES_AT_ONCE, time.monotonic()

    def line(self, text="") -> None:
        if not self.quiet:
            print(text, flush=True)

    def warning(self, text: str) -> None:
        """What went wrong and was mended, on stderr."""
        print(f"warning: {text}", file=sys.stderr, flush=True)

    def progress(self, row: dict, total_steps: int) -> None:
        """`step  100/1000  total 1.284 = a 1.071 + b 0.213 | 4100 steps/s | eta 0s`.

        Rows that come faster than `LINES_PER_SECOND` are left out, but for the last.
        """
        if self.quiet:
            return
        now = time.monotonic()
        earned = (now - self._asked) * LINES_PER_SECOND
        self._allowed, self._asked = min(self._allowed + earned, LINES_AT_ONCE), now
        if self._allowed < 1 and row["step"] < total_steps:
            return
        self._allowed -= 1
        rate = row.get("steps_per_second") or 0.0
        left = total_steps - row["step"]
        eta = duration(left / rate) if rate else "?"
        step = f"{row['step']:>{len(str(total_steps))}}/{total_steps}"
        self.line(f"step {step}  {equation(row)} | {rate:.0f} steps/s | eta {eta}")

    def evaluation(self, row: dict) -> None:
        metrics = "".join(
            f" | {key.removeprefix('metrics/')} {value:.4f}"
            for key, value in row.items()
            if key.startswith("metrics/") and value is not None
        )
        self.line(f"eval {row['step']}  {equation(row)}{metrics}")


def equation(row: dict) -> str:
    """`total 1.284 = a 1.071 + b 0.213`; the rounded terms add up to the rounded total."""
    terms = {k.removeprefix("terms/"): v for k, v in row.items() if k.startswith("terms/")}
    total = row["total"]
    if total is None or any(value is None for value in terms.values()):
        shown = " + ".join(f"{n} {'nan' if v is None else f'{v:.4g}'}" for n, v in terms.items())
        return f"total {'nan' if total is None else f'{total:.4g}'} = {shown}"
    size = max(abs(total), max((abs(v) for v in terms.values()), default=0.0))
    digits = min(max(3 - math.floor(math.log10(size)) if size else 3, 0), 12)
    if len(terms) > SHOWN_TERMS:
        largest = sorted(terms, key=lambda name: -abs(terms[name]))[: SHOWN_TERMS - 1]
        rest = math.fsum(value for name, value in terms.items() if name not in largest)
        more = f"{len(terms) - len(largest)} more"
        terms = {**{name: v for name, v in terms.items() if name in largest}, more: rest}
    shares = round_to_sum(list(terms.values()), digits)
    parts = []
    for name, value in zip(terms, shares, strict=True):
        sign = "- " if value < 0 else "+ "
        parts.append(f"{sign}{name} {abs(value):.{digits}f}")
    shown = " ".join(parts).removeprefix("+ ")
    return f"total {sum(shares):.{digits}f} = {shown}"


def round_to_sum(values: list[float], digits: int) -> list[float]:
    """The values rounded so that they add up to their rounded sum, none moved by a whole unit."""
    unit = 10.0**digits
    whole = [math.floor(value * unit) for value in values]
    missing = round(math.fsum(values) * unit) - sum(whole)
    order = sorted(range(len(values)), key=lambda i: whole[i] - values[i] * unit)
    for index in order[:missing]:
        whole[index] += 1
    return [value / unit for value in whole]


def duration(seconds: float) -> str:
    """`3s`, `4m 10s`, `2h 05m`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes}m {seconds:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m"
