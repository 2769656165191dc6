"""Reading compiled: the traced evaluation step, its loop over a dataset, and predictions."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import tensorflow as tf

from losses.objective.layout import Layout
from losses.objective.weights import identity_of
from trainer.loop.eager import PythonStep, parts_of
from trainer.model.added_losses import added_losses_apart
from trainer.model.switches import Switches
from trainer.step.metrics import Metrics
from trainer.step.outputs import ExampleNotes
from trainer.step.program import StepProgram
from trainer.step.replica import evaluate_replica, examples_replica, predict_replica


class EvalSums(NamedTuple):
    """The sums of a pass over data.

    layout: the T terms; numerators, denominators: float64 [K]; counts: float64 [T], 0 where the
    data holds nothing of a term; weights: float32 [T]; batches: int64 [].
    """

    layout: Layout
    numerators: tf.Tensor
    denominators: tf.Tensor
    counts: tf.Tensor
    weights: tf.Tensor
    batches: tf.Tensor


@dataclass(frozen=True)
class TracedEvaluation:
    """An evaluation step as it was traced, or as Python's.

    step: the tensors of a batch -> numerators, denominators, counts, weights; layouts: of its
    terms, one for each trace or call.
    """

    step: Any
    layouts: list[Layout]

    @property
    def layout(self) -> Layout:
        return self.layouts[-1]


@dataclass(frozen=True)
class TracedExamples:
    """A pass over single examples as it was traced, or as Python's.

    step: the tensors of a batch -> what `examples_replica` gives; notes: of its terms.
    """

    step: Any
    notes: ExampleNotes


class EvalLoops:
    """The compiled functions that evaluate and predict; they change nothing but metrics.

    Args:
      program: () -> the run's program, with the weighting of its first trace once there is one.
      metrics: of evaluation.
    """

    def __init__(self, program: Callable[[], StepProgram], metrics: Metrics):
        self._program = program
        self.metrics = metrics
        self._evaluations: dict[tuple, TracedEvaluation] = {}
        self._loops: dict[tuple, Any] = {}
        self._predictions: dict[tuple, Any] = {}
        self._examples: dict[tuple, TracedExamples] = {}
        self._switches: Switches | None = None  # of the model, which is built by then

    @property
    def traces(self) -> int:
        """How many evaluation steps were traced."""
        return len(self._evaluations)

    def trace(self, source, xla: bool) -> TracedEvaluation:
        """The evaluation step for the structure of a source, traced once."""
        program = self._placed(source, xla)
        key = self._key(program, source)
        if key not in self._evaluations:
            self._evaluations[key] = self._traced(program, source)
        return self._evaluations[key]

    def evaluate(self, source, steps: int | None, xla: bool, on_batch=None) -> EvalSums:
        """Sums over a pass through the data (or its first `steps` batches).

        Args:
          on_batch: number of a batch -> a context manager around it, which yields its logs; None
            where nobody hears of single batches.
        """
        evaluation, batches = self.trace(source, xla), source.batches()
        if on_batch is not None or self._placed(source, xla).placement.eager:
            on_batch = on_batch or (lambda _: contextlib.nullcontext({}))
            return _one_by_one(evaluation, batches, steps, on_batch)
        limit = tf.constant(-1 if steps is None else steps, tf.int64)
        key = self._key(self._placed(source, xla), source)
        if key not in self._loops:
            # each is traced once, here: no retracing that TensorFlow could warn of
            loop = _make_loop(evaluation.step)
            self._loops[key] = loop.get_concrete_function(batches, limit)
        return EvalSums(evaluation.layout, *self._loops[key](batches, limit))

    def predict(self, batch, source, xla: bool):
        """The outputs of one batch, whose tensors are in order; the replicas' parts joined."""
        program = self._placed(source, xla)
        key = self._key(program, source)
        if key not in self._predictions:
            strategy = program.placement.strategy

            def predict(batch):
                replica = functools.partial(predict_replica, program)
                outputs, present = strategy.run(replica, args=(batch,))
                return outputs if present is None else _joined(strategy, outputs, present)

            self._predictions[key] = _function(program, predict)
        tensors = tf.nest.flatten(batch, expand_composites=True)
        batch = tf.nest.pack_sequence_as(source.element_spec, tensors, expand_composites=True)
        return self._predictions[key](batch)

    def trace_examples(self, source, xla: bool, outputs: bool) -> TracedExamples:
        """What looks at the single examples of a batch, traced once for a structure of data.

        Args:
          outputs: whether it gives the model's outputs too.
        """
        program = self._placed(source, xla)
        key = *self._key(program, source), outputs
        if key not in self._examples:
            notes = ExampleNotes()
            replica = functools.partial(examples_replica, program, notes, outputs)
            step = self._on_replicas(program, source, replica)
            self._examples[key] = TracedExamples(step, notes)
        return self._examples[key]

    def _placed(self, source, xla: bool) -> StepProgram:
        """The run's program for evaluation; on several replicas XLA does not compile it."""
        program = self._program()
        strategy = program.placement.strategy
        xla = xla and strategy.num_replicas_in_sync == 1
        placement = program.placement.placed(source.per_host, xla)
        return replace(program, placement=placement, metrics=self.metrics, class_weight={})

    def _key(self, program: StepProgram, source) -> tuple:
        if self._switches is None:
            self._switches = Switches.of(program.model)
        placement, weighting = program.placement, id(program.weighting)
        way = placement.per_host, placement.xla, placement.eager
        overrides = program.objective.overrides
        weights = tuple((name, identity_of(weight)) for name, weight in overrides.items())
        return str(source.element_spec), *way, weighting, weights, self._switches.now

    def _traced(self, program: StepProgram, source) -> TracedEvaluation:
        layouts: list[Layout] = []
        replica = functools.partial(evaluate_replica, program, layouts)
        return TracedEvaluation(self._on_replicas(program, source, replica), layouts)

    def _on_replicas(self, program: StepProgram, source, replica: Callable):
        """A function of the tensors of a batch that runs one of its part on every replica."""
        strategy = program.placement.strategy

        def on_replicas(*batch):
            with added_losses_apart(program.model, strategy.num_replicas_in_sync):
                results = strategy.run(replica, args=batch)
            return tf.nest.map_structure(
                lambda value: strategy.experimental_local_results(value)[0], results
            )

        if program.placement.eager:
            self.metrics.settle_held(strategy, parts_of(strategy, program.model.variables))
            return PythonStep(on_replicas, source.element_spec)
        specs = [source.element_spec]
        if source.counts_spec is not None:  # and whether the batch counts
            specs.append(source.counts_spec)
        step = _function(program, on_replicas).get_concrete_function(*specs)
        self.metrics.settle_held(strategy, step.variables)
        return step


