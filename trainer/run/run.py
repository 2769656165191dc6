"""The parts of a run, made once by the Trainer; what the host's side of training works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from trainer.distributed.hosts import Hosts
from trainer.loop.eval_loop import EvalLoops
from trainer.loop.jit_choice import JitChoice, decide
from trainer.loop.programs import Programs
from trainer.loop.traced_step import Asked, TracedStep
from trainer.loop.train_loop import OpenLoop, TrainLoops
from trainer.persistence.workdir import Workdir
from trainer.run.state import RunState
from trainer.step.program import StepProgram

NOTHING = Asked()


@dataclass(frozen=True)
class Run:
    """The parts of a run.

    Attributes:
      name: of the run.
      config: plain values for config.json, or None.
      seed: of the shuffling of arrays.
      strategy, hosts, workdir: where it runs, and writes.
      programs: its traced steps.
      loops: its traced loops.
      evaluation: its traced evaluations.
      jit: whether XLA compiles the step.
      state: where it stands.
      on_nonfinite: "raise", "skip" or "restore".
      open_data: (data, batch_size) -> the source of data to be read once.
      init_from, init_loss_parameters: what a new run starts with.
      own_forward: whether a subclass overrides `forward`.
    """

    name: str
    config: dict | None
    seed: int
    strategy: tf.distribute.Strategy
    hosts: Hosts
    workdir: Workdir | None
    programs: Programs
    loops: TrainLoops
    evaluation: EvalLoops
    jit: JitChoice
    state: RunState
    on_nonfinite: str
    open_data: Callable
    init_from: str | Path | None = None
    init_loss_parameters: bool = True
    own_forward: bool = False

    @property
    def program(self) -> StepProgram:
        return self.programs.program

    @property
    def skips(self) -> bool:
        """Whether steps that are not finite are left out."""
        return self.program.skips

    def traced(self, source, asked: Asked = NOTHING) -> TracedStep:
        """The traced step for a source, as a fit asks for it."""
        return self.programs.step(source, self.jit.xla, asked)

    def decide_jit(self, source, asked: Asked = NOTHING) -> None:
        """Settles `jit_compile="auto"` where it is pending; not for steps that run in Python."""
        if self.programs.eager:
            return

        def traced(xla: bool) -> TracedStep:
            return self.programs.step(source, xla, asked)

        def noted():
            workdir = self.workdir
            return self.hosts.broadcast_json(
                None if workdir is None else workdir.noted("jit_compile")
            )

        decide(self.jit, source, self.loops, traced, noted, self.state.step)

    def open(self, step: TracedStep, source, data_start: int, single: bool = False) -> OpenLoop:
        """The loop over a source, at the present step of a run whose data began at `data_start`.

        Args:
          single: whether most log windows are one step long.
        """
        now, state, source = self.state.step, self.state, step.of_source(source)
        source.keep_shuffling(state.host.shuffling)
        left = state.data.opened(step, source, now - data_start)
        if left:
            return self.loops.continued(left, step, source, single)
        return self.loops.open(step, source, now - data_start, now, single)

    def continued(self, loop: OpenLoop, step: TracedStep, source, single: bool = False) -> OpenLoop:
        """The loop of a step that was traced anew, over data that stays open; see `open`."""
        return self.loops.continued(loop, step, step.of_source(source), single)

    def restore(self) -> None:
        """Restores the workdir's newest checkpoint, to be looked at; a fit restores it anew."""
        if self.state.restored:
            return  # and may have gone on
        checkpoints = self.state.open_checkpoints(self.programs, None, writes=False)
        if checkpoints is not None:
            self.state.restore_newest(self.programs, checkpoints)
