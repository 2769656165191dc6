"""Phases of a training: named spans that set weights, what trains, and the learning rate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from losses.errors import TermwiseError, TermwiseTypeError
from losses.naming import checked_name
from trainer.data.batch import is_whole
from trainer.data.named.rates import checked_rates
from trainer.data.source import Source
from trainer.optimizers.arguments import keras_optimizer
from trainer.second_order import BFGS, LBFGS, GaussNewton, SecondOrder
from trainer.step.program import NO_PHASE, PhaseOfStep, StepProgram

METHODS = {"bfgs": BFGS, "lbfgs": LBFGS, "gauss_newton": GaussNewton}
GIVE = (
    'Give a Keras optimizer or its name, a dict of these by group, or "bfgs", "lbfgs", '
    '"gauss_newton": trainer.BFGS(), LBFGS(), GaussNewton(), each over all data.'
)


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
      rates: source -> every how many steps it is drawn from the phase's first on, the probability
        with which, or 0: never; its terms are then absent. The others are drawn as `Sources` says.
      optimizer: a Keras optimizer, or a dict by group, which begins anew with the phase; groups
        that are not named keep the Trainer's. Or `trainer.BFGS()`, `LBFGS()`, `GaussNewton()`
        ("bfgs", "lbfgs", "gauss_newton"): each step of the phase is one iteration of it over all
        data. None: the Trainer's.
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
    rates: Mapping[str, float] = field(default_factory=dict)
    optimizer: Any = None

    def __post_init__(self):
        checked_name(self.name, "A phase's name")
        until = self.until
        if until is not None and not isinstance(until, Reached) and not is_whole(until):
            raise TermwiseTypeError(
                f"Phase {self.name!r}: until={until!r}. Give a step, a trainer.Reached, or None."
            )
        trains = (self.trains,) if isinstance(self.trains, str) else self.trains
        object.__setattr__(self, "trains", None if trains is None else tuple(trains))
        if not isinstance(self.rates, Mapping):
            raise TermwiseTypeError(
                f"Phase {self.name!r}: rates={self.rates!r}. Give a dict by source, such as "
                "{'boundary': 10}."
            )
        checked_rates(self.rates)
        object.__setattr__(self, "optimizer", _named(self.optimizer))
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
        second_order = isinstance(self.optimizer, SecondOrder)
        own = (self.optimizer, None) if second_order else (None, self.optimizer)
        return PhaseOfStep(self.name, self.weights, trains, *own)

    def __str__(self) -> str:
        parts = [f"weights {', '.join(f'{n} {w}' for n, w in self.weights.items())}"]
        parts = parts if self.weights else []
        if self.trains is not None:
            parts.append(f"trains {', '.join(self.trains)}")
        if self.learning_rate is not None:
            parts.append(f"learning rate {self.learning_rate}")
        for source, rate in checked_rates(self.rates).items():
            parts.append(f"{source} {rate}")
        if isinstance(self.optimizer, SecondOrder):
            parts.append(f"{self.optimizer} over all data")
        elif self.optimizer is not None:
            parts.append(f"optimizer {_name_of(self.optimizer)}")
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


def check_takeable(phases: tuple[Phase, ...], program: StepProgram, source: Source) -> None:
    """Raises ValueError where a run cannot be trained in a phase, however late it begins.

    Args:
      program: of the run's first trace.
      source: the data.
    """
    for phase in phases:
        phase.of_step.of(program)
        rated = source.rerated(phase.rates, 0)
        if phase.of_step.optimizer is not None:
            rated.whole()  # ValueError: not all data can be had at once
        if any(rated.subsets) and program.optimizers.accumulation > 1:
            raise TermwiseError(
                f"Phase {phase.name!r} sets rates=, and sources that some steps do not draw cannot "
                "be counted over accumulated steps. Draw all at every step, or accumulate none."
            )
        for optimizer, _ in _rates_of(phase, program.optimizers.of_group):
            _set(phase, optimizer, float(keras.ops.convert_to_numpy(optimizer.learning_rate)))


def first_phase(phases: tuple[Phase, ...]) -> PhaseOfStep:
    """What the first phase changes of a step."""
    return phases[0].of_step if phases else NO_PHASE


def checked_method(phase: Phase) -> None:
    """Raises where the optimizer of a phase is none, or is given a rate beside it."""
    given = phase.optimizer
    if given is None:
        return
    if isinstance(given, type):
        raise TermwiseTypeError(
            f"Phase {phase.name!r}: optimizer={given.__name__} is a class. {GIVE}"
        )
    each = list(given.values()) if isinstance(given, Mapping) else [given]
    if not isinstance(given, SecondOrder):
        for optimizer in each:
            if not isinstance(optimizer, (str, keras.optimizers.Optimizer)):
                raise TermwiseTypeError(f"Phase {phase.name!r}: optimizer={optimizer!r}. {GIVE}")
            keras_optimizer(optimizer)  # ValueError, TypeError: Keras has none of that name
    if phase.learning_rate is not None:
        raise TermwiseError(
            f"Phase {phase.name!r} has learning_rate={phase.learning_rate} and an optimizer of its "
            "own, which has its own rate. Give one of them."
        )


def _named(optimizer):
    """The second-order method of a name; anything else as it is."""
    return (
        METHODS[optimizer]() if isinstance(optimizer, str) and optimizer in METHODS else optimizer
    )


def _name_of(optimizer) -> str:
    """SGD, or body SGD, head Adam."""
    if isinstance(optimizer, Mapping):
        return ", ".join(f"{group} {_name_of(each)}" for group, each in optimizer.items())
    return optimizer if isinstance(optimizer, str) else type(optimizer).__name__


def phases_of_step(
    phases: tuple[Phase, ...], weights: Mapping
) -> tuple[PhaseOfStep, tuple[PhaseOfStep, ...]]:
    """What phases change of the steps of a fit.

    Args:
      weights: name -> weight, of terms whose weight was set by hand.
    Returns:
      the `PhaseOfStep` of the first one; those of all that have an optimizer.
    """
    first = phases[0].of_step if phases else NO_PHASE
    later = [phase.of_step.beside(weights) for phase in phases if phase.optimizer is not None]
    return first.beside(weights), tuple(later)


def set_learning_rate(phase: Phase, optimizers: Mapping[str, Any]) -> None:
    """Sets the learning rate that a phase begins with.

    Args:
      optimizers: by group.
    Raises:
      ValueError: a group that there is not; an optimizer whose rate is a schedule.
    """
    for optimizer, rate in _rates_of(phase, optimizers):
        _set(phase, optimizer, rate)


def _rates_of(phase: Phase, optimizers: Mapping[str, Any]) -> Iterator[tuple[Any, float]]:
    """The optimizers whose learning rate a phase sets, with the rate."""
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
        yield optimizers[group], rate


def _set(phase: Phase, optimizer, rate: float) -> None:
    try:
        optimizer.learning_rate = rate
    except (TypeError, ValueError, AttributeError) as error:
        raise TermwiseError(
            f"Phase {phase.name!r} cannot set learning_rate={phase.learning_rate}: the optimizer's "
            "is a schedule. Give the optimizer a number, or the phase no rate."
        ) from error
