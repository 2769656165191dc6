"""A training step as it was traced, and the steps that leave something out of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import tensorflow as tf

from losses.errors import TermwiseError
from losses.objective.weights import Pauses
from losses.terms.hardest import Hardest
from trainer.balancing.diagnostics import Diagnostics
from trainer.balancing.helps import Helps, Measured
from trainer.loop.row_values import row_values
from trainer.loop.train_step import TrainPasses
from trainer.second_order.memory import Memory
from trainer.step.program import NO_PHASE, PhaseOfStep, StepProgram


@dataclass(frozen=True)
class Asked:
    """What a fit asks of its step.

    Attributes:
      class_weight: class id -> weight.
      until: the step to which it trains, on the way to which terms pause; None: none does.
      phase: of the training.
      hardest: which terms learn from the hardest examples alone.
      second_order: the phases on the way that have a second-order method.
    """

    class_weight: Mapping[int, float] = field(default_factory=dict)
    until: int | None = None
    phase: PhaseOfStep = NO_PHASE
    hardest: Hardest = field(default_factory=Hardest)
    second_order: tuple[PhaseOfStep, ...] = ()

    def of_source(self, source):
        """The data of a step: in a second-order phase all at once."""
        return source if self.phase.optimizer is None else source.whole()

    @property
    def key(self) -> tuple:
        """What two steps that are alike have in common, but for what pauses."""
        return tuple(sorted(self.class_weight.items())), self.phase.key, self.hardest

    def weighed(self, program: StepProgram) -> StepProgram:
        """The program of a step with its class weights and hardest examples."""
        return replace(program, class_weight=self.class_weight, hardest=self.hardest)


class Omission(NamedTuple):
    """What a step leaves out: sources of which it has no batch, and terms that pause."""

    undrawn: frozenset[str] = frozenset()
    idle: frozenset[str] = frozenset()


@dataclass(frozen=True)
class TracedStep:
    """A training step as it was traced.

    Attributes:
      function: the concrete function, or Python's: the tensors of a batch; with accumulation also
        float32 [T], the mean denominators -> StepRecord.
      passes: what the step is made of.
      diagnostics: of the terms' gradients, or None.
      key: what it was traced for.
      in_place: (batch, *further tensors) -> StepRecord, traced where it is called.
      variants: the steps that leave something out, of which `which` chooses one; empty: none does.
      which: (position of the data, int64 []) -> int32 [], the variant.
      helps: what the terms do for validation, or None.
      memory: of the second-order method that the step is an iteration of; None: it is of none.
    """

    function: Any
    passes: TrainPasses
    diagnostics: Diagnostics | None
    key: tuple
    in_place: Any = None
    variants: tuple[Variant, ...] = ()
    which: Any = None
    helps: Helps | None = None
    memory: Memory | None = None

    def begin(self) -> None:
        """Before the steps of a call of the loop; in a graph."""
        if self.memory is not None:
            self.memory.renew()

    def of_source(self, source):
        """The data that the step draws from: all at once where it is of second order."""
        return source if self.memory is None else source.whole()

    @property
    def row_values(self) -> dict[str, Any]:
        """tag -> [], what stands in a row beside the terms."""
        return row_values(self.program, None if self.memory is None else self.memory.told)

    @property
    def measured(self) -> Measured:
        """What rows tell beside the terms."""
        return Measured(self.diagnostics, self.helps)

    @property
    def program(self) -> StepProgram:
        return self.passes.program


@dataclass(frozen=True)
class Variant:
    """A step that leaves something out.

    Attributes:
      step: as it was traced.
      part: (batch of all sources) -> what the step is given of it.
    """

    step: TracedStep
    part: Callable

    def take(self, batch, arguments):
        """The StepRecord of a batch of all sources."""
        batch = self.part(batch)
        if self.step.program.placement.replicas > 1:
            # a function that holds collectives cannot be called in a branch
            return self.step.in_place(batch, *arguments)
        return self.step.function(*tf.nest.flatten(batch, expand_composites=True), *arguments)


def with_variants(step: TracedStep, source, pauses: Pauses, traced: Callable) -> TracedStep:
    """A step with those that leave out what some steps do not draw, or what pauses.

    Args:
      step: which leaves out nothing.
      source: its data.
      pauses: the terms that pause.
      traced: (Omission) -> TracedStep.
    Raises:
      ValueError: sources with rates, and accumulated steps.
    """
    if len(source.subsets) > 1 and step.program.optimizers.accumulation > 1:
        raise TermwiseError(
            "Sources that some steps do not draw (every(), sampled()) cannot be counted over "
            "accumulated steps. Draw all at every step, or accumulate none."
        )
    left_out = [Omission(u, idle) for u in source.subsets for idle in pauses.sets]
    if len(left_out) == 1:
        return step
    parts = [functools.partial(source.without, each.undrawn) for each in left_out]
    variants = tuple(map(Variant, map(traced, left_out), parts))

    def which(position):
        return source.which(position) * len(pauses.sets) + pauses.which(step.program.step)

    return replace(step, variants=variants, which=which, key=(*step.key, source.key))
