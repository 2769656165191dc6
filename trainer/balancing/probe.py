"""The terms' gradients one by one, from a pass that changes nothing; on one replica."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from losses.distributed.gather import gather_examples, own_examples
from losses.errors import TermwiseError
from losses.example_random import example_keys, uniform
from trainer.balancing.jacobian import stacked, term_gradients
from trainer.distributed.reduce import sum_in_replica
from trainer.model.variables import tensor_variable
from trainer.step.forward import Forward, stateless_forward
from trainer.step.outputs import TrialNotes
from trainer.step.program import StepProgram
from trainer.step.replica import example_columns


class Trial(NamedTuple):
    """What a step that is tried gives, over the global batch.

    raw, weights, absent: float32 [T]; columns: term -> float32 [examples, 3], of the terms that
    have a value per example, see `example_columns`.
    """

    raw: tf.Tensor
    weights: tf.Tensor
    absent: tf.Tensor
    columns: dict[str, tf.Tensor]


def note_watched(program: StepProgram, names, watched: set, batch, present) -> tf.Tensor:
    """Adds to a set those of some terms that no variable is reached by: they are only looked at.

    Args:
      program: what is traced.
      names: the terms that are asked for.
      watched: the set.
      batch, present: of `Placement.shard`.
    """
    with tf.GradientTape(persistent=True) as tape:
        forward = stateless_forward(program, batch, present)
    variables = tape.watched_variables()
    for name in names:
        gradients = tape.gradient(forward.terms[name].numerator, variables)
        if all(gradient is None for gradient in gradients):
            watched.add(name)
    return tf.zeros([])


def probe_terms(program: StepProgram, batch, present, precomputed) -> dict[str, tf.Tensor]:
    """The gradients of the terms' raw values, by the variables that train.

    Args:
      program: what is traced.
      batch, present: of `Placement.shard`.
      precomputed: float32 [2K + 2], the terms' sums over all replicas, or None.
    Returns:
      path -> [T, ...], to be summed over the replicas.
    """
    tape, parts, _, _ = _recorded(program, batch, present, precomputed)
    return _rows(program, _gradients(program, tape, parts))


def probe_trial(program: StepProgram, notes: TrialNotes, batch, present) -> tuple[dict, Trial]:
    """`probe_terms`, and what else is told of a step that is tried and not taken.

    Args:
      program, batch, present: as in `probe_terms`.
      notes: the trace puts in what it finds out of the terms.
    Returns:
      path -> [T, ...], to be summed over the replicas; and a `Trial`, the same on all of them.
    """
    tape, parts, forward, sums = _recorded(program, batch, present, None)
    layout, terms = forward.layout, forward.terms
    gradients = _gradients(program, tape, parts)
    paths = list(program.trainables.owners)
    for name, of_term in zip(layout.names, gradients, strict=True):
        reached = (p for p, g in zip(paths, of_term, strict=True) if g is not None)
        notes.note(name, terms[name], tuple(reached))
    size, absent = layout.size, layout.absent(sums)
    raw = layout.raw(sums[:size], sums[size : 2 * size], absent)
    weights = program.objective.weights(layout.names, forward.step.step)
    weights = program.weighting.evaluation_weights(layout, weights)
    absent = tf.zeros_like(raw) if absent is None else absent
    columns = {name: example_columns(terms[name].by_example()) for name in notes.shapes}
    if program.placement.replicas > 1:
        for name, values in columns.items():
            source = forward.step.of_source(terms[name].source)
            with own_examples(present if source.present is None else source.present):
                columns[name] = gather_examples(values)[0]
    return _rows(program, gradients), Trial(raw, weights, absent, columns)


def _recorded(program: StepProgram, batch, present, precomputed) -> tuple:
    """A tape of each term's part of its raw value; these parts, the forward pass, the sums."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(program.hidden)
        forward = stateless_forward(program, batch, present)
        layout = forward.layout
        with tape.stop_recording():
            sums = sum_in_replica(forward.sums(present)) if precomputed is None else precomputed
            size, ones, absent = layout.size, tf.ones([len(layout.names)]), layout.absent(sums)
            _, cotangents = layout.raw_and_cotangents(
                sums[:size], sums[size : 2 * size], ones, absent
            )
        parts = layout.parts(forward.terms, cotangents)
    return tape, parts, forward, sums


def probe_residuals(program: StepProgram, names, batch, present) -> dict[str, tf.Tensor]:
    """The gradients of the residuals of some terms, under random signs.

    A residual is the square root of one example's part of a term. Summed under random signs v,

        s = sum_j v_j r_j,   E |ds/dw|^2 = sum_j |dr_j/dw|^2,

    the trace of the term's neural tangent kernel (Hutchinson's estimator).

    Args:
      program, batch, present: as in `probe_terms`.
      names: the terms.
    Returns:
      path -> [names, ...], to be summed over the replicas.
    Raises:
      ValueError: a term that gives no value per example.
    """
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(program.hidden)
        forward = stateless_forward(program, batch, present)
        parts = [_signed_residuals(program, forward, name, i) for i, name in enumerate(names)]
    return _rows(program, _gradients(program, tape, parts))


def _sources(program: StepProgram) -> dict[str, tf.Variable]:
    """path -> `tf.Variable` of what trains."""
    trainables = program.trainables
    return {p: tensor_variable(trainables.variables[p]) for p in trainables.owners}


def _gradients(program: StepProgram, tape, parts) -> list[list]:
    """For each part its gradients by what trains, in that order; None where it does not reach."""
    return term_gradients(tape, parts, None, list(_sources(program).values()))


def _rows(program: StepProgram, by_term: list[list]) -> dict[str, tf.Tensor]:
    """path -> [parts, ...], zeros where one does not reach."""
    sources = _sources(program)
    return {
        path: stacked(list(gradients), source)
        for (path, source), gradients in zip(
            sources.items(), zip(*by_term, strict=True), strict=True
        )
    }


def _signed_residuals(program: StepProgram, forward: Forward, name: str, index: int) -> tf.Tensor:
    """float32 [], the sum of one term's residuals under random signs."""
    ratio, step = forward.terms[name], forward.step
    if ratio.left_out:
        return tf.zeros([])
    if ratio.values is None:
        raise TermwiseError(
            f"Term {name!r} gives no value per example, so its residuals are unknown. Leave it "
            "out by the balancer's terms=, or return one value per example."
        )
    values = tf.cast(ratio.values, tf.float32)
    # what every replica computes alike is drawn by place: the same signs on all of them
    by_place = tf.range(tf.shape(values)[0])[:, tf.newaxis]
    drawn_by = by_place if ratio.alike else step.of_source(ratio.source).x
    keys = example_keys(drawn_by, index, step.step)
    values = tf.reshape(values, [tf.shape(keys)[0], -1])
    signs = tf.where(uniform(keys, tf.shape(values)[1]) > 0.5, 1.0, -1.0)
    # a square root has no slope at 0
    roots = tf.sqrt(tf.maximum(values, 1e-30))
    total = tf.reduce_sum(signs * tf.where(values > 1e-30, roots, 0.0))
    return total / program.placement.replicas if ratio.alike else total
