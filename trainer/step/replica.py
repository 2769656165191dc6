"""One step on one replica: functions of a program and tensors, in replica context."""

from __future__ import annotations

import tensorflow as tf

from losses.distributed.gather import gather_examples, own_examples
from losses.objective.layout import Layout
from losses.objective.ratio import ByExample
from trainer.data.batch import Share, shares_of
from trainer.distributed.reduce import sum_in_replica
from trainer.model.variables import tensor_variable
from trainer.step.forward import Forward, make_step, make_terms, run_forward, stateless_forward
from trainer.step.gradients import Backward, ObjectiveShare
from trainer.step.moving_statistics import moving_variables
from trainer.step.outputs import ExampleNotes, ReplicaResult
from trainer.step.program import StepProgram
from trainer.step.reducers import GlobalSums, Reducer, choose_reducer


def train_replica(
    program: StepProgram, weighting, batch, present, scales, precomputed, accumulation
) -> ReplicaResult:
    """Gradients of this replica's share of the total, and what the record is made of.

    Args:
      program: what is traced.
      weighting: how the terms are weighed in this pass.
      batch, present: of `Placement.shard`.
      scales: float32 [optimizers], the loss scales, or None.
      precomputed: float32 [2K + 2], `count_replica` over all replicas where no replica may wait
        for another; None: the sums are made global here.
      accumulation: float32 [T], the mean denominators of the accumulated steps, or None.
    """
    # a persistent tape makes TensorFlow differentiate loops (an LSTM's) as functions: slower,
    # but the only form of them that XLA compiles
    persistent = weighting.jacobian or program.several_passes or program.placement.xla
    with tf.GradientTape(persistent=persistent) as tape:
        tape.watch(program.hidden)
        forward = run_forward(program, weighting, batch, present, tape)
        layout, now = forward.layout, forward.step.step
        reducer = choose_reducer(program.placement, layout, weighting.reads_values)
        weights = program.objective.weights(layout.names, now)
        with tape.stop_recording():
            sums = reducer.global_sums(forward, forward.sums(present), present, precomputed)
            raw = layout.raw(sums.numerators, sums.denominators, sums.absent)
        weights, decided = weighting.before(weights, raw, now, sums.absent)
        share, raw = _objective_share(
            tape, forward, reducer, sums, weights, accumulation, weighting.jacobian
        )
    backward = _backward(program, tape, share, forward, scales)
    gradients, jacobian, weights, decided = weighting.differentiate(backward, weights, raw, decided)
    program.discovery.settle(layout, backward.trainables, [*gradients, *jacobian])
    program.metrics.count(forward.step, present)
    moving = _moving(program, present)
    return ReplicaResult(gradients, moving, sums.result, raw, weights, jacobian, decided)


def _objective_share(
    tape,
    forward: Forward,
    reducer: Reducer,
    sums: GlobalSums,
    weights,
    accumulation,
    parts: bool,
) -> tuple[ObjectiveShare, tf.Tensor]:
    """This replica's share of the total, and the raw values; the tape records the share alone."""
    layout = forward.layout
    with tape.stop_recording():
        raw, cotangents = layout.raw_and_cotangents(
            sums.numerators, sums.denominators, weights, sums.absent
        )
        raw_share = reducer.raw_share(forward, sums, raw)
        counts = (
            None
            if accumulation is None
            else layout.accumulation_factors(sums.denominators, accumulation)
        )
    share = ObjectiveShare(
        layout,
        cotangents * forward.numerators,
        weights * raw_share,
        accumulation=counts,
        parts=tuple(layout.parts(forward.terms, cotangents)) if parts else (),
        cotangents=cotangents,
    )
    return share, raw


def _backward(program: StepProgram, tape, share, forward: Forward, scales) -> Backward:
    trainables = program.discovery.candidates(
        lambda: program.find_trainables(tape.watched_variables(), forward.step.model)
    )
    trainables = trainables.of_groups(program.trained)
    optimizers, objective = program.optimizers, program.objective
    trained_groups = {line.name: line.trains or () for line in objective.described or []}
    return Backward(
        tape,
        share,
        trainables,
        trainables.passes(forward.layout, trained_groups, optimizers.accumulates),
        scales,
        {group: index for index, group in enumerate(optimizers.of_group)},
        forward.tapped,
        forward.step.step,
        sum_in_replica,
    )


