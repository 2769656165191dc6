"""Where a fit stands in its phases, and when the next one begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from losses.errors import TermwiseError
from trainer.fitting.phases import Phase, Reached, first_phase
from trainer.ledger.history import History
from trainer.step.program import NO_PHASE, PhaseOfStep


def phase_at(phases: tuple[Phase, ...], host, number: int) -> PhaseOfStep:
    """What the phase that a restored run stands in changes of a step that is looked at.

    Args:
      phases: of the Trainer.
      host: the `HostState` of the run.
      number: the step.
    Raises:
      ValueError: the phase is not among them, or ends before the step.
    """
    if not host.phase:
        return first_phase(phases)
    course = Course(phases, host.phase, host.phase_began)
    if course.now is None:
        raise TermwiseError(
            f"The newest checkpoint stands in the phase {host.phase!r}. Give Trainer(phases=) "
            "those of the run."
        )
    until = course.now.until
    if isinstance(until, int) and until < number:
        raise TermwiseError(
            f"Step {number} lies behind the phase {host.phase!r} of the newest checkpoint, which "
            f"ends at step {until}. Give a step up to that."
        )
    if course.now.optimizer is not None:
        raise TermwiseError(
            f"Step {number} is of the phase {host.phase!r}, which has an optimizer of its own. A "
            "replay is of a step of the Trainer's optimizers."
        )
    return course.of_step


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
    def rates(self) -> Mapping[str, float]:
        """The rates at which the present phase draws sources."""
        return {} if self.now is None else self.now.rates

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

    def advance(self, step: int, history: History) -> None:
        """Goes to the next phase, which begins at a step, and on where that is over as well."""
        while self.over(step, history):
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
