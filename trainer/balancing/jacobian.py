"""Per-term gradients: one row per balanced term over the shared variables, and their direction."""

from __future__ import annotations

import contextlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from losses.objective.layers import layers_of
from trainer.balancing.balancing import Balancing
from trainer.model.variables import tensor_variable
from trainer.optimizers.groups import matches


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
    found = [path for path in several if matches(at, path, variables[path])]
    if not found:
        raise TermwiseError(
            f"at={at!r} names no variable that at least two of the balanced terms reach. These "
            f"are {', '.join(several) or 'none'}; a layer's name takes its output."
        )
    return found


def find_layer(model, at):
    """The layer whose output `at` means, or None where it means variables."""
    if isinstance(at, keras.Layer):
        return at
    if isinstance(at, str):
        for layer in layers_of(model):
            if at in (layer.name, getattr(layer, "path", None)):
                return layer
    return None


@contextlib.contextmanager
def recorded(layer, tape):
    """While it is open, the outputs of a layer are kept, and watched by the tape.

    Yields:
      list of tensors, filled by the layer's calls.
    """
    outputs: list[tf.Tensor] = []
    if layer is None:
        yield outputs
        return
    call = layer.call

    def recording(*args, **arguments):
        result = call(*args, **arguments)
        flat = [tf.identity(tensor) for tensor in tf.nest.flatten(result)]
        for tensor in flat:
            tape.watch(tensor)
        outputs.extend(flat)
        return tf.nest.pack_sequence_as(result, flat)

    layer.call = recording
    try:
        yield outputs
    finally:
        layer.call = call


def term_gradients(tape, parts: list, scale, sources) -> list[list]:
    """For each term's part of the total its gradients by `sources`; None where unreached."""
    found = []
    for part in parts:
        with tape:
            total = part if scale is None else part * scale
        found.append(tape.gradient(total, sources))
    return found


def stacked(gradients: list, variable) -> tf.Tensor:
    """[m, ...], one row per term, zeros where it does not reach a variable or tensor."""
    zeros = tf.zeros_like(tf.convert_to_tensor(tensor_variable(variable)))
    return tf.stack([zeros if g is None else tf.convert_to_tensor(g) for g in gradients])


def flat_rows(rows) -> list[tf.Tensor]:
    """float64 [m, n] each, of rows [m, ...]."""
    return [tf.reshape(tf.cast(row, tf.float64), [tf.shape(row)[0], -1]) for row in rows]


def gramian(rows) -> tf.Tensor:
    """float64 [m, m], the inner products of the terms' gradients."""
    return tf.add_n([tf.matmul(flat, flat, transpose_b=True) for flat in flat_rows(rows)])


def direct(balancing: Balancing, rows: dict, values, step):
    """The balanced direction of summed rows.

    Args:
      rows: path -> [m, ...], unscaled.
    Returns:
      path -> gradient; float32 [m] factors, for a direction that no weights give the nearest
      ones; the statistic for `remember`.
    """
    balancer: Any = balancing.balancer
    if balancer.needs != "jacobian":
        statistic = gramian(rows.values())
        factors = balancing.of_gradients(statistic, values, step)
        return combined(rows, factors), factors, statistic
    statistic = tf.concat(flat_rows(rows.values()), axis=1)
    if hasattr(balancer, "weights"):
        factors = balancing.of_gradients(statistic, values, step)
        return combined(rows, factors), factors, statistic
    whole = balancer.direction(statistic, balancing.state_now(), values=values, step=step)
    sizes = [int(np.prod(row.shape[1:])) for row in rows.values()]
    parts = tf.split(whole, sizes)
    direction = {
        path: tf.cast(tf.reshape(part, row.shape[1:]), row.dtype)
        for part, (path, row) in zip(parts, rows.items(), strict=True)
    }
    inner = tf.matmul(statistic, statistic, transpose_b=True)
    nearest = tf.linalg.matvec(tf.linalg.pinv(inner), tf.linalg.matvec(statistic, whole))
    return direction, tf.cast(nearest, tf.float32), statistic


def combined(rows: dict, factors) -> dict:
    """path -> the rows' sum weighted by the factors [m]."""
    found = {}
    for path, row in rows.items():
        each = tf.unstack(tf.cast(factors, row.dtype), num=row.shape[0])
        # not one product of matrices: for that XLA would copy the rows side by side
        found[path] = tf.add_n([f * r for f, r in zip(each, tf.unstack(row), strict=True)])
    return found
