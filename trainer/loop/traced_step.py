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
from trainer.balancing.multipliers import check_moved
from trainer.loop.eager import PythonStep
from trainer.loop.graph import written_variables
from trainer.loop.row_values import row_values
from trainer.loop.specs import means_spec
from trainer.loop.train_step import StepContext, TrainPasses, step_context
from trainer.loop.window import StepLine
from trainer.model.teachers import check_teachers_moved
from trainer.second_order.memory import Memory
from trainer.second_order.step import second_order_step
from trainer.step.outputs import StepRecord
from trainer.step.program import NO_PHASE, PhaseOfStep, StepProgram


@dataclass(frozen=True)
class Asked:
    """What a fit asks of its step.

    Attributes:
      class_weight: class id -> weight.
      until: the step to which it trains, on the way to which terms pause; None: none does.
      phase: of the training.
      with_optimizer: the phases on the way that have an optimizer of their own.
      hardest: which terms learn from the hardest examples alone.
    """

    class_weight: Mapping[int, float] = field(default_factory=dict)
    until: int | None = None
    phase: PhaseOfStep = NO_PHASE
    with_optimizer: tuple[PhaseOfStep, ...] = ()
    hardest: Hardest = field(default_factory=Hardest)

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
        float32 [T], the mean denominators -> StepLine.
      passes: what the step is made of.
      diagnostics: of the terms' gradients, or None.
      key: what it was traced for.
      in_place: (batch, *further tensors) -> StepLine, traced where it is called.
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
class StepParts:
    """What a step is traced of.

    Attributes:
      train_step: batch -> StepRecord; the Trainer's.
      passes: of the program.
      diagnostics, helps: of the terms, or None.
      memory: of the second-order method that takes the place of `train_step`, or None.
    """

    train_step: Callable
    passes: TrainPasses
    diagnostics: Diagnostics | None
    helps: Helps | None
    memory: Memory | None

    def function(self, passes: TrainPasses) -> Callable:
        """(batch, float32 [T] mean denominators or None) -> StepLine."""
        program = passes.program

        def train_step(batch, accumulation=None):
            record = self._record(passes, batch, accumulation)
            return StepLine.of(record, program.skips, program.means_by_examples)

        return train_step

    def _record(self, passes: TrainPasses, batch, accumulation) -> StepRecord:
        if self.memory is not None:
            return second_order_step(passes.program, self.memory, batch)
        with step_context(StepContext(passes, self.diagnostics, accumulation)):
            return self.train_step(batch)


def trace_step(parts: StepParts, key: tuple, spec) -> TracedStep:
    """A step as it is traced, or as it runs in Python.

    Args:
      key: what it is traced for.
      spec: of a batch.
    """
    passes = parts.passes
    program = passes.program
    train_step, in_place = parts.function(passes), parts.function(passes.in_place())
    rest = parts.diagnostics, key, in_place, (), None, parts.helps, parts.memory
    check_copies(program)
    if program.placement.eager:
        return TracedStep(PythonStep(train_step, spec), passes, *rest)
    specs = [spec]
    if program.optimizers.accumulation > 1:
        specs.append(means_spec(program))
    compiled = program.placement.xla and not program.placement.precomputes_sums
    # as in Keras, users' code is traced as it stands: no AutoGraph
    function = tf.function(train_step, jit_compile=compiled or None, autograph=False)
    traced = function.get_concrete_function(*specs)
    written = functools.partial(written_variables, traced)
    check_moved(program, written)
    check_teachers_moved(program.objective.terms, program.placement.strategy, written)
    return TracedStep(traced, passes, *rest)


def check_copies(program: StepProgram) -> None:
    """ValueError: XLA on several replicas, and loss parameters made outside their strategy."""
    copies = program.optimizers.mirrored_copies
    if copies and program.placement.precomputes_sums:
        raise TermwiseError(
            f"Loss parameters {', '.join(map(repr, copies))} were made "
            "outside the strategy's scope, and what XLA compiles for several replicas "
            "cannot read them. Make them in build_terms(), or pass jit_compile=False."
        )


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
        """The StepLine of a batch of all sources."""
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
    if any(source.subsets) and step.program.optimizers.accumulation > 1:
        raise TermwiseError(
            "Sources that some steps do not draw (every(), sampled()) cannot be counted over "
            "accumulated steps. Draw all at every step, or accumulate none."
        )
    left_out = [Omission(u, idle) for u in source.subsets for idle in pauses.sets]
    if left_out == [Omission()]:
        return step
    parts = [functools.partial(source.without, each.undrawn) for each in left_out]
    variants = tuple(map(Variant, map(traced, left_out), parts))

    def which(position):
        return source.which(position) * len(pauses.sets) + pauses.which(step.program.step)

    return replace(step, variants=variants, which=which, key=(*step.key, source.key))
