"""The memories of all second-order phases of a run, and what such a phase refuses."""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf

from losses.errors import TermwiseError
from losses.terms.constraint import constraints_of
from trainer.second_order.memory import Memory
from trainer.second_order.objective import has_squares
from trainer.second_order.vector import Vector
from trainer.step.program import PhaseOfStep, StepProgram


class Memories:
    """What the second-order phases of a run remember, by the name of the phase."""

    def __init__(self) -> None:
        self._by_phase: dict[str, Memory] = {}

    def of(self, program: StepProgram) -> Memory:
        """The memory of the phase that a program is of."""
        return self._by_phase[program.phase]

    def prepare(
        self, phases: Iterable[PhaseOfStep], program: StepProgram, refused: Iterable = ()
    ) -> None:
        """Makes the memories of phases, before the first of their steps is traced.

        Args:
          phases: of second order.
          program: of the first trace.
          refused: (what, what to do) -> pairs of what a run has that goes with no such phase.
        Raises:
          ValueError: something of the run does not go with such a phase.
        """
        for phase in phases:
            of_phase = phase.of(program)
            check_phase(phase, of_phase, refused)
            memory = self._by_phase.get(phase.name)
            wanted = Vector.of(of_phase)
            same = memory is not None and memory.method == phase.optimizer
            if not (same and _alike(memory.vector, wanted)):  # type: ignore[union-attr]
                self._by_phase[phase.name] = Memory(phase.optimizer, of_phase)

    def forget(self, phase: str) -> None:
        """A phase begins: its method knows nothing yet."""
        if phase in self._by_phase:
            self._by_phase[phase].forget()

    @property
    def variables(self) -> dict[str, tf.Variable]:
        """name -> variable: what a checkpoint holds."""
        return {
            f"{phase}/{name}": variable
            for phase, memory in self._by_phase.items()
            for name, variable in memory.variables.items()
        }

    @property
    def known(self) -> list[tf.Variable]:
        """All their variables."""
        more = [v for memory in self._by_phase.values() for v in memory.known]
        return [*self.variables.values(), *more]


def _alike(a: Vector, b: Vector) -> bool:
    return [*map(id, a.variables.values())] == [*map(id, b.variables.values())]


def check_phase(phase: PhaseOfStep, program: StepProgram, refused: Iterable) -> None:
    """Raises ValueError where something of a run does not go with a second-order phase.

    Args:
      phase, program: of the phase.
      refused: as in `Memories.prepare`.
    """
    method = type(phase.optimizer).__name__
    whose = f"Phase {phase.name!r} has optimizer={method}(), a method over all data"
    for what, instead in [*refused, *_of_program(program), *_of_variables(program)]:
        raise TermwiseError(f"{whose}, which does not go with {what}. {instead}")
    if not phase.optimizer.needs_squares:
        return
    known = {term.name for term in program.objective.terms if has_squares(term)}
    for name in program.layout.names:
        if name not in program.idle and name.split("/")[0] not in known and name not in known:
            raise TermwiseError(
                f"{whose} that needs every term as a sum of squares; {name!r} is none that it "
                "knows. Write it as losses.Squares(function of the step, ...) or "
                "losses.PDEResidual, leave it out by Phase(weights=), or take trainer.BFGS()."
            )


def _of_program(program: StepProgram):
    """(what, what to do instead) of a program's parts that do not go with such a phase."""
    placement, optimizers = program.placement, program.optimizers
    if placement.replicas > 1:
        yield f"{placement.replicas} replicas", 'Train with strategy="one_device".'
    if optimizers.accumulation > 1:
        yield "accumulated gradients", "Drop gradient_accumulation_steps."
    if any(every > 1 for every in optimizers.every.values()):
        yield "update_every=", "Drop it: an iteration moves everything that trains."
    if optimizers.keeps_averages:
        yield "moving averages of the weights (use_ema)", "Drop use_ema."
    if optimizers.scaled:
        yield "a loss scale (float16)", "Train in float64 or float32."
    if constraints_of(program.objective.terms):
        yield "constraints, whose multipliers ascend", "Leave them to another Trainer."
    if program.shares:
        yield "hardest=, which chooses other examples in each step", "Drop it."
    if any(callable(getattr(term, "points", None)) for term in program.objective.terms):
        yield "points that are a function of the step", "Give PDEResidual an array of points."
    weights = program.objective.constant_weights(program.layout.names)
    for name, weight in weights.items():
        if weight is None:
            yield (
                f"the weight of {name!r}, which is no number",
                f"Give the phase one: Phase(weights={{{name!r}: 1.0}}).",
            )
        elif weight < 0:
            yield f"the weight {weight:g} of {name!r}", "Give one that is not negative."
    for line in program.objective.described or ():
        if line.trains:
            yield f"the term {line.name!r}, which trains a group alone", "Drop its trains=."


def _of_variables(program: StepProgram):
    """The same, of the variables that train."""
    for path, variable in Vector.of(program).variables.items():
        if variable.dtype not in ("float32", "float64", tf.float32, tf.float64):
            yield f"{path}, of {variable.dtype}", "Train in float64 or float32."
        if getattr(variable, "maximize", False):
            yield f"{path}, which ascends", "Freeze it in this phase, or drop maximize=True."
        if getattr(variable, "constraint", None) is not None:
            yield (
                f"the constraint of {path}",
                "Train a number without bounds, such as the logarithm of a positive one.",
            )
