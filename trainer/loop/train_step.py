"""One training step over all replicas: from the global batch to gradients and the step's record."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, NamedTuple

import tensorflow as tf

from losses.errors import TermwiseRuntimeError
from losses.objective.layout import Layout
from trainer.balancing.diagnostics import Diagnostics
from trainer.balancing.direction import dense, mirrored
from trainer.balancing.helps import probe_validation
from trainer.balancing.multipliers import move_multipliers, sums_to_move_by
from trainer.balancing.probe import (
    Trial,
    note_watched,
    probe_residuals,
    probe_terms,
    probe_trial,
)
from trainer.data.batch import examples_in
from trainer.distributed.reduce import sum_by_path
from trainer.loop.eager import PythonPass
from trainer.loop.graph import called_apart, stateless
from trainer.loop.norm import global_norm
from trainer.model.added_losses import added_losses_apart
from trainer.model.teachers import move_teachers
from trainer.step.gradients import times
from trainer.step.moving_statistics import Statistics
from trainer.step.outputs import ReplicaResult, StepRecord, TrialNotes
from trainer.step.program import Discovery, StepProgram
from trainer.step.reduction import sum_results
from trainer.step.replica import count_replica, train_replica
from trainer.step.weighting import Weighting


class TrainPasses:
    """The passes of a program over all replicas, each traced once for a structure of batches.

    Args:
      program: what is traced.
      balanced_names: the terms whose residuals a weighting may ask for.
      in_place: whether the pass is traced anew wherever it is called: in a branch, say, where a
        function that holds collectives cannot be called.
    """

    def __init__(self, program: StepProgram, balanced_names=(), in_place: bool = False):
        self.program, self._in_place = program, in_place
        self._balanced_names = balanced_names
        self._eager = program.placement.eager
        count = functools.partial(count_replica, program)
        self._count = self._on_replicas(count)
        self._look_at_counts = self._looking(count, self._count)
        self._train = self._traced(functools.partial(self._run, program.weighting))

    @property
    def traces(self) -> int:
        """How often the forward and backward pass was traced."""
        return 0 if self._eager else self._train.experimental_get_tracing_count()

    def in_place(self) -> TrainPasses:
        """The same passes, traced anew wherever they are called."""
        return TrainPasses(self.program, self._balanced_names, True)

    def trace_counts(self, spec):
        """Traces `counts` for batches of a spec, or runs it for a batch; its outputs."""
        if self._eager:
            return self._count(spec)
        return self._count.get_concrete_function(spec).structured_outputs

    def watched_terms(self, spec, names) -> set[str]:
        """Those of some terms that reach no variable; as in `trace_counts`."""
        watched: set[str] = set()
        note = functools.partial(note_watched, self.program, names, watched)
        if names:
            look = self._on_replicas(note)
            look(spec) if self._eager else look.get_concrete_function(spec)
        return watched

    def trace(self, *specs):
        """Traces the forward and backward pass, or runs it; what has been traced, or was run.

        Args:
          specs: of `compute`'s inputs; where nothing is traced, these themselves.
        """
        if self._eager:
            return PythonPass.of(self._train(*specs), self.program)
        return self._train.get_concrete_function(*specs)

    def counts(self, batch):
        """float32 [2K + 2], the terms' sums over all replicas, by a pass that changes nothing."""
        look = self._look_at_counts
        if self.program.several_objectives:  # another one may count other labels
            look = self._looking(functools.partial(count_replica, self.program))
        sums = look(batch)
        if self.program.placement.replicas == 1:
            return sums
        strategy = self.program.placement.strategy
        return strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

    def precomputed(self, batch):
        """`counts` where the placement asks for it, else None."""
        return self.counts(batch) if self.program.placement.precomputes_sums else None

    def compute(self, batch, scales, precomputed, accumulation) -> ReplicaResult:
        """The forward and backward pass, summed over the replicas, weighed.

        Args:
          batch: the global batch, or this host's.
          scales, precomputed, accumulation: as in `train_replica`.
        """
        inputs, weighting = (batch, scales, precomputed, accumulation), self.program.weighting
        step, residuals = self.program.step, functools.partial(self.residuals, batch)
        if weighting.otherwise is None:
            # what `compute_terms` says may have changed since the last pass of the step
            anew = self.program.several_objectives or self._in_place
            result = self._run(weighting, *inputs) if anew else self._train(*inputs)
            result = sum_results(self.program, weighting, result)
            return weighting.finish(result, self.program.loss_scales(scales), step, residuals)

        def branch(weighting: Weighting):
            # traced in place: a function that holds collectives cannot be called in a branch
            result = sum_results(self.program, weighting, self._run(weighting, *inputs))
            by_path = self.program.loss_scales(scales)
            result = weighting.finish(result, by_path, step, residuals)
            gradients = dense(self.program.placement.strategy, result.gradients)
            return result._replace(gradients=gradients, jacobian={}, decided=None)

        balanced = self.seldom(functools.partial(branch, weighting))
        result = tf.cond(weighting.due(step), balanced, lambda: branch(weighting.otherwise))
        strategy, variables = self.program.placement.strategy, self.program.trainables.variables
        return result._replace(gradients=mirrored(strategy, variables, result.gradients))

    def one_pass(self, batch) -> ReplicaResult:
        """The forward and backward pass of a batch, for a look at it; it is not applied."""
        scales = self.program.optimizers.scales()
        weighting = self.program.weighting.in_one_pass
        result = self._run(weighting, batch, scales, self.precomputed(batch), None)
        return sum_results(self.program, weighting, result)

    def jacobian(self, batch, precomputed) -> dict:
        """path -> [T, ...], the gradients of the terms' raw values; nothing is changed."""
        probe = functools.partial(probe_terms, self.program)
        return self._summed(self._looking(probe)(batch, precomputed))

    def tried(self, notes: TrialNotes, batch) -> tuple[dict, Trial]:
        """`jacobian`, and a `Trial` of the step; nothing is changed."""
        rows, trial = self._looking(functools.partial(probe_trial, self.program, notes))(batch)
        first = self.program.placement.strategy.experimental_local_results
        return self._summed(rows), tf.nest.map_structure(lambda value: first(value)[0], trial)

    def residuals(self, batch) -> dict:
        """path -> [m, ...], the gradients of the balanced terms' residuals; nothing is changed."""
        probe = functools.partial(probe_residuals, self.program, self._balanced_names)
        return self._summed(self._looking(probe)(batch))

    def validation(self, chosen, batch, *valid):
        """path -> the gradient of the validation objective over a batch; float32 [], its examples.

        Args:
          chosen, valid: as in `probe_validation`.
        """
        probe = functools.partial(probe_validation, self.program, chosen)
        gradients, examples = self._looking(probe)(batch, *valid)
        return self._summed(gradients), examples

    def _summed(self, rows: dict) -> dict:
        if self.program.placement.replicas == 1:
            return rows
        variables = self.program.trainables.variables
        return sum_by_path(self.program.placement.strategy, variables, rows)

    def seldom(self, function):
        """What calls a function in a branch that is seldom taken.

        One that holds collectives has to be traced in place.
        """
        placement = self.program.placement
        apart = placement.replicas == 1 and not placement.xla and not self._eager
        return called_apart(function) if apart else function

    def _traced(self, function):
        return function if self._eager else tf.function(function, autograph=False)

    def _run(self, weighting: Weighting, *inputs):
        replica = functools.partial(train_replica, self.program, weighting)
        with weighting.lent():
            return self._on_replicas(replica, traced=False)(*inputs)

    def _looking(self, function, traced=None):
        """`_on_replicas` of a function whose pass leaves every variable as it was.

        Args:
          traced: the same as a `tf.function`, where there is one.
        """
        if self._eager:
            return self._on_replicas(function)
        several = self.program.placement.replicas > 1
        in_place = self._on_replicas(function, traced=False) if several else None
        return stateless(traced or self._on_replicas(function), in_place)

    def _on_replicas(self, function, traced: bool = True):
        """A function of a batch that runs one of its part, and `present`, on every replica."""
        placement = self.program.placement
        if placement.precomputes_sums:  # XLA compiles each replica's part alone
            function = tf.function(function, jit_compile=True, autograph=False)

        def on_replica(batch, *others):
            return function(*placement.shard(batch), *others)

        def run(*inputs):
            with added_losses_apart(self.program.model, placement.replicas):
                return placement.strategy.run(on_replica, args=inputs)

        return self._traced(run) if traced else run