def count_replica(program: StepProgram, batch, present) -> tf.Tensor:
    """float32 [2K + 2], `Forward.sums` of this replica, in a pass that changes nothing.

    The numerators are 0 where no gradient needs them: the compiler then drops what they came of.
    """
    forward = stateless_forward(program, batch, present)
    program.discovery.settle_layout(forward.layout)
    if forward.layout.linear and not program.weighting.reads_values:
        forward = forward._replace(numerators=tf.zeros_like(forward.numerators))
    return forward.sums(present)


def evaluate_replica(program: StepProgram, layouts: list, batch, valid=None):
    """A batch's sums over all replicas, and the weights.

    Args:
      layouts: the trace puts the layout of its terms in.
      valid: float32 [], 0 where this host's data has ended and the batch counts for nothing; of
        several sources [sources].
    Returns:
      float32 [K] numerators; [K] denominators; [T], 0 where a term is absent; [T] weights.
    """
    batch, present = _valid_shares(program, batch, valid)
    with program.metrics.without_padding(present):
        step = make_step(program, batch, False, present)
        terms = make_terms(program, step, present)
    layout = Layout.of(terms)
    layouts.append(layout)
    terms_in_it = layout.present(terms)
    parts = [*layout.pack(terms), *([] if terms_in_it is None else [terms_in_it])]
    sums = sum_in_replica(tf.concat(parts, 0))
    numerators, denominators = sums[: layout.size], sums[layout.size : 2 * layout.size]
    counts = tf.ones([len(layout.names)]) if terms_in_it is None else sums[2 * layout.size :]
    program.metrics.count(step, present)
    weights = program.objective.weights(layout.names, step.step)
    weights = program.weighting.evaluation_weights(layout, weights)
    return numerators, denominators, counts, weights


def _valid_shares(program: StepProgram, batch, valid) -> tuple:
    """The replica's part of a batch, and `present`; neither counts where it is not valid."""
    part, present = program.placement.shard(batch)
    if valid is None:
        return part, present
    if valid.shape.rank == 0:
        return part, valid if present is None else present * valid
    shares = [
        Share(share.batch, valid[i] if share.present is None else share.present * valid[i])
        for i, share in enumerate(shares_of(part, present).values())
    ]
    return type(batch)(*shares), shares[0].present


def examples_replica(program: StepProgram, notes: ExampleNotes, outputs: bool, batch, valid=None):
    """What each example of a batch adds to each term, for the examples of all replicas in order.

    Args:
      notes: the trace puts in which terms have no value per example, and which are sums.
      outputs: whether the model's outputs are wanted too.
      valid: as in `evaluate_replica`.
    Returns:
      term name -> float32 [examples, 3]: numerator, count, and 0 where the example does not count;
      float32 [], the examples; and the outputs, or ().
    """
    batch, present = _valid_shares(program, batch, valid)
    with program.metrics.without_padding(present):
        step = make_step(program, batch, False, present)
        terms = make_terms(program, step, present)
    for name, ratio in terms.items():
        notes.note(name, ratio)
    there = [name for name in terms if terms[name].without_examples is None]
    rows = {name: example_columns(terms[name].by_example()) for name in there}
    examples = step.examples if present is None else step.examples * present
    y_pred = step.y_pred if outputs else ()
    if program.placement.replicas == 1:
        return rows, examples, y_pred
    with own_examples(present):
        rows = {name: gather_examples(values)[0] for name, values in rows.items()}
        y_pred = gather_examples(y_pred)[0] if outputs else ()
    return rows, sum_in_replica(examples), y_pred


def example_columns(parts: ByExample) -> tf.Tensor:
    """float32 [examples, 3], what each example adds to a term, as `examples_replica` gives it."""
    ones = tf.ones_like(parts.numerators)
    columns = [ones if part is None else part for part in parts]
    return tf.stack([tf.cast(column, tf.float32) for column in columns], axis=1)


def predict_replica(program: StepProgram, batch):
    """This replica's outputs, and 0.0 where it has no examples (None: one replica).

    A host predicts whole batches itself, so that each ends with all outputs.
    """
    batch, present = program.placement.shard(batch, per_host=True)
    if present is None and program.placement.replicas > 1:
        present = tf.ones([])
    return make_step(program, batch, training=False).y_pred, present


def _moving(program: StepProgram, present) -> dict[str, tf.Tensor]:
    """name -> a moving statistic, times `present`; {} on one replica, where it stands already."""
    if program.placement.replicas == 1:
        return {}
    moved = moving_variables(program.placement.strategy, program.model, program.places())
    values = {name: tf.convert_to_tensor(tensor_variable(v)) for name, v in moved.items()}
    if present is None:
        return values
    return {name: value * tf.cast(present, value.dtype) for name, value in values.items()}
