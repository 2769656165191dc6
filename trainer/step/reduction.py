"""From the replicas' results to the run's: one sum of everything, then the mean of what moved."""

from __future__ import annotations

import tensorflow as tf

from trainer.distributed.reduce import destinations, on_devices, sum_all
from trainer.step.moving_statistics import assign_means, moving_variables
from trainer.step.outputs import ReplicaResult
from trainer.step.program import StepProgram
from trainer.step.reducers import choose_reducer


def sum_results(program: StepProgram, weighting, result: ReplicaResult) -> ReplicaResult:
    """What every replica left, summed, in cross-replica context; `raw` is valid in it.

    Args:
      program: what was traced.
      weighting: of the pass.
      result: of `train_replica`, as `strategy.run` returns it.
    Returns:
      ReplicaResult; its gradients and jacobian as of `sum_all`, the rest is this host's.
    """
    placement, layout = program.placement, program.layout
    deferred = choose_reducer(placement, layout, weighting.reads_values).deferred
    if placement.replicas > 1:
        result = _summed(program, result, deferred)
    if not deferred:
        return result
    sums, size = result.sums, layout.size
    return result._replace(raw=layout.raw(sums[:size], sums[size : 2 * size]))


def _summed(program: StepProgram, result: ReplicaResult, deferred: bool) -> ReplicaResult:
    strategy = program.placement.strategy

    def local(value):
        return None if value is None else strategy.experimental_local_results(value)[0]

    moved = moving_variables(strategy, program.model, program.places())
    parts = result.gradients, result.jacobian, result.moving, result.sums
    gradients, jacobian, moving, sums = on_devices(strategy, parts)
    trained = program.trainables.variables
    variables = [trained[path] for path in [*gradients, *jacobian]]
    variables += [moved[path] for path in moving]
    values = [*gradients.values(), *jacobian.values(), *moving.values()]
    targets = destinations(strategy, values, variables)
    if deferred:  # each replica's own sums go with the gradients
        values, targets = [*values, sums], [*targets, sums]
    summed = iter(sum_all(strategy, values, targets))
    gradients, jacobian, means = (
        {path: next(summed) for path in part} for part in (gradients, jacobian, moving)
    )
    sums = local(next(summed) if deferred else sums)
    assign_means(strategy, moved, means, sums[-1])
    return ReplicaResult(
        gradients,
        {},
        sums,
        local(result.raw),
        local(result.weights),
        jacobian,
        tf.nest.map_structure(local, result.decided),
    )