def facts_of_terms(program: StepProgram, spec) -> tuple[Layout, dict, set[str]]:
    """The layout, the given weights and the terms without gradient; nothing is changed."""
    discovery, objective = Discovery(), program.objective
    passes = TrainPasses(replace(program, discovery=discovery))
    passes.trace_counts(spec)
    layout = discovery.layout_found
    # a loss of Keras's own has a gradient; what a user wrote may be there to be seen alone
    written = [line.name for line in objective.described or () if line.origin != "compiled"]
    watched = passes.watched_terms(spec, written)
    return layout, objective.constant_weights(layout.names), watched


class StepContext(NamedTuple):
    """What the step that is being traced or run is made of.

    passes: of its program.
    diagnostics: of the terms' gradients, or None.
    accumulation: float32 [T], the mean denominators of the accumulated steps, or None.
    """

    passes: TrainPasses
    diagnostics: Diagnostics | None
    accumulation: Any


_CONTEXT: ContextVar[StepContext | None] = ContextVar("step", default=None)


@contextlib.contextmanager
def step_context(context: StepContext) -> Iterator[None]:
    """Around `Trainer.train_step`: what `compute_gradients` in it is to use."""
    token = _CONTEXT.set(context)
    try:
        yield
    finally:
        _CONTEXT.reset(token)


