"""From the summed rows of a Jacobian to one direction, in every replica alike."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from losses.balancing.balancer import JacobianBalancer
from trainer.balancing.balanced_terms import BalancedTerms
from trainer.balancing.jacobian import flat_rows, gramian
from trainer.balancing.rows import FactoredRows
from trainer.model.variables import tensor_variable


class Direction(NamedTuple):
    """A balanced direction.

    gradients: path -> gradient.
    factors: float32 [m]; of a direction that no weights give, those that come nearest.
    statistic: what `Balancer.next_state` takes: float64 [m, m] Gramian or [m, n] Jacobian.
    """

    gradients: dict
    factors: tf.Tensor
    statistic: tf.Tensor


def balanced_direction(
    terms: BalancedTerms, jacobian: dict, values, step, active=None
) -> Direction:
    """The direction of summed rows.

    Args:
      terms: the balanced terms.
      jacobian: path -> [m, ...], unscaled, summed over the replicas; or `FactoredRows`, where the
        balancer needs their Gramian alone.
      values: float32 [m], the terms' weighted values.
      step: int64 [].
      active: bool [m], the terms that take part, or None: all do.
    """
    if terms.balancer.needs != "jacobian":
        statistic = gramian(jacobian.values())
    else:
        statistic = tf.concat(flat_rows(jacobian.values()), axis=1)
    if not isinstance(terms.balancer, JacobianBalancer):
        factors = terms.factors_of(statistic, values, step, active)
        return Direction(weighted_sum(jacobian, factors), factors, statistic)
    whole = terms.direction_of(statistic, values, step, active)
    sizes = [int(np.prod(rows.shape[1:])) for rows in jacobian.values()]
    gradients = {
        path: tf.cast(tf.reshape(part, rows.shape[1:]), rows.dtype)
        for part, (path, rows) in zip(tf.split(whole, sizes), jacobian.items(), strict=True)
    }
    inner = tf.matmul(statistic, statistic, transpose_b=True)
    nearest = tf.linalg.matvec(tf.linalg.pinv(inner), tf.linalg.matvec(statistic, whole))
    nearest = tf.cast(nearest, tf.float32)
    factors = nearest if active is None else tf.where(active, nearest, terms.factors_now())
    return Direction(gradients, factors, statistic)


def weighted_sum(jacobian: dict, factors) -> dict:
    """path -> the sum of its rows, [m, ...] or `FactoredRows`, weighted by the factors [m]."""
    gradients = {}
    for path, rows in jacobian.items():
        if isinstance(rows, FactoredRows):
            gradients[path] = rows.weighted(factors)
            continue
        weights = tf.unstack(tf.cast(factors, rows.dtype), num=rows.shape[0])
        # not one product of matrices: for that XLA would copy the rows side by side
        terms = [w * row for w, row in zip(weights, tf.unstack(rows), strict=True)]
        gradients[path] = tf.add_n(terms)
    return gradients


def unscaled(jacobian: dict, scales: dict) -> dict:
    """path -> its rows, [m, ...] or `FactoredRows`, over its loss scale: path -> []."""
    rows = {}
    for path, row in jacobian.items():
        scale = scales.get(path, 1.0)
        if isinstance(row, FactoredRows):
            rows[path] = row.over(scale)
        else:
            rows[path] = row / tf.cast(scale, row.dtype)
    return rows


def added_to(gradients: dict, direction: dict, scales: dict) -> dict:
    """The gradients plus the direction, which is multiplied by the loss scales: path -> []."""
    whole = dict(gradients)
    for path, value in direction.items():
        value = value * tf.cast(scales.get(path, 1.0), value.dtype)
        rest = gradients.get(path)
        whole[path] = value if rest is None else value + tf.convert_to_tensor(rest)
    return whole


def mirrored(strategy, variables: dict, gradients: dict) -> dict:
    """path -> the gradient on every device of its variable."""
    if strategy.num_replicas_in_sync == 1:
        return gradients
    inside = strategy.extended.variable_created_in_scope
    copies = {}
    for path, gradient in gradients.items():
        variable = tensor_variable(variables[path])
        if inside(variable):
            gradient = strategy.extended.broadcast_to(gradient, destinations=variable)
        copies[path] = gradient
    return copies


def local(strategy, values: dict) -> dict:
    """path -> the tensor on the first device: a sum over replicas is the same on every one."""
    return {p: strategy.experimental_local_results(value)[0] for p, value in values.items()}


def dense(strategy, gradients: dict) -> dict:
    """path -> the gradient on one device, not sparse: one form for both branches of a step."""
    return {p: tf.convert_to_tensor(gradient) for p, gradient in local(strategy, gradients).items()}