def _function(program: StepProgram, function):
    if program.placement.eager:
        return function
    return tf.function(function, jit_compile=program.placement.xla or None, autograph=False)


def _one_by_one(evaluation: TracedEvaluation, batches, steps: int | None, on_batch) -> EvalSums:
    """The sums of a pass, batch by batch, on the host."""
    sums: list = [tf.zeros([0], tf.float64)] * 3
    weights, count = tf.zeros([0]), 0
    for batch in itertools.islice(batches, steps):
        with on_batch(count) as logs:
            *parts, weights = evaluation.step(*tf.nest.flatten(batch, expand_composites=True))
            parts = [tf.cast(part, tf.float64) for part in parts]
            sums = [a + b for a, b in zip(sums, parts, strict=True)] if count else parts
            count += 1
            numerators, denominators, counts = (tf.cast(part, tf.float32) for part in sums)
            absent = tf.cast(tf.equal(counts, 0), tf.float32)
            raw = evaluation.layout.raw(numerators, denominators, absent)
            logs["loss"] = float(tf.reduce_sum(weights * raw * (1 - absent)))
    layout = evaluation.layout if count else Layout.of({})
    return EvalSums(layout, sums[0], sums[1], sums[2], weights, tf.constant(count, tf.int64))


def _make_loop(step):
    """The loop of a traced evaluation step: sums over the batches of an iterator."""
    *sums, weights = step.structured_outputs
    zeros = [tf.zeros(part.shape, tf.float64) for part in sums]

    def take(iterator, more, count, *sums):
        batch = more.get_value()
        *parts, weight = step(*tf.nest.flatten(batch, expand_composites=True))
        added = [s + tf.cast(part, tf.float64) for s, part in zip(sums, parts, strict=False)]
        return iterator.get_next_as_optional(), count + 1, *added, weight

    @tf.function(autograph=False)
    def loop(iterator, limit):
        start = (
            iterator.get_next_as_optional(),
            tf.zeros([], tf.int64),
            *zeros,
            tf.zeros(weights.shape, weights.dtype),
        )
        _, count, *sums, weight = tf.while_loop(
            lambda more, count, *_: more.has_value() & ((limit < 0) | (count < limit)),
            lambda *values: take(iterator, *values),
            start,
        )
        return *sums, weight, count

    return loop


def _joined(strategy, outputs, present):
    """The replicas' outputs one after another; without those of padding."""
    real = [value > 0 for value in strategy.experimental_local_results(present)]

    def join(value):
        parts = strategy.experimental_local_results(value)
        parts = [p[: tf.where(r, tf.shape(p)[0], 0)] for p, r in zip(parts, real, strict=True)]
        return tf.concat(parts, 0)

    return tf.nest.map_structure(join, outputs)
