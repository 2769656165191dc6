"""How a balancer weighs the terms of a step: one class for each kind, chosen before the trace."""

from __future__ import annotations

import tensorflow as tf

from losses.errors import TermwiseError
from trainer.balancing.balanced_terms import BalancedTerms
from trainer.balancing.direction import (
    added_to,
    balanced_direction,
    local,
    mirrored,
    unscaled,
)
from trainer.balancing.jacobian import gramian, jacobian_and_rest, stacked, term_gradients
from trainer.balancing.layer_output import LayerOutput, find_layer
from trainer.step.program import Discovery
from trainer.step.weighting import Weighting


class LastFactors(Weighting):
    """The factors of the last step that balanced.

    Args:
      terms: the balanced terms.
    """

    reads_values = True

    def __init__(self, terms: BalancedTerms):
        self.terms = terms

    def penalties(self, terms, weights_of):
        return self.terms.penalties(terms, weights_of)

    def before(self, weights, raw, step, absent=None):
        return self.terms.times(weights, self.terms.factors_now()), None

    def differentiate(self, backward, weights, raw, decided):
        return backward.gradients(), {}, weights, decided

    def evaluation_weights(self, layout, weights):
        return self.terms.times_in(layout, weights)


class ValueWeighting(LastFactors):
    """Factors of the values alone, before the gradients are taken."""

    def before(self, weights, raw, step, absent=None):
        terms = self.terms
        values, active = terms.values(weights, raw), terms.active(weights, absent)

        def now():
            return terms.factors_of(None, values, step, active)

        factors = now() if terms.balancer.trained else terms.when_due(step, now)
        return terms.times(weights, factors), (factors, values, active)

    def finish(self, result, scales, step, probe):
        factors, values, active = result.decided
        self.terms.remember_values(values, factors, step, active)
        return result


class TraceWeighting(LastFactors):
    """Factors of the traces of the terms' residual gradients, for the steps that follow.

    Args:
      terms, strategy: as in `JacobianWeighting`.
    """

    def __init__(self, terms: BalancedTerms, strategy):
        super().__init__(terms)
        self._strategy = strategy

    def before(self, weights, raw, step, absent=None):
        return super().before(weights, raw, step)[0], self.terms.active(weights, absent)

    def finish(self, result, scales, step, probe):
        active = result.decided

        def measure():
            rows = local(self._strategy, probe())
            traces = tf.linalg.diag_part(gramian(rows.values()))
            factors = self.terms.factors_of(traces, None, step, active)
            self.terms.remember_gradients(traces, traces, factors, step, active)
            return tf.constant(True)

        # residuals are those before this step's update; they weigh the steps that follow
        tf.cond(self.terms.due(step), measure, lambda: tf.constant(False))
        return result


