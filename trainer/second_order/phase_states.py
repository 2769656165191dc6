"""What phases have of their own in a run: optimizers, and the memories of second-order methods."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from losses.errors import TermwiseError
from trainer.optimizers.phase_optimizers import PhaseOptimizers
from trainer.second_order.checks import RunFacts, check_phase
from trainer.second_order.memory import Memory
from trainer.second_order.vector import Vector
from trainer.step.program import PhaseOfStep, StepProgram


class PhaseStates:
    """What phases of a run have of their own, by the name of the phase."""

    def __init__(self) -> None:
        self._by_phase: dict[str, Memory] = {}
        self._optimizers: dict[str, PhaseOptimizers] = {}

    def of(self, program: StepProgram) -> Memory:
        """The memory of the phase that a program is of."""
        return self._by_phase[program.phase]

    def identity(self, phase: PhaseOfStep) -> int | None:
        """What tells the optimizers of a phase from others that it had; None where it has none."""
        own = None if phase.optimizers is None else self._optimizers[phase.name]
        return None if own is None else id(own.all)

    def given(self, phase: PhaseOfStep, program: StepProgram) -> StepProgram:
        """The program of a step in a phase, with the optimizers that the phase has."""
        if phase.optimizers is None or phase.name not in self._optimizers:
            return program
        return replace(program, optimizers=self._optimizers[phase.name].all)

    def prepare(self, phases: Iterable[PhaseOfStep], program: StepProgram, facts: RunFacts) -> None:
        """Makes what phases have of their own, before the first of their steps is traced.

        Args:
          phases: which have an optimizer.
          program: of the first trace.
          facts: of the run.
        Raises:
          ValueError: something of the run does not go with such a phase.
        """
        for phase in phases:
            if phase.optimizers is not None:
                if facts.helps:
                    raise TermwiseError(
                        f"helps_every= measures by the Trainer's optimizers, and phase "
                        f"{phase.name!r} has its own. Drop one of them."
                    )
                self._prepare_optimizers(phase, program)
                continue
            of_phase = phase.of(program)
            check_phase(phase, of_phase, facts)
            memory = self._by_phase.get(phase.name)
            wanted = Vector.of(of_phase)
            same = memory is not None and memory.method == phase.optimizer
            if not (same and _alike(memory.vector, wanted)):  # type: ignore[union-attr]
                self._by_phase[phase.name] = Memory(phase.optimizer, of_phase)

    def _prepare_optimizers(self, phase: PhaseOfStep, program: StepProgram) -> None:
        base, trainables = program.optimizers, program.trainables
        known = self._optimizers.get(phase.name)
        if known is None or not known.are(phase.optimizers):
            known = PhaseOptimizers(phase.optimizers, base, phase.name)
            self._optimizers[phase.name] = known
        known.build(base, trainables.owners, trainables.variables, trainables.parameters)

    def forget(self, phase: str) -> None:
        """A phase begins: its method knows nothing yet."""
        for states in (self._by_phase, self._optimizers):
            if phase in states:
                states[phase].forget()

    @property
    def optimizers(self) -> dict[str, Any]:
        """ "phase/group" -> the Keras optimizers that phases have of their own."""
        return {
            f"{phase}/{group}": optimizer
            for phase, state in self._optimizers.items()
            for group, optimizer in state.own.items()
        }

    @property
    def variables(self) -> dict[str, Any]:
        """name -> variable: what a checkpoint holds."""
        return {
            f"{phase}/{name}": variable
            for states in (self._by_phase, self._optimizers)
            for phase, state in states.items()
            for name, variable in state.variables.items()
        }

    @property
    def known(self) -> list:
        """All their variables."""
        more = [v for memory in self._by_phase.values() for v in memory.known]
        return [*self.variables.values(), *more]


def _alike(a: Vector, b: Vector) -> bool:
    return [*map(id, a.variables.values())] == [*map(id, b.variables.values())]
