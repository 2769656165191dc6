"""Per-term gradients, a Jacobian: one row per balanced term over the variables they share."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from trainer.balancing.rows import FactoredRows, shared_rows
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
    parameters = backward.trainables.parameters
    models = {p: variables[p] for p in backward.trainables.owners if p not in parameters}
    parts = _parts(backward, positions)
    together = _rows_together(backward, positions, parts, models, may_factor)
    if together is not None:
        reached = [
            {p: True if p in together and i in together[p][0] else None for p in models}
            for i, _ in enumerate(parts)
        ]
    else:
        reached = _gradients_by_term(backward, positions, parts)
    shared = shared_paths(at, models, reached)
    others = np.ones(len(share.layout.names), bool)
    others[positions] = False
    gradients = backward.gradients(only=shared, terms=others)
    gradients.update(backward.gradients(only=set(backward.trainables.owners) - set(shared)))
    rows: dict = {}
    for path in shared:
        if together is not None:
            rows[path] = together[path][1]
        else:
            rows[path] = stacked([of_term[path] for of_term in reached], variables[path])
    return rows, gradients


def _parts(backward: Backward, positions) -> list:
    """The balanced terms' parts of the total, by what they count among accumulated steps."""
    share = backward.share
    with backward.tape:
        parts = [share.parts[i] for i in positions]
        if share.accumulation is not None:
            counts = [share.accumulation[i] for i in positions]
            parts = [count * part for count, part in zip(counts, parts, strict=True)]
    return parts


def _rows_together(backward: Backward, positions, parts, models, may_factor: bool):
    """`shared_rows` of the model's variables; None: the terms are differentiated one by one.

    So they are under loss scales, which would have to be known apart, and where a term does not
    train all that it reaches.
    """
    masks = {path: mask for (mask, _), paths in backward.passes.items() for path in paths}
    partly = not all(all(masks[path][i] for i in positions) for path in models)
    rises = any(getattr(variable, "maximize", False) for variable in models.values())
    if backward.scales is not None or partly or rises:
        return None
    sources = {path: tensor_variable(variable) for path, variable in models.items()}
    return shared_rows(backward.tape, parts, backward.share.constants, sources, may_factor)


def _gradients_by_term(backward: Backward, positions, parts) -> list[dict]:
    """For each balanced term path -> its gradient; None where it does not reach or not train."""
    masks = {path: mask for (mask, _), paths in backward.passes.items() for path in paths}
    sources = backward.sources
    reached: list[dict] = [{} for _ in positions]
    for scale, paths in backward.by_scale(sources):
        by_term = term_gradients(backward.tape, parts, scale, [sources[path] for path in paths])
        for of_term, position, gradients in zip(reached, positions, by_term, strict=True):
            for path, g in zip(paths, gradients, strict=True):
                there = g is not None and masks[path][position]
                of_term[path] = backward.signed(path, g) if there else None
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
