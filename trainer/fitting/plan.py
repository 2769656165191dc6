"""The cadences of a fit: how far it goes, and when something is due."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from losses.errors import TermwiseError
from trainer.data.batch import is_whole
from trainer.ledger.format import duration

# the loop counts the steps of a call and of a log window in int32
BITS = {"log_every": 31, "steps_per_loop": 31}
AUTO = "auto"  # of checkpoint_every

FIRST_S = 5.0  # after which a checkpoint is saved to see what one costs
FAILURE_S = 3600.0  # taken to lie between two failures, until a run has had some
BELIEF = 0.1  # of a failure seen: too many checkpoints cost LARGEST_SHARE at most, too few any time
LARGEST_SHARE = 0.03  # of the time that checkpoints may cost
LONGEST_S = 1800.0  # between two checkpoints, where that share allows it
LONGEST_LIFE_S = 86400.0  # a run that was started again later than that was not missed before


@dataclass(frozen=True)
class Plan:
    """The cadences of a fit, in steps; None where nothing is due."""

    steps: int
    log_every: int
    interval: int  # of validation; one is an epoch of the callbacks
    checkpoint_every: int | str | None  # or AUTO
    steps_per_loop: int | None

    @property
    def single(self) -> bool:
        """Whether each step is a log window of its own."""
        return self.log_every == 1

    @property
    def auto(self) -> bool:
        """Whether the time between checkpoints is chosen by what they cost."""
        return self.checkpoint_every == AUTO

    def numbers(self) -> dict[str, int | None]:
        """The fields as numbers that hosts can compare; 0 for AUTO."""
        return {**vars(self), "checkpoint_every": 0 if self.auto else self.checkpoint_every}

    def next_stop(self, step: int, windows: bool = False) -> int:
        """The next step at which something is due on the host; a row is not, with `windows`."""
        every = [None if windows else self.log_every, self.interval, self._saves_every]
        return min([self.steps, *(step - step % n + n for n in every if n)])

    def saves_at(self, step: int) -> bool:
        """Whether a checkpoint is due at a step."""
        every = self._saves_every
        return every is not None and step % every == 0

    @property
    def _saves_every(self) -> int | None:
        every = self.checkpoint_every
        return None if isinstance(every, str) else every


def plan_fit(
    source,
    *,
    steps,
    epochs,
    log_every,
    validate_every,
    checkpoint_every,
    steps_per_loop,
    steps_per_epoch=None,
):
    """The `Plan` of a fit's arguments; an epoch is a pass, or so many steps as are given.

    Raises:
      ValueError: neither or both of steps and epochs, steps of an epoch without epochs, or a
        cadence that is not at least 1.
    """
    numbers = {
        "steps": steps,
        "epochs": epochs,
        "log_every": log_every,
        "validate_every": validate_every,
        "checkpoint_every": checkpoint_every,
        "steps_per_loop": steps_per_loop,
    }
    if checkpoint_every == AUTO:
        numbers.pop("checkpoint_every")
    for name, value in numbers.items():
        _check_cadence(name, value)
    if (steps is None) == (epochs is None):
        raise TermwiseError(
            f"fit() needs steps= or epochs=, one of them; received steps={steps}, "
            f"epochs={epochs}. steps is the global step to train to."
        )
    if epochs is None and steps_per_epoch is not None:
        raise TermwiseError(
            f"steps_per_epoch={steps_per_epoch} goes with epochs=. Give epochs=, or "
            "validate_every= with steps=."
        )
    epoch = None if epochs is None else steps_per_epoch or _steps_of_a_pass(source)
    if epoch is not None:
        steps = int(epochs) * epoch
        if steps >= 2**63:
            raise TermwiseError(f"epochs={epochs} are {steps} steps: give less than 2**63.")
    return Plan(
        steps=steps,
        log_every=log_every or epoch or 100,
        interval=validate_every or epoch or steps,
        checkpoint_every=checkpoint_every,
        steps_per_loop=steps_per_loop,
    )


def _steps_of_a_pass(source) -> int:
    """The steps of a pass over data. ValueError: it has no end, or no batch."""
    steps = source.steps_per_epoch
    if steps is None:
        steps = source.count_steps()
    if steps < 0:
        raise TermwiseError(
            "epochs= needs data that ends; this dataset is infinite. Pass steps=, or "
            "steps_per_epoch=."
        )
    if not steps:
        raise TermwiseError(f"{source.what} is an empty dataset. Give at least one batch.")
    return steps


def _check_cadence(name: str, value) -> None:
    """Raises ValueError where a number of steps is none, or too large to be counted."""
    if value is None:
        return
    if not is_whole(value) or value < 1:
        auto = ", or 'auto'" if name == "checkpoint_every" else ""
        raise TermwiseError(f"{name}={value!r}: give a whole number of at least 1{auto}.")
    bits = BITS.get(name, 63)
    if value >= 2**bits:
        only_the_end = "; that of steps= gives the row of the end alone"
        raise TermwiseError(
            f"{name}={value}: give a whole number below 2**{bits}"
            f"{only_the_end if name == 'log_every' else ''}."
        )


def seconds_between(cost: float, failure: float, restart: float = 0.0) -> float:
    """The seconds from one checkpoint to the next that lose the least time.

        sqrt(2 * cost * (failure + restart)) - cost

    At most LONGEST_S, and so many at least that checkpoints cost LARGEST_SHARE of the time or less.

    Args:
      cost: seconds that a checkpoint costs.
      failure: seconds between two failures, on average.
      restart: seconds from a start to the first new step.
    Source: Daly 2006, eq. 20, of which Young 1974 has the first part.

    Example:
      >>> seconds_between(cost=0.5, failure=3600.0)
      59.5
      >>> seconds_between(cost=30.0, failure=600.0)
      1000.0
    """
    best = math.sqrt(2 * cost * (failure + restart)) - cost
    return max(min(best, LONGEST_S), cost / LARGEST_SHARE)


def failure_seconds(starts: Iterable[Mapping]) -> float:
    """The seconds between two failures of a run: FAILURE_S, moved by those that it has had.

        (BELIEF * FAILURE_S + time from start to start) / (BELIEF + starts that were failures)

    Each start but the first counts as one, unless the run had come to its end before it.
    TERMWISE_FAILURE_S of the environment is taken instead where it is set.

    Args:
      starts: the lines of starts.jsonl.
    Raises:
      ValueError: TERMWISE_FAILURE_S is no positive number.
    """
    if text := os.environ.get("TERMWISE_FAILURE_S"):
        with contextlib.suppress(ValueError):
            if 0 < float(text) < math.inf:
                return float(text)
        raise TermwiseError(
            f"TERMWISE_FAILURE_S={text[:100]!r}: give the seconds between two failures, a positive "
            "number."
        )
    elapsed, failures, before = 0.0, 0, None
    for start in starts:
        if "argv" not in start:
            continue  # a note between two starts
        now = _seconds_of(start.get("time"))
        if before is not None and now is not None and not start.get("was_done"):
            elapsed += min(max(now - before, 0.0), LONGEST_LIFE_S)
            failures += 1
        before = before if now is None else now
    return (BELIEF * FAILURE_S + elapsed) / (BELIEF + failures)


class Timing:
    """When the next checkpoint is due, under `checkpoint_every="auto"`; of use to the chief alone.

    What a checkpoint costs is the time in which the training waits for it and that in which it is
    written beside the training, as if that were waiting too.

    Args:
      noted: what an earlier start has noted of it in starts.jsonl, or None.
      failure: seconds between two failures.
      clock: a time in seconds that does not jump.
    Attributes:
      known: whether an earlier start has noted it.
      new: whether what a checkpoint costs was measured for the first time, and not told yet.
    """

    def __init__(self, noted, failure: float, clock: Callable[[], float] = time.perf_counter):
        noted = noted if isinstance(noted, dict) else {}
        costs = [noted.get(key) for key in ("cost_s", "restart_s")]
        self.known = all(type(cost) in (int, float) and cost >= 0 for cost in costs)
        self._cost: float | None = costs[0] if self.known else None
        self._restart: float = costs[1] if self.known else 0.0
        self._failure, self._clock = failure, clock
        self._began = self._saved = clock()
        self._rate = 0.0  # steps per second
        self._measured = self.new = False

    @property
    def seconds(self) -> float:
        """From one checkpoint to the next."""
        if self._cost is None:
            return FIRST_S
        return seconds_between(self._cost, self._failure, self._restart)

    def took(self, steps: int, seconds: float) -> None:
        """A call of the loop took so long; the first one ends the start."""
        if not self._rate:  # the first
            self._restart = self._clock() - self._began
            self._saved = self._clock()
        self._rate = steps / seconds

    def saved(self, cost: float) -> None:
        """A checkpoint was saved, or one saved earlier is on the disk now: what it has cost."""
        self.new = self.new or not self._measured
        self._cost = 0.5 * (self._cost + cost) if self._measured and self._cost else cost
        self._measured = True

    def begin(self) -> None:
        """A checkpoint is saved now."""
        self._saved = self._clock()

    def due(self, step: int) -> int:
        """The step at which the next one is due, as far as can be told at a step."""
        left = self.seconds - (self._clock() - self._saved)
        return step + max(1, round(min(left * self._rate, 2.0**52)))

    def told(self) -> tuple[dict, str]:
        """What starts.jsonl notes of it, and a sentence."""
        self.new = False
        steps = max(1, round(self.seconds * self._rate))
        note = {
            "every_s": round(self.seconds, 3),
            "every_steps": steps,
            "cost_s": round(self._cost or 0.0, 4),
            "restart_s": round(self._restart, 3),
            "failure_s": round(self._failure, 1),
        }
        how = "measured" if self._measured else "as noted before"
        sentence = (
            f"checkpoints every {self.seconds:.3g} s, about {steps} steps ({how}: one costs "
            f"{self._cost:.2g} s, a start {self._restart:.2g} s; a failure is expected every "
            f"{duration(self._failure)})"
        )
        return note, sentence


def _seconds_of(text) -> float | None:
    """The time of a line of starts.jsonl in seconds; None where it is none."""
    with contextlib.suppress(TypeError, ValueError):
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z").timestamp()
    return None
