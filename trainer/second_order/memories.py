"""The memories of all second-order phases of a run."""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf

from trainer.second_order.checks import RunFacts, check_phase
from trainer.second_order.memory import Memory
from trainer.second_order.vector import Vector
from trainer.step.program import PhaseOfStep, StepProgram


class Memories:
    """What the second-order phases of a run remember, by the name of the phase."""

    def __init__(self) -> None:
        self._by_phase: dict[str, Memory] = {}

    def of(self, program: StepProgram) -> Memory:
        """The memory of the phase that a program is of."""
        return self._by_phase[program.phase]

    def prepare(self, phases: Iterable[PhaseOfStep], program: StepProgram, facts: RunFacts) -> None:
        """Makes the memories of phases, before the first of their steps is traced.

        Args:
          phases: of second order.
          program: of the first trace.
          facts: of the run.
        Raises:
          ValueError: something of the run does not go with such a phase.
        """
        for phase in phases:
            of_phase = phase.of(program)
            check_phase(phase, of_phase, facts)
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
