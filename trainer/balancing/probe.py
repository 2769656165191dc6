"""The terms' gradients one by one, from a pass that changes nothing; on one replica."""

from __future__ import annotations

import tensorflow as tf

from losses.errors import TermwiseError
from losses.example_random import example_keys, uniform
from trainer.balancing.jacobian import stacked, term_gradients
from trainer.distributed.reduce import sum_in_replica
from trainer.model.variables import tensor_variable
from trainer.step.forward import Forward, stateless_forward
from trainer.step.program import StepProgram


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
    return _rows(program, tape, parts)


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
    return _rows(program, tape, parts)


def _rows(program: StepProgram, tape, parts) -> dict[str, tf.Tensor]:
    trainables = program.trainables
    sources = {p: tensor_variable(trainables.variables[p]) for p in trainables.owners}
    by_term = term_gradients(tape, parts, None, list(sources.values()))
    return {
        path: stacked(list(gradients), source)
        for (path, source), gradients in zip(
            sources.items(), zip(*by_term, strict=True), strict=True
        )
    }


def _signed_residuals(program: StepProgram, forward: Forward, name: str, index: int) -> tf.Tensor:
    """float32 [], the sum of one term's residuals under random signs."""
    ratio, step = forward.terms[name], forward.step
    if ratio.values is None:
        raise TermwiseError(
            f"Term {name!r} gives no value per example, so its residuals are unknown. Leave it "
            "out by the balancer's terms=, or return one value per example."
        )
    values = tf.cast(ratio.values, tf.float32)
    # what every replica computes alike is drawn by place: the same signs on all of them
    drawn_by = tf.range(tf.shape(values)[0])[:, tf.newaxis] if ratio.alike else step.x
    keys = example_keys(drawn_by, index, step.step)
    values = tf.reshape(values, [tf.shape(keys)[0], -1])
    signs = tf.where(uniform(keys, tf.shape(values)[1]) > 0.5, 1.0, -1.0)
    # a square root has no slope at 0
    roots = tf.sqrt(tf.maximum(values, 1e-30))
    total = tf.reduce_sum(signs * tf.where(values > 1e-30, roots, 0.0))
    return total / program.placement.replicas if ratio.alike else total