def current_context() -> StepContext:
    """The context of the step that calls. RuntimeError: called outside `train_step`."""
    context = _CONTEXT.get()
    if context is None:
        raise TermwiseRuntimeError(
            "compute_gradients() and apply_gradients() work inside train_step(batch), which fit() "
            "calls. Override train_step, and call fit()."
        )
    return context


def compute_gradients(context: StepContext, batch) -> tuple[dict, StepRecord]:
    """path -> gradient of the total, summed over the replicas, and the record of the step."""
    passes, program = context.passes, context.passes.program
    scales, statistics = program.optimizers.scales(), Statistics.of(program)
    precomputed = passes.precomputed(batch)
    result = passes.compute(batch, scales, precomputed, context.accumulation)
    gradients, raw, weights = _static(program, result.gradients), result.raw, result.weights
    gradients = _completed(program, gradients)
    if context.diagnostics is not None:
        rows = functools.partial(passes.jacobian, batch, precomputed)
        measured = rows, weights, program.step, result.absent
        context.diagnostics.measure_when_due(*measured, passes.seldom)
    strategy = program.placement.strategy
    local = [strategy.experimental_local_results(g)[0] for g in gradients.values()]
    several = scales is not None and len(program.optimizers.of_group) > 1
    if several:
        by_path = program.loss_scales(scales)
        local = [times(g, 1.0 / by_path[path]) for path, g in zip(gradients, local, strict=True)]
    norm = global_norm(local, program.placement.xla)
    if scales is not None and not several:
        norm /= scales[0]
    examples = result.sums[-2]
    if program.placement.replicas == 1:  # of static batches a constant
        examples = tf.cast(examples_in(batch), tf.float32)
    sums = sums_to_move_by(program, result.sums)
    record = StepRecord(raw, weights, weights * raw, examples, norm, result.absent, sums)
    statistics.put_back(record.finite())
    return gradients, record


def apply_gradients(context: StepContext, gradients: dict, record: StepRecord) -> None:
    """One update: of every group that is due, multipliers and teachers; none of a step left out."""
    program = context.passes.program
    finite = record.finite() if program.skips else None
    program.optimizers.apply(gradients, program.trainables.variables, program.step, finite)
    move_multipliers(program, record, finite)
    due = tf.equal((program.step + 1) % program.optimizers.accumulation, 0)
    due = due if finite is None else due & finite
    strategy = program.placement.strategy
    move_teachers(program.objective.terms, program.model, strategy, due)


def _completed(program: StepProgram, gradients: dict) -> dict:
    """The gradients, with zeros for what the terms that a step leaves out would have reached.

    So it is updated as by terms of weight 0: whether they are computed changes nothing.
    """
    if not program.leaves_out:
        return gradients
    strategy, variables = program.placement.strategy, program.trainables.variables
    owners = program.trainables.of_groups(program.trained).owners
    missing = {path: variables[path] for path in owners if path not in gradients}
    zeros = {path: tf.zeros(v.shape, v.dtype) for path, v in missing.items()}
    return {**gradients, **mirrored(strategy, variables, zeros)}


def _static(program: StepProgram, gradients: dict) -> dict:
    """The gradients with known shapes: XLA compiles anew for each that it has to find out."""
    placement, variables = program.placement, program.trainables.variables
    if not placement.xla or placement.precomputes_sums:
        return gradients
    return {
        path: tf.IndexedSlices(g.values, g.indices, tf.constant([*variables[path].shape], tf.int32))
        if isinstance(g, tf.IndexedSlices)
        else g
        for path, g in gradients.items()
    }