class JacobianWeighting(LastFactors):
    """A direction of the terms' gradients by shared variables, after the sum over the replicas.

    Args:
      terms: the balanced terms.
      strategy: the run's strategy.
      discovery: of the run: whose variables have the gradients.
      accumulation: steps of one update.
    """

    jacobian = True

    def __init__(self, terms: BalancedTerms, strategy, discovery: Discovery, accumulation: int):
        super().__init__(terms)
        self._strategy = strategy
        self._discovery = discovery
        self._accumulation = accumulation
        self._accumulated: dict[str, tf.Variable] = {}  # path -> rows of accumulated steps

    @property
    def accumulated(self):
        return self._accumulated

    @property
    def in_one_pass(self):
        return LastFactors(self.terms)

    @property
    def otherwise(self):
        # accumulated rows need those of every step
        alternates = self.terms.balancer.every > 1 and self._accumulation == 1
        return LastFactors(self.terms) if alternates else None

    def due(self, step):
        return self.terms.due(step)

    def before(self, weights, raw, step, absent=None):
        return weights, None

    def differentiate(self, backward, weights, raw, decided):
        terms = self.terms
        balancer = terms.balancer
        # rows of several replicas, or of accumulated steps, are summed before their Gramian
        alone = self._strategy.num_replicas_in_sync == 1 and self._accumulation == 1
        rows, gradients = jacobian_and_rest(
            backward, terms.positions, balancer.at, alone and balancer.needs == "gramian"
        )
        return gradients, rows, weights, None

    def make_accumulated(self, jacobian):
        if self._accumulation > 1:
            with self._strategy.scope():
                for path, rows in local(self._strategy, jacobian).items():
                    zeros = tf.zeros(rows.shape, rows.dtype)
                    name = f"rows/{path}"
                    self._accumulated[path] = tf.Variable(zeros, trainable=False, name=name)
        return self._accumulated

    def finish(self, result, scales, step, probe):
        values = self.terms.values(result.weights, result.raw)
        shared = {p: g for p, g in result.gradients.items() if p in result.jacobian}
        shared, rows = local(self._strategy, shared), local(self._strategy, result.jacobian)
        active = self.terms.active(result.weights, result.absent)
        gradients, factors = self._direct(shared, rows, values, scales, step, active)
        gradients = mirrored(self._strategy, self._discovery.trainables_found.variables, gradients)
        return result._replace(
            gradients={**result.gradients, **gradients},
            jacobian={},
            weights=self.terms.times(result.weights, factors),
        )

    def _direct(self, gradients, rows, values, scales, step, active):
        """The shared variables' gradients with the direction in them, and float32 [m] factors."""
        rows = unscaled(rows, scales)
        if not rows:  # no variable is shared: nothing to balance
            return gradients, tf.ones_like(values)
        if self._accumulation > 1:
            direction, factors = self._accumulated_direction(rows, values, step, active)
        else:
            direction, factors, statistic = balanced_direction(
                self.terms, rows, values, step, active
            )
            self.terms.remember_gradients(statistic, values, factors, step, active)
        return added_to(gradients, direction, scales), factors

    def _accumulated_direction(self, rows, values, step, active):
        """The direction of the accumulated rows at the last of their steps, nothing before.

        The optimizer takes the mean over these steps of what it is given. A term takes part where
        the last of them has it, or where one before has left a gradient.
        """
        every, terms = self._accumulation, self.terms
        for path, row in rows.items():
            self._accumulated[path].assign_add(row / every)

        def last():
            means = {path: tf.convert_to_tensor(self._accumulated[path]) for path in rows}
            among = active
            if among is not None:
                among |= tf.linalg.diag_part(gramian(means.values())) > 0
            direction, factors, statistic = balanced_direction(
                terms, means, values, step // every, among
            )
            terms.remember_gradients(statistic, values, factors, step // every, among)
            for path in rows:
                self._accumulated[path].assign(tf.zeros_like(rows[path]))
            return {path: every * value for path, value in direction.items()}, factors

        def before():
            zeros = {path: tf.zeros_like(row[0]) for path, row in rows.items()}
            return zeros, terms.factors_now()

        return tf.cond(tf.equal((step + 1) % every, 0), last, before)


class LayerWeighting(JacobianWeighting):
    """Factors of the Gramian of the terms' gradients with respect to a layer's outputs.

    The replicas' outputs are other examples, so that their Gramians add up; the factors are known
    before the gradients by variables are taken, which then cost one backward pass.

    Args:
      terms, strategy, discovery, accumulation: as in `JacobianWeighting`.
      layer: whose outputs.
    """

    def __init__(self, terms, strategy, discovery, accumulation, layer):
        super().__init__(terms, strategy, discovery, accumulation)
        self._output = LayerOutput(layer)

    def before(self, weights, raw, step, absent=None):
        return weights, self.terms.active(weights, absent)

    def lent(self):
        return self._output.lent()

    def tap(self, tape):
        return self._output.recorded(tape)

    def differentiate(self, backward, weights, raw, decided):
        terms, share, outputs = self.terms, backward.share, backward.tapped
        parts = [share.parts[i] for i in terms.positions]
        by_term = term_gradients(backward.tape, parts, None, list(outputs))
        rows = [
            stacked(list(gradients), output)
            for gradients, output in zip(zip(*by_term, strict=True), outputs, strict=True)
        ]
        inner = backward.sum_over_replicas(gramian(rows))
        values, step, active = terms.values(weights, raw), backward.step, decided
        factors = terms.when_due(step, lambda: terms.factors_of(inner, values, step, active))
        with backward.tape:
            weighed = share.times(terms.times(tf.ones_like(share.weight_part), factors))
        below = _reaching(backward, outputs)
        gradients = backward.gradients(weighed, only=below)
        gradients.update(backward.gradients(only=set(backward.trainables.owners) - below))
        return gradients, {}, terms.times(weights, factors), (factors, inner, values, active)

    def finish(self, result, scales, step, probe):
        factors, statistic, values, active = result.decided
        self.terms.remember_gradients(statistic, values, factors, step, active)
        return result


def _reaching(backward, outputs) -> set[str]:
    """The paths of the variables on which the outputs depend."""
    with backward.tape:
        total = tf.add_n([tf.reduce_sum(output) for output in outputs])
    sources = backward.sources
    gradients = backward.tape.gradient(total, list(sources.values()))
    return {path for path, g in zip(sources, gradients, strict=True) if g is not None}


def choose_weighting(
    terms: BalancedTerms, model, strategy, discovery: Discovery, accumulation: int
) -> Weighting:
    """The weighting of a balancer.

    Args:
      terms: the balanced terms.
      model: in which a layer that the balancer names is looked up.
      strategy, discovery, accumulation: as in `JacobianWeighting`.
    Raises:
      ValueError: the balancer needs gradients by variables, and names a layer.
    """
    balancer = terms.balancer
    if balancer.needs == "values":
        return ValueWeighting(terms)
    if balancer.needs == "traces":
        return TraceWeighting(terms, strategy)
    layer = find_layer(model, balancer.at)
    if layer is None:
        return JacobianWeighting(terms, strategy, discovery, accumulation)
    if balancer.needs == "jacobian":
        raise TermwiseError(
            f"{balancer!r} needs gradients by variables: at= takes a pattern of "
            "variable paths or a list of variables, not a layer."
        )
    return LayerWeighting(terms, strategy, discovery, accumulation, layer)
