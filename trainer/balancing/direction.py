"""A balanced step: the summed rows become one direction, in every replica alike."""

from __future__ import annotations

import tensorflow as tf

from trainer.balancing.balancing import Balancing
from trainer.balancing.jacobian import direct, gramian
from trainer.model.variables import tensor_variable
from trainer.step.replica import Passed


class BalancedStep:
    """What comes after the sum over the replicas, where a balancer is at work.

    Args:
      balancing: the run's.
      strategy: the run's strategy.
      accumulation: steps of one update.
    """

    def __init__(self, balancing: Balancing, strategy, accumulation: int):
        self.balancing = balancing
        self.strategy = strategy
        self.accumulation = accumulation
        self.held: dict[str, tf.Variable] = {}  # path -> accumulated rows

    def hold(self, rows: dict) -> None:
        """Makes the variables that accumulate rows, before the step is traced.

        Args:
          rows: path -> tensor or spec, [balanced terms, ...].
        """
        if self.accumulation == 1:
            return
        with self.strategy.scope():
            for path, given in rows.items():
                row = self.strategy.experimental_local_results(given)[0]
                zeros = tf.zeros(row.shape, row.dtype)
                self.held[path] = tf.Variable(zeros, trainable=False, name=f"rows/{path}")

    def finish(self, passed: Passed, variables: dict, scales, step) -> Passed:
        """The step's gradients with the balanced direction in them, and its final weights.

        Args:
          passed: summed over the replicas.
          variables: path -> variable.
          scales: float32 [optimizers], the loss scales, or None.
          step: int64 [], the global step.
        """
        balancing = self.balancing
        values = balancing.values(passed.weights, passed.raw)
        if passed.inner is not None:  # decided on the way
            factors, statistic = passed.inner
            if balancing.by_values:
                given = passed.weights / balancing.weighted(tf.ones_like(passed.weights), factors)
                values = balancing.values(given, passed.raw)
            balancing.remember(statistic, values, factors, step)
            return passed
        shared = {p: g for p, g in passed.gradients.items() if p in passed.rows}
        shared, rows = self._local(shared), self._local(passed.rows)
        direction, factors = self._direct(shared, rows, values, scales, step)
        gradients = {**passed.gradients, **mirrored(self.strategy, variables, direction)}
        weights = balancing.weighted(passed.weights, factors)
        return passed._replace(gradients=gradients, rows={}, weights=weights)

    def trace(self, loops, batch, totals, step) -> None:
        """Derives the factors from the traces of the terms' residual gradients."""
        rows = self._local(loops.probe(batch, totals, residuals=True))
        traces = tf.linalg.diag_part(gramian(rows.values()))
        factors = self.balancing.of_gradients(traces, None, step)
        self.balancing.remember(traces, traces, factors, step)

    def _local(self, held: dict) -> dict:
        # the sum is the same on every device; one of them works, and all get its result
        return {p: self.strategy.experimental_local_results(v)[0] for p, v in held.items()}

    def _direct(self, gradients, rows, values, scales, step):
        scale = 1.0 if scales is None else scales[0]
        rows = {p: row / tf.cast(scale, row.dtype) for p, row in rows.items()}
        if not rows:  # no variable is shared: nothing to balance
            return gradients, tf.ones_like(values)
        if self.accumulation > 1:
            direction, factors = self._accumulated(rows, values, step)
        else:
            direction, factors, statistic = direct(self.balancing, rows, values, step)
            self.balancing.remember(statistic, values, factors, step)
        return joined(gradients, direction, scale), factors

    def _accumulated(self, rows, values, step):
        """The direction of the window's rows at its last step, nothing before.

        The optimizer takes the mean over the window's steps of what it is given.
        """
        every = self.accumulation
        for path, row in rows.items():
            self.held[path].assign_add(row / every)

        def last():
            whole = {path: tf.convert_to_tensor(self.held[path]) for path in rows}
            direction, factors, statistic = direct(self.balancing, whole, values, step // every)
            self.balancing.remember(statistic, values, factors, step // every)
            for path in rows:
                self.held[path].assign(tf.zeros_like(rows[path]))
            return {path: every * value for path, value in direction.items()}, factors

        def before():
            nothing = {path: tf.zeros_like(row[0]) for path, row in rows.items()}
            return nothing, tf.convert_to_tensor(self.balancing.factors)

        return tf.cond(tf.equal((step + 1) % every, 0), last, before)


def mirrored(strategy, variables: dict, gradients: dict) -> dict:
    """path -> the gradient on every device of its variable."""
    if strategy.num_replicas_in_sync == 1:
        return gradients
    inside = strategy.extended.variable_created_in_scope
    found = {}
    for path, gradient in gradients.items():
        variable = tensor_variable(variables[path])
        if inside(variable):
            gradient = strategy.extended.broadcast_to(gradient, destinations=variable)
        found[path] = gradient
    return found


def joined(gradients: dict, direction: dict, scale) -> dict:
    """The other gradients plus the direction, times the loss scale."""
    whole = dict(gradients)
    for path, value in direction.items():
        value = value * tf.cast(scale, value.dtype)
        rest = gradients.get(path)
        whole[path] = value if rest is None else value + tf.convert_to_tensor(rest)
    return whole


def dense(strategy, gradients: dict) -> dict:
    """path -> the gradient on one device, not sparse: one form for both branches of a step."""
    local = {p: strategy.experimental_local_results(g)[0] for p, g in gradients.items()}
    return {path: tf.convert_to_tensor(gradient) for path, gradient in local.items()}
