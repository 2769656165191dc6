"""From the replicas' gradients to the run's: one sum of everything, then one mean of what moved."""

from __future__ import annotations

import tensorflow as tf

from trainer.moving import assign_means, moving_variables
from trainer.parameters import tensor_variable
from trainer.replica import Passed, Replica


def sum_over_replicas(strategy, replica: Replica, passed: Passed, first_pass: bool) -> Passed:
    """What every replica passed, summed, in cross-replica context.

    Moving statistics are given the mean of the replicas that had examples.

    Args:
      passed: of `Replica.train`, as `strategy.run` returns it.
      first_pass: whether its sums are each replica's own.
    Returns:
      Passed; its gradients are mirrored, the rest is this host's.
    """

    def local(value):
        return None if value is None else strategy.experimental_local_results(value)[0]

    moved = moving_variables(replica.trainer.model)
    # results of a traced function have lost their devices: without them, no efficient sum
    given = passed.gradients, passed.rows, passed.moving
    gradients, rows, moving = strategy.run(_identities, args=(given,))
    variables = [replica.trained.variables[path] for path in [*gradients, *rows]]
    variables = [tensor_variable(v) for v in [*variables, *(moved[path] for path in moving)]]
    values = [*gradients.values(), *rows.values(), *moving.values()]
    created_inside = strategy.extended.variable_created_in_scope
    pairs = [
        # a variable that is not mirrored names no devices; its gradient names its own
        (value, variable if created_inside(variable) else value)
        for value, variable in zip(values, variables, strict=True)
    ]
    summed = iter(strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, pairs))
    gradients, rows, means = ({p: next(summed) for p in part} for part in (gradients, rows, moving))
    sums = passed.sums
    if first_pass:
        sums = strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)
    sums = local(sums)
    assign_means(strategy, moved, means, sums[-1])
    inner = tf.nest.map_structure(local, passed.inner)
    return Passed(gradients, {}, sums, local(passed.raw), local(passed.weights), rows, inner)


def sum_rows(strategy, variables: dict, rows: dict) -> dict:
    """path -> the replicas' rows summed, in cross-replica context."""
    rows = strategy.run(_identities, args=(rows,))
    created_inside = strategy.extended.variable_created_in_scope
    pairs = []
    for path, value in rows.items():
        variable = tensor_variable(variables[path])
        pairs.append((value, variable if created_inside(variable) else value))
    summed = strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, pairs)
    return dict(zip(rows, summed, strict=True))


def _identities(values):
    return tf.nest.map_structure(tf.identity, values, expand_composites=True)
