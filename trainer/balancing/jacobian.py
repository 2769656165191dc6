"""Per-term gradients, a Jacobian: one row per balanced term over the variables they share."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from trainer.model.variables import tensor_variable
from trainer.optimizers.groups import matches
from trainer.step.gradients import Backward


def jacobian_and_rest(backward: Backward, positions, at) -> tuple[dict, dict]:
    """The balanced terms' gradients of the shared variables, and all other gradients.

    Args:
      backward: whose share keeps its terms' parts apart.
      positions: int [m], where the balanced terms stand in the layout.
      at: of the balancer, see `shared_paths`.
    Returns:
      path -> [m, ...] of the shared variables; path -> gradient of the terms that are not
      balanced, and of the variables that one term alone reaches.
    """
    share, variables = backward.share, backward.trainables.variables
    reached = _gradients_by_term(backward, positions)
    parameters = backward.trainables.parameters
    models = {p: variables[p] for p in backward.trainables.owners if p not in parameters}
    shared = shared_paths(at, models, reached)
    others = np.ones(len(share.layout.names), bool)
    others[positions] = False
    gradients = backward.gradients(only=shared, terms=others)
    gradients.update(backward.gradients(only=set(backward.trainables.owners) - set(shared)))
    rows = {p: stacked([of_term[p] for of_term in reached], variables[p]) for p in shared}
    return rows, gradients


def _gradients_by_term(backward: Backward, positions) -> list[dict]:
    """For each balanced term path -> its gradient; None where it does not reach or not train."""
    share = backward.share
    masks = {path: mask for (mask, _), paths in backward.passes.items() for path in paths}
    with backward.tape:
        parts = [share.parts[i] for i in positions]
        if share.accumulation is not None:
            counts = [share.accumulation[i] for i in positions]
            parts = [count * part for count, part in zip(counts, parts, strict=True)]
    sources = backward.sources
    reached: list[dict] = [{} for _ in positions]
    for scale, paths in backward.by_scale(sources):
        by_term = term_gradients(backward.tape, parts, scale, [sources[path] for path in paths])
        for of_term, position, gradients in zip(reached, positions, by_term, strict=True):
            for path, gradient in zip(paths, gradients, strict=True):
                trains = gradient is not None and masks[path][position]
                of_term[path] = backward.signed(path, gradient) if trains else None
    return reached


def shared_paths(at, variables: dict, reached: list[dict]) -> list[str]:
    """The variables whose gradient is balanced.

    Args:
      at: None, a pattern of paths, or a list of patterns, variables or layers.
      variables: path -> model variable.
      reached: for each term path -> gradient, None where the term does not reach.
    Returns:
      paths of variables that at least two terms reach.
    Raises:
      ValueError: `at` names no such variable.
    """
    several = [p for p in variables if sum(g[p] is not None for g in reached) > 1]
    if at is None:
        return several
    chosen = [path for path in several if matches(at, path, variables[path])]
    if not chosen:
        raise TermwiseError(
            f"at={at!r} names no variable that at least two of the balanced terms reach. These "
            f"are {', '.join(several) or 'none'}; a layer's name takes its output."
        )
    return chosen


def term_gradients(tape, parts: list, scale, sources: list) -> list[list]:
    """For each term's part of the total, [], its gradients by `sources`; None where unreached.

    Args:
      tape: persistent.
      scale: float32 [], the loss scale, or None.
      sources: variables or tensors.
    """
    gradients = []
    for part in parts:
        with tape:
            total = part if scale is None else part * scale
        gradients.append(tape.gradient(total, sources))
    return gradients


def stacked(gradients: list, variable) -> tf.Tensor:
    """[m, ...], one row per term, zeros where it does not reach a variable or tensor."""
    zeros = tf.zeros_like(tf.convert_to_tensor(tensor_variable(variable)))
    return tf.stack([zeros if g is None else tf.convert_to_tensor(g) for g in gradients])


def flat_rows(jacobian) -> list[tf.Tensor]:
    """float64 [m, n] each, of rows [m, ...]."""
    return [tf.reshape(tf.cast(rows, tf.float64), [tf.shape(rows)[0], -1]) for rows in jacobian]


def gramian(jacobian) -> tf.Tensor:
    """float64 [m, m], the inner products of the terms' gradients; of rows [m, ...] each."""
    return tf.add_n([tf.matmul(flat, flat, transpose_b=True) for flat in flat_rows(jacobian)])
