"""Phases of a training: named spans that set weights, what trains, and the learning rate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from losses.errors import TermwiseError, TermwiseTypeError
from losses.naming import checked_name
from trainer.data.batch import is_whole
from trainer.ledger.history import History
from trainer.second_order.method import SecondOrder
from trainer.step.program import NO_PHASE, PhaseOfStep


@dataclass(frozen=True)
class Reached:
    """A condition on a logged value, by which a phase ends.

    Args:
      tag: of the rows, such as "total", "raw/kl" or "metrics/accuracy".
      below, above: the value it has to pass; one of them.
      rows: for how many rows in a row.
      split: of the rows: "train", "eval" or "eval/<set>".
    Raises:
      ValueError: neither or both of below and above; rows that cannot be counted.

    Example:
      >>> Reached("raw/kl", below=0.1, rows=2).holds([{"raw/kl": 0.3}, {"raw/kl": 0.05}])
      False
    """

    tag: str
    below: float | None = None
    above: float | None = None
    rows: int = 1
    split: str = "train"

    def __post_init__(self):
        if (self.below is None) == (self.above is None):
            raise TermwiseError(
                f"Reached({self.tag!r}) needs below= or above=, one of them; received "
                f"below={self.below}, above={self.above}."
            )
        if not is_whole(self.rows) or self.rows < 1:
            raise TermwiseError(f"Reached(rows={self.rows!r}): give a whole number of at least 1.")

    def holds(self, rows: list[dict]) -> bool:
        """Whether the last of some rows, as many as it takes, have passed the value.

        Raises:
          ValueError: the rows have no such tag.
        """
        if rows and self.tag not in rows[-1]:
            known = ", ".join(key for key in rows[-1] if key not in ("step", "split", "time"))
            raise TermwiseError(
                f"A phase is to end by {self.tag!r}, which is not in the rows. They have: {known}."
            )
        last = rows[-self.rows :]
        return len(last) == self.rows and all(self._passed(row.get(self.tag)) for row in last)

    def _passed(self, value) -> bool:
        if value is None:
            return False
        return value < self.below if self.below is not None else value > self.above

    def __str__(self) -> str:
        passed = f"below {self.below:g}" if self.below is not None else f"above {self.above:g}"
        rows = f" for {self.rows} rows" if self.rows > 1 else ""
        return f"{self.tag} is {passed}{rows}"


@dataclass(frozen=True)
class Phase:
    """A named span of a training.

    What a phase does not set is as the Trainer was made, but for the learning rate, which stays as
    it was last set.

    Args:
      name: str; it stands in the rows and on the console.
      until: the global step at which it ends, or a `Reached`; None, of the last phase alone: it
        goes on to the end.
      weights: term name or pattern -> weight; 0 leaves the term out: absent, and not computed.
      trains: the groups of `Trainer(groups=)` that train, a name or a list; None: all.
      learning_rate: set when the phase begins: a number, or a dict by group.
      optimizer: `trainer.BFGS()`, `LBFGS()` or `GaussNewton()`: each step of the phase is one
        iteration of it over all data; None: the Trainer's optimizer.
    Raises:
      ValueError, TypeError: something that cannot be one.

    Example:
      >>> Phase("warmup", until=100, weights={"kl": 0.0}, learning_rate=1e-4).name
      'warmup'
    """

    name: str
    until: int | Reached | None = None
    weights: Mapping[str, Any] = field(default_factory=dict)
    trains: str | Iterable[str] | None = None
    learning_rate: float | Mapping[str, float] | None = None
    optimizer: SecondOrder | None = None

    def __post_init__(self):
        checked_name(self.name, "A phase's name")
        until = self.until
        if until is not None and not isinstance(until, Reached) and not is_whole(until):
            raise TermwiseTypeError(
                f"Phase {self.name!r}: until={until!r}. Give a step, a trainer.Reached, or None."
            )
        trains = (self.trains,) if isinstance(self.trains, str) else self.trains
        object.__setattr__(self, "trains", None if trains is None else tuple(trains))
        checked_method(self)
        rates = self.learning_rate
        for rate in rates.values() if isinstance(rates, Mapping) else [rates]:
            if rate is not None and not isinstance(rate, (int, float)):
                raise TermwiseTypeError(
                    f"Phase {self.name!r}: learning_rate={rate!r}. Give a number; for a schedule, "
                    "give it to the optimizer."
                )

    @property
    def of_step(self) -> PhaseOfStep:
        """What it changes of a step."""
        trains: Any = self.trains
        return PhaseOfStep(self.name, self.weights, trains, self.optimizer)

    def __str__(self) -> str:
        parts = [f"weights {', '.join(f'{n} {w}' for n, w in self.weights.items())}"]
        parts = parts if self.weights else []
        if self.trains is not None:
            parts.append(f"trains {', '.join(self.trains)}")
        if self.learning_rate is not None:
            parts.append(f"learning rate {self.learning_rate}")
        if self.optimizer is not None:
            parts.append(f"{self.optimizer} over all data")
        if self.until is not None:
            parts.append(f"until {'step ' if is_whole(self.until) else ''}{self.until}")
        return ", ".join(parts) or "as the Trainer was made"


def check_phases(phases) -> tuple[Phase, ...]:
    """The phases of a fit.

    Raises:
      TypeError: no list of `Phase`.
      ValueError: two of one name; one in the middle without an end; ends that do not rise.
    """
    phases = () if phases is None else phases
    if isinstance(phases, (Phase, str)) or not isinstance(phases, Iterable):
        raise TermwiseTypeError(f"phases={phases!r}: give a list of trainer.Phase.")
    listed, end = tuple(phases), 0
    for place, phase in enumerate(listed):
        if not isinstance(phase, Phase):
            raise TermwiseTypeError(f"phases= holds {phase!r}: give a list of trainer.Phase.")
        if phase.name in [other.name for other in listed[:place]]:
            raise TermwiseError(f"Two phases are called {phase.name!r}. Give each its own name.")
        if phase.until is None and place < len(listed) - 1:
            raise TermwiseError(
                f"Phase {phase.name!r} has no end, and others follow it. Give it until=."
            )
        if isinstance(phase.until, int):
            if phase.until <= end:
                raise TermwiseError(
                    f"Phase {phase.name!r} ends at step {phase.until}, which is no later than the "
                    f"step {end} at which it begins at the earliest. Give a later until=."
                )
            end = phase.until
    return listed


def checked_method(phase: Phase) -> None:
    """Raises where the optimizer of a phase is no second-order method, or is given a rate."""
    method = phase.optimizer
    if method is not None and not isinstance(method, SecondOrder):
        raise TermwiseTypeError(
            f"Phase {phase.name!r}: optimizer={method!r}. Accepted: trainer.BFGS(), "
            "trainer.LBFGS(), trainer.GaussNewton(), each over all data. A Keras optimizer is that "
            "of the Trainer, whose rate a phase sets by learning_rate=."
        )
    if method is not None and phase.learning_rate is not None:
        raise TermwiseError(
            f"Phase {phase.name!r} has learning_rate={phase.learning_rate} and "
            f"optimizer={type(method).__name__}(), which finds its own step. Give one of them."
        )


def phases_of_step(
    phases: tuple[Phase, ...], weights: Mapping
) -> tuple[PhaseOfStep, tuple[PhaseOfStep, ...]]:
    """What phases change of the steps of a fit.

    Args:
      weights: name -> weight, of terms whose weight was set by hand.
    Returns:
      the `PhaseOfStep` of the first one; those of all that are of second order.
    """
    first = phases[0].of_step if phases else NO_PHASE
    later = [phase.of_step.beside(weights) for phase in phases if phase.optimizer is not None]
    return first.beside(weights), tuple(later)


class Course:
    """Where a fit stands in its phases.

    Args:
      phases: of `check_phases`.
      name: the phase that the run is in, or "" where none was begun.
      began: the step at which it began.
    Raises:
      ValueError: a run that stands in a phase which is not among them.
    """

    def __init__(self, phases: tuple[Phase, ...], name: str = "", began: int = 0):
        self.phases = phases
        names = [phase.name for phase in phases]
        if phases and name and name not in names:
            raise TermwiseError(
                f"This run stands in the phase {name!r}, which is not among phases= "
                f"({', '.join(map(repr, names))}). Give the phases that it began with."
            )
        self.begun = bool(name)
        self.stand_in(name, began)

    @classmethod
    def of(cls, phases: tuple[Phase, ...], host) -> Course:
        """Where a run stands; other phases than those of a fit that has ended begin anew.

        Args:
          host: the `HostState` of the run.
        """
        others = host.ended and host.phase not in [phase.name for phase in phases]
        return cls(phases) if others else cls(phases, host.phase, host.phase_began)

    def stand_in(self, name: str, began: int) -> None:
        """Goes to a phase that began at a step; the first where it has no name."""
        names = [phase.name for phase in self.phases]
        self._place, self.began = names.index(name) if name in names else 0, began

    @property
    def now(self) -> Phase | None:
        """The present phase; None where there are none."""
        return self.phases[self._place] if self.phases else None

    @property
    def of_step(self) -> PhaseOfStep:
        """What the present phase changes of the step."""
        return NO_PHASE if self.now is None else self.now.of_step

    @property
    def more(self) -> dict[str, str]:
        """What the rows have of it."""
        return {} if self.now is None else {"phase": self.now.name}

    @property
    def by_rows(self) -> bool:
        """Whether the present phase ends by what is logged."""
        return self.now is not None and isinstance(self.now.until, Reached)

    def next_stop(self, step: int) -> int:
        """The step at which the present phase ends, or a large number."""
        until = None if self.now is None else self.now.until
        return until if isinstance(until, int) and until > step else 2**62

    def over(self, step: int, history: History) -> bool:
        """Whether the present phase ends at a step.

        Args:
          history: complete up to the step.
        """
        if self.now is None or self._place + 1 == len(self.phases):
            return False
        until = self.now.until
        if not isinstance(until, Reached):
            return until is not None and step >= until
        rows = [row for row in history.rows if row["split"] == until.split]
        return until.holds([row for row in rows if row["step"] > self.began])

    def advance(self, step: int) -> None:
        """Goes to the next phase, which begins at a step."""
        self._place, self.began = self._place + 1, step

    def never_ended(self) -> str | None:
        """A sentence where the fit is over, but not a phase that was to end by rows; or None."""
        left = [phase.name for phase in self.phases[self._place + 1 :]]
        if self.now is None or not left or not self.by_rows:
            return None
        return (
            f"Phase {self.now.name!r} has not ended: it goes on until {self.now.until}, and "
            f"{', '.join(map(repr, left))} never began. Give fit() more steps=, or another until=."
        )

    def noted(self, host):
        """The `HostState` of the run with this place."""
        if self.now is None:
            return host
        return replace(host, phase=self.now.name, phase_began=self.began)


def set_learning_rate(phase: Phase, optimizers: Mapping[str, Any]) -> None:
    """Sets the learning rate that a phase begins with.

    Args:
      optimizers: by group.
    Raises:
      ValueError: a group that there is not; an optimizer whose rate is a schedule.
    """
    rates = phase.learning_rate
    if rates is None:
        return
    by_group = rates if isinstance(rates, Mapping) else dict.fromkeys(optimizers, rates)
    for group, rate in by_group.items():
        if group not in optimizers:
            raise TermwiseError(
                f"Phase {phase.name!r} sets the learning rate of {group!r}; the groups are "
                f"{', '.join(map(repr, optimizers))}."
            )
        try:
            optimizers[group].learning_rate = rate
        except (TypeError, ValueError, AttributeError) as error:
            raise TermwiseError(
                f"Phase {phase.name!r} cannot set learning_rate={rate}: the optimizer's is a "
                "schedule. Give the optimizer a number, or the phase no rate."
            ) from error
