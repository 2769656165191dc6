"""Per-term gradients, a Jacobian: one row per balanced term over the variables they share."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from trainer.balancing.rows import (
    Ancestry,
    FactoredRows,
    Use,
    factored,
    pays,
    traced,
    uses_of,
)
from trainer.model.variables import tensor_variable
from trainer.optimizers.groups import matches
from trainer.step.gradients import Backward


def jacobian_and_rest(
    backward: Backward, positions, at, may_factor: bool = False
) -> tuple[dict, dict]:
    """The balanced terms' gradients of the shared variables, and all other gradients.

    Args:
      backward: whose share keeps its terms' parts apart.
      positions: int [m], where the balanced terms stand in the layout.
      at: of the balancer, see `shared_paths`.
      may_factor: whether rows may be kept as `FactoredRows`, where that is cheaper: where they
        are not summed over replicas or steps, and their Gramian alone is asked for.
    Returns:
      path -> [m, ...] or FactoredRows, of the shared variables; path -> gradient of the terms that
      are not balanced, and of the variables that one term alone reaches.
    """
    share, variables = backward.share, backward.trainables.variables
    uses = _factored_uses(backward, positions) if may_factor else {}
    reached = _gradients_by_term(backward, positions, uses)
    parameters = backward.trainables.parameters
    models = {p: variables[p] for p in backward.trainables.owners if p not in parameters}
    shared = shared_paths(at, models, reached)
    others = np.ones(len(share.layout.names), bool)
    others[positions] = False
    gradients = backward.gradients(only=shared, terms=others)
    gradients.update(backward.gradients(only=set(backward.trainables.owners) - set(shared)))
    rows: dict = {}
    for path in shared:
        by_term, variable = [of_term[path] for of_term in reached], variables[path]
        if path in uses:
            rows[path] = factored(uses[path], by_term, tensor_variable(variable))
        else:
            rows[path] = stacked(by_term, variable)
    return rows, gradients


def _factored_uses(backward: Backward, positions) -> dict[str, list[Use]]:
    """path -> the uses of a variable whose rows are cheaper as two factors."""
    share, parameters = backward.share, backward.trainables.parameters
    parts = [share.parts[i] for i in positions]
    if not traced(parts[0]):
        return {}
    ancestry = Ancestry(parts, share.constants)
    matrices = {path: v for path, v in backward.sources.items() if path not in parameters}
    found = {path: uses_of(ancestry, variable) for path, variable in matrices.items()}
    return {p: uses for p, uses in found.items() if pays(uses, matrices[p].shape, len(parts))}


def _gradients_by_term(backward: Backward, positions, uses: dict[str, list[Use]]) -> list[dict]:
    """For each balanced term path -> its gradient; None where it does not reach or not train.

    Of a variable with `uses` the list of those by their outputs, each None where it is not reached.
    """
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
        wanted = [[use.output for use in uses.get(path, ())] or [sources[path]] for path in paths]
        by_term = term_gradients(backward.tape, parts, scale, wanted)
        for of_term, position, gradients in zip(reached, positions, by_term, strict=True):
            for path, of_path in zip(paths, gradients, strict=True):
                signed = _signed(backward, path, of_path) if masks[path][position] else None
                of_term[path] = signed if signed is None or path in uses else signed[0]
    return reached


def _signed(backward: Backward, path: str, gradients: list) -> list | None:
    """The gradients as an optimizer wants them; None where none of them is there."""
    signed = [None if g is None else backward.signed(path, g) for g in gradients]
    return None if all(g is None for g in signed) else signed


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


def term_gradients(tape, parts: list, scale, sources: list) -> list:
    """For each term's part of the total, [], its gradients by `sources`; None where unreached.

    Args:
      tape: persistent.
      scale: float32 [], the loss scale, or None.
      sources: variables or tensors, or lists of them.
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
    """float64 [m, m], the inner products of the terms' gradients.

    Args:
      jacobian: rows [m, ...] or `FactoredRows`, of one variable each.
    """
    rows = list(jacobian)
    flats = flat_rows([each for each in rows if not isinstance(each, FactoredRows)])
    inner = [tf.matmul(flat, flat, transpose_b=True) for flat in flats]
    return tf.add_n([*inner, *(each.gramian() for each in rows if isinstance(each, FactoredRows))])
