"""The traced steps of a run: one for each structure of data, way of compiling and class weights."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import replace

import tensorflow as tf

from losses.balancing.balancer import Balancer
from losses.errors import TermwiseError
from losses.objective.weights import Pauses
from trainer.balancing.balanced_terms import BalancedTerms
from trainer.balancing.diagnostics import Diagnostics
from trainer.balancing.helps import Helps, helps_of
from trainer.balancing.multipliers import check_constraints, prepare_multipliers
from trainer.balancing.weightings import choose_weighting
from trainer.distributed.strategies import resolve_strategy
from trainer.loop.eager import parts_of
from trainer.loop.graph import used_variables, written_variables
from trainer.loop.specs import (
    local_spec,
    means_spec,
    of_any_size,
    specs_of_step,
    to_trace_with,
)
from trainer.loop.traced_step import (
    Asked,
    Omission,
    StepParts,
    TracedStep,
    check_copies,
    trace_step,
    with_variants,
)
from trainer.loop.train_step import TrainPasses, facts_of_terms
from trainer.model.variables import put_back
from trainer.second_order.checks import RunFacts
from trainer.second_order.phase_states import PhaseStates
from trainer.step.loss_parameters import find_unwatched
from trainer.step.program import Discovery, StepProgram


class Programs:
    """Traces training steps, each once.

    Args:
      base: the program without its placement, weighting and class weights.
      train_step: batch -> StepRecord; the Trainer's, which a subclass may override.
      balancer: of the terms, or None.
      diagnostics_every: steps between two measurements of the terms' gradients, or None.
      on_first_trace: called once, when the optimizers are built.
      owned_variables: () -> variables of terms, and of networks that a subclass keeps.
      helps: `helps_every` and `helps_for` of the Trainer.
    Attributes:
      balanced, diagnostics, helps: of the terms, after the first trace; None without.
      phase_states: what phases have of their own.
      written: the variables that the forward and backward pass writes, on any replica.
    """

    def __init__(
        self,
        base: StepProgram,
        train_step: Callable,
        balancer: Balancer | None = None,
        diagnostics_every: int | None = None,
        on_first_trace: Callable[[Programs], None] = lambda programs: None,
        owned_variables: Callable[[], list] = list,
        helps: tuple = (None, None),
    ):
        self._base, self._train_step = base, train_step
        self._balancer = balancer
        self._every, self._helps = diagnostics_every, helps
        self._on_first_trace = on_first_trace
        self._owned_variables = owned_variables
        self._steps: dict[tuple, TracedStep] = {}
        self._first: TrainPasses | None = None
        self._round = 0  # how often other variables began to train
        self._last: tuple | None = None  # arguments of the last call of `step`
        self._found_pauses: dict[tuple, Pauses] = {}
        self._asked = Asked()  # of the last call of `step`
        self.first_settings: tuple[bool, ...] = ()  # of the switches, before the first trace
        self.balanced: BalancedTerms | None = None
        self.diagnostics: Diagnostics | None = None
        self.helps: Helps | None = None
        self.written: list[tf.Variable] = []
        self.phase_states = PhaseStates()

    @property
    def program(self) -> StepProgram:
        """The program of the first trace; before it without a weighting."""
        return self._base if self._first is None else self._first.program

    @property
    def evaluated(self) -> StepProgram:
        """The program by which a run is evaluated: with the weights of its phase."""
        program, phase = self.program, self._asked.phase
        program = self.phase_states.given(phase, phase.of(program)) if self.prepared else program
        return replace(program, idle=frozenset())

    @property
    def shares(self) -> dict[str, float]:
        """term -> the share of a batch that it learns from, of the steps that are asked for now."""
        return self._asked.weighed(self.program).shares if self.prepared else {}

    @property
    def prepared(self) -> bool:
        """Whether the first trace has found the terms and the variables."""
        return self._first is not None

    @property
    def eager(self) -> bool:
        """Whether steps run in Python now."""
        return self._base.placement.placed(False, False).eager

    @property
    def traces(self) -> int:
        """How often a forward and backward pass was traced."""
        passes = {id(step.passes): step.passes for step in self._steps.values()}
        return sum(each.traces for each in passes.values())

    @property
    def steps(self) -> list[TracedStep]:
        return list(self._steps.values())

    @property
    def variables(self) -> list[tf.Variable]:
        """What the traced steps read or write, in the order of its first use."""
        steps = [step for step in self._steps.values() if not step.program.placement.eager]
        return [variable for step in steps for variable in used_variables(step.function)]

    @property
    def balancing_variables(self) -> list:
        """What a checkpoint holds of the balancer and the diagnostics."""
        measured = (part.variables for part in (self.diagnostics, self.helps) if part is not None)
        variables = [variable for part in measured for variable in part]
        if self.balanced is None:
            return variables
        return [*self._variables_of_balancer(self.program), *variables]

    def _variables_of_balancer(self, program: StepProgram) -> list:
        if self.balanced is None:
            return []
        return [*self.balanced.variables, *program.weighting.accumulated.values()]

    def step(self, source, xla: bool, asked: Asked) -> TracedStep:
        """The traced step for a structure of data.

        The first trace of a run also finds the terms and the variables, and the optimizers are
        built for them.

        Args:
          source: the data.
          xla: whether XLA compiles the step.
          asked: what the fit asks of it.
        Raises:
          RuntimeError: called inside a strategy's scope.
          ValueError: a step that cannot be trained.
        """
        base, given = self._base, source
        if tf.distribute.has_strategy():
            resolve_strategy(base.placement.strategy)  # says why not
        source = asked.of_source(given)
        base.build(base, of_any_size(source.element_spec))
        self._last, self._asked = (given, xla, asked), asked
        if self.prepared and self.program.trainables.switches.changed:
            self._forget()
        if not self.prepared:
            self._prepare(source, xla)
        if asked.with_optimizer:
            self._remember(asked.with_optimizer, self._placed(self.program, source, xla))
        pauses = self._pauses()
        traced = functools.partial(self._step, source, xla, pauses)
        step = traced(Omission())
        return with_variants(step, source, pauses, traced)

    def _step(self, source, xla, pauses: Pauses, left_out: Omission) -> TracedStep:
        """The step that leaves something out, traced once."""
        placement, phase = self._base.placement.placed(source.per_host, xla), self._asked.phase
        structure = str((source.element_spec, source.per_host))
        way = placement.xla, placement.eager, self._asked.key, self.phase_states.identity(phase)
        key = self._round, structure, *way, frozenset(pauses.weights), left_out
        if key not in self._steps:
            program = self._placed(self.program, source, xla)
            program = replace(program, pauses=pauses, **left_out._asdict())
            program = self.phase_states.given(phase, phase.of(program))
            spec = source.without(left_out.undrawn, source.element_spec)
            self._steps[key] = self._trace(key, program, spec)
        return self._steps[key]

    def _remember(self, phases, program: StepProgram) -> None:
        """Makes what phases with an optimizer have of their own."""
        measured = self._every is not None, self._helps[0] is not None
        facts = RunFacts(self._balancer is not None, *measured, self.written)
        self.phase_states.prepare(phases, program, facts)

    def _pauses(self) -> Pauses:
        """The terms that pause on the way; accumulated steps compute them all."""
        program, until = self.program, self._asked.until
        if until is None or program.optimizers.accumulation > 1:
            return Pauses()
        key = self._round, until, self._asked.phase.key
        if key not in self._found_pauses:
            objective = self._asked.phase.of(program).objective
            self._found_pauses[key] = objective.pauses(program.layout.names, until)
        return self._found_pauses[key]

    def reweigh(self, weights: Mapping) -> None:
        """Has evaluation take weights that were set by hand, name -> weight, from now on."""
        phase = self._asked.phase.beside(weights)
        if self.prepared:
            phase.of(self.program)  # ValueError: a name that is no term's
        self._asked = replace(self._asked, phase=phase)

    def follow_switches(self) -> None:
        """Traces the step anew, as it was asked for, where `trainable` was set otherwise."""
        if self._last is not None:
            self.step(*self._last)

    def trace_anew(self) -> None:
        """Traces the step anew, as it was asked for: the optimizers have other slots."""
        self._forget()
        self.follow_switches()

    def _forget(self) -> None:
        """Has the step traced anew: `trainable` was set otherwise somewhere."""
        known = self.program.discovery
        told = known.told.union(n.name for n in self.program.trainables.networks)
        self._base = replace(self._base, discovery=Discovery(known.hidden, told))
        self._base.objective.forget_table()
        self._first = None
        self._steps.clear()
        self._round += 1

    def _prepare(self, source, xla) -> None:
        try:
            with self._put_back(xla):
                passes = self._first_passes(source, xla)
        except ValueError as error:
            if "tf.function only supports singleton tf.Variables" not in str(error):
                raise
            where = " ".join(getattr(error, "__notes__", ()))
            raise TermwiseError(
                "A variable is made anew at each call of a loss or term, so it could never be "
                f"trained or saved {where}. Make it once: outside the function, or in __init__."
            ) from error
        program = passes.program
        if program.placement.eager:
            program.metrics.reset()
        if self.balanced is not None:
            program.objective.describe_with(self.balanced.describe)
        trainables, optimizers = program.trainables, program.optimizers
        optimizers.build(trainables.owners, trainables.variables, trainables.parameters)
        check_copies(program)
        self._first = passes
        if not self._round:
            self.first_settings = trainables.switches.settings
            self._on_first_trace(self)

    def _first_passes(self, source, xla) -> TrainPasses:
        """The passes of the first trace; traced again where a tape had to watch more."""
        for _ in range(2):
            passes, read = self._traced_passes(source, xla)
            program, discovery = passes.program, passes.program.discovery
            known = [*program.model.variables, *program.metrics.variables]
            unwatched = find_unwatched(read, [*known, *self._variables_of_balancer(program)])
            if not discovery.note_unwatched(unwatched, program.model):
                break
            hidden = tuple(variable for variable in unwatched if variable.trainable)
            self._base = replace(self._base, discovery=Discovery(hidden, discovery.told))
        return passes

    def _traced_passes(self, source, xla) -> tuple[TrainPasses, list]:
        """The passes, and the `tf.Variable`s that they read."""
        program = self._placed(self._base, source, xla)
        spec = to_trace_with(program, source)
        program.randomness.prepare()
        if self._balancer is not None:
            program = self._balancing(program, spec, self._balancer)
        passes = self._passes(program)
        precomputes = program.placement.precomputes_sums
        accumulation = program.optimizers.accumulation
        if precomputes or accumulation > 1 or (self._every, self._helps[0]) != (None, None):
            counts = passes.trace_counts(spec)
        self._make_measures(program)
        precomputed = local_spec(program, counts) if precomputes else None
        means = means_spec(program) if accumulation > 1 else None
        scales, means = specs_of_step(program, means)
        traced = passes.trace(spec, scales, precomputed, means)
        program.metrics.settle_held(program.placement.strategy, traced.variables)
        program.weighting.make_accumulated(traced.structured_outputs.jacobian)
        prepare_multipliers(program, functools.partial(passes.watched_terms, spec))
        return passes, self._note_written(program, traced)

    def _make_measures(self, program: StepProgram) -> None:
        """Makes the diagnostics and `helps` of the terms, where they are asked for."""
        measured = None if self.diagnostics is None else self.diagnostics.names
        if self._every is not None and measured != program.layout.names:
            self.diagnostics = Diagnostics(self._every, program.layout, program.placement.strategy)
        self.helps = helps_of(self._helps, program, self.helps)

    def _note_written(self, program: StepProgram, traced) -> list:
        """Notes the variables that a pass writes; those that it reads. In Python none is known."""
        eager = program.placement.eager
        self.written = [] if eager else written_variables(traced)
        return [] if eager else list(traced.graph.variables)

    def _balancing(self, program: StepProgram, spec, balancer: Balancer) -> StepProgram:
        """The program with the weighting of the balancer, whose state goes on."""
        strategy = program.placement.strategy
        layout, weights, watched = facts_of_terms(program, spec)
        watched.update(check_constraints(program.objective.terms, layout, balancer))
        if self.balanced is None:
            self.balanced = BalancedTerms(balancer, layout, strategy, weights, watched)
        else:
            self.balanced = self.balanced.placed_in(layout, weights, watched)
        shared = program.model, strategy, program.discovery, program.optimizers.accumulation
        return replace(program, weighting=choose_weighting(self.balanced, *shared))

    def _put_back(self, xla: bool):
        """Around the first pass: one that runs in Python changes nothing that stays."""
        base = self._base
        if not base.placement.placed(False, xla).eager:
            return contextlib.nullcontext()
        variables = [*base.model.variables, *base.metrics.variables, *self._owned_variables()]
        return put_back(parts_of(base.placement.strategy, variables))

    def _trace(self, key, program: StepProgram, spec) -> TracedStep:
        passes = self._first
        if passes is None or self._steps or program != passes.program:
            passes = self._passes(program)
        memory = self.phase_states.of(program) if program.phase else None
        parts = StepParts(self._train_step, passes, self.diagnostics, self.helps, memory)
        return trace_step(parts, key, spec)

    def _passes(self, program: StepProgram) -> TrainPasses:
        return TrainPasses(program, () if self.balanced is None else self.balanced.names)

    def _placed(self, program: StepProgram, source, xla) -> StepProgram:
        placement = self._base.placement.placed(source.per_host, xla)
        program = replace(program, placement=placement, sources=source.names or program.sources)
        return self._asked.weighed(program)
