"""The traced passes of a step: sums, gradients, rows, probes; summed over the replicas."""

from __future__ import annotations

import functools

import tensorflow as tf

from losses.errors import TermwiseError
from trainer.balancing.diagnostics import Diagnostics
from trainer.balancing.direction import BalancedStep, dense, mirrored
from trainer.balancing.probe import probe
from trainer.data.batch import examples_in
from trainer.distributed.reduce import sum_over_replicas, sum_rows
from trainer.model.variables import tensor_variable
from trainer.step.replica import Passed, Record

LANES = 16  # parts of a long sum that are added up side by side


class Passes:
    """What every replica does, traced once, and what is made of it over all replicas.

    Args:
      trainer: whose `step`, `objective` and `strategy` are used.
      replica: the part that runs on every replica.
      jit_compile: compile with XLA; on several replicas the replica's part alone.
      skipping: leave out steps that are not finite.
      diagnostics: of the terms' gradients, or None.
    """

    def __init__(self, trainer, replica, *, jit_compile=False, skipping=False, diagnostics=None):
        self.trainer = trainer
        self.replica = replica
        self.strategy = trainer.strategy
        self.jit_compile = jit_compile
        self.skipping = skipping
        # nothing compiled by XLA can wait for another replica: the sums need a pass of their own
        self.first_pass = jit_compile and self.strategy.num_replicas_in_sync > 1
        self.train_traces = 0
        self.balanced: BalancedStep | None = None
        self.diagnostics: Diagnostics | None = diagnostics
        self.prepared = False
        self._traced_variables: tuple = ()
        self.forget_steps()

    def forget_steps(self) -> None:
        """Drops the traces of the training step: what is constant in them has changed."""
        self._gradients = tf.function(self._replica_gradients, autograph=False)
        self._rows = tf.function(self._replica_rows, autograph=False)
        self._sums = tf.function(self._replica_sums, autograph=False)
        self._window: tf.Tensor | None = None  # of the step being traced

    def compute_gradients(self, batch):
        """path -> gradient summed over the replicas, and the Record; in cross-replica context."""
        replica = self.replica
        scales = replica.optimizers.scales()
        totals = self.sums(batch) if self.first_pass else None
        passed = self._passed(batch, scales, totals)
        if self.jit_compile and not self.first_pass:
            variables = self.replica.trained.variables
            gradients = {
                path: _of_static_shape(gradient, variables[path].shape)
                for path, gradient in passed.gradients.items()
            }
            passed = passed._replace(gradients=gradients)
        raw, weights = passed.raw, passed.weights
        if self.diagnostics is not None:
            step, diagnostics = tf.convert_to_tensor(self.trainer.step), self.diagnostics
            rows = functools.partial(self.probe, batch, totals)
            self._when(diagnostics.due(step), lambda: diagnostics.measure(rows(), weights, step))
        norm = self._norm([self._local(g) for g in passed.gradients.values()])
        if scales is not None:
            norm /= scales[0]
        examples = passed.sums[-2]
        if self.replica.replicas == 1:  # of static batches a constant
            examples = tf.cast(examples_in(batch), tf.float32)
        return passed.gradients, Record(raw, weights, weights * raw, examples, norm)

    def _norm(self, gradients):
        """float32 [], the norm of all gradients together."""
        if not self.jit_compile or any(isinstance(g, tf.IndexedSlices) for g in gradients):
            return tf.linalg.global_norm([_in_float32(g) for g in gradients])
        return tf.sqrt(tf.add_n([_square_sum(tf.reshape(_in_float32(g), [-1])) for g in gradients]))

    def _passed(self, batch, scales, totals) -> Passed:
        """The forward and backward pass, summed over the replicas, balanced where one balances."""
        balanced, step = self.balanced, tf.convert_to_tensor(self.trainer.step)
        if balanced is None:
            return self._pass(self._gradients, batch, scales, totals)
        balancing, variables = balanced.balancing, self.replica.trained.variables

        def plain(function=self._gradients):
            return self._pass(function, batch, scales, totals)

        def rows(function=self._rows):
            passed = self._pass(function, batch, scales, totals)
            return balanced.finish(passed, variables, scales, step)

        if balancing.by_traces:
            passed = plain()
            # of residuals before this step's update; they weigh the steps that follow
            self._when(balancing.due(step), lambda: balanced.trace(self, batch, totals, step))
            return passed
        if balancing.by_values:
            return balanced.finish(plain(), variables, scales, step)
        if balancing.balancer.every == 1 or balanced.accumulation > 1:
            return rows()

        def one_form(passed):
            gradients = dense(self.strategy, passed.gradients)
            return passed._replace(gradients=gradients, rows={}, inner=None)

        # traced in place: a function that holds collectives cannot be called in a branch
        passed = tf.cond(
            balancing.due(step),
            lambda: one_form(rows(self._replica_rows)),
            lambda: one_form(plain(self._replica_gradients)),
        )
        return passed._replace(gradients=mirrored(self.strategy, variables, passed.gradients))

    def _when(self, due, function) -> None:
        def run():
            function()
            return tf.constant(True)

        tf.cond(due, run, lambda: tf.constant(False))

    def plain_pass(self, batch, totals=None) -> Passed:
        """One forward and backward pass of a batch, for a look at it; it is not applied."""
        return self._pass(self._gradients, batch, self.replica.optimizers.scales(), totals)

    def _pass(self, function, batch, scales, totals) -> Passed:
        passed = function(batch, scales, totals, self._window)
        replica, layout = self.replica, self.replica.layout
        late = self.first_pass or replica.adds_late(layout)
        if replica.replicas > 1:
            passed = sum_over_replicas(self.strategy, replica, passed, late)
        if late:
            sums, size = passed.sums, layout.size
            passed = passed._replace(raw=layout.raw(sums[:size], sums[size : 2 * size]))
        return passed

    def probe(self, batch, totals, residuals=False) -> dict:
        """The terms' gradients one by one, summed over the replicas; nothing is changed.

        Args:
          batch: the global batch.
          totals: of `sums` where XLA compiles several replicas' passes, else None.
          residuals: gradients of residuals under random signs, instead of the terms'.
        Returns:
          path -> rows [terms, ...], mirrored.
        """
        rows = self._replica_probe(batch, totals, residuals)
        if self.replica.replicas == 1:
            return rows
        return sum_rows(self.strategy, self.replica.trained.variables, rows)

    def _replica_probe(self, batch, totals, residuals):
        one = functools.partial(probe, self.replica, residuals=residuals)

        def run(batch, totals):
            return self._on_replica(one)(*self.replica.share(batch), totals)

        return self._run(run, (batch, totals))

    def sums(self, batch):
        """`Replica.sums` over all replicas, float32 [2K + 2]; in cross-replica context."""
        sums = self._sums(batch)
        if self.replica.replicas > 1:
            sums = self.strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)
        return sums

    def _replica_gradients(self, batch, scales, totals, window):
        self.train_traces += 1
        return self._train(batch, scales, totals, window)

    def _replica_rows(self, batch, scales, totals, window):
        self.train_traces += 1
        return self._train(batch, scales, totals, window, rows=True)

    def _train(self, *given, rows=False):
        train = functools.partial(self.replica.train, rows=rows)

        def run(batch, *given):
            return self._on_replica(train)(*self.replica.share(batch), *given)

        return self._run(run, given)

    def _replica_sums(self, batch):
        def run(batch):
            return self._on_replica(self.replica.sums)(*self.replica.share(batch))

        return self._run(run, (batch,))

    def _on_replica(self, function):
        if not self.first_pass:
            return function
        return tf.function(function, jit_compile=True, autograph=False)

    def _run(self, function, arguments):
        return self.strategy.run(function, args=arguments)

    @property
    def _window_spec(self):
        return tf.TensorSpec([len(self.replica.layout.names)], tf.float32)

    def _local(self, gradient):
        return self.strategy.experimental_local_results(gradient)[0]

    def prepare(self, source) -> None:
        """Traces the forward and backward pass: finds the terms and the loss parameters."""
        self.replica.per_host = source.per_host
        self.replica.randomness.prepare()
        scales = self.replica.optimizers.scales()
        scales = None if scales is None else tf.TensorSpec(scales.shape, scales.dtype)
        try:
            totals = window = None
            accumulates = self.replica.optimizers.accumulation > 1
            balancing = self.replica.balancing
            if self.first_pass or accumulates or balancing or self.diagnostics:
                sums = self._sums.get_concrete_function(source.element_spec).structured_outputs
                shape = self._local(sums).shape
                totals = tf.TensorSpec(shape, tf.float32) if self.first_pass else None
                if self.diagnostics is not None:
                    self.diagnostics.build(self.replica.layout)
                if balancing is not None:
                    balancing.build(self.replica.layout)
                    accumulation = self.replica.optimizers.accumulation
                    self.balanced = BalancedStep(balancing, self.strategy, accumulation)
                    if balancing.balancer.trained:  # which adds terms of its own
                        self._sums = tf.function(self._replica_sums, autograph=False)
                        self._sums.get_concrete_function(source.element_spec)
                window = self._window_spec if accumulates else None
            given = source.element_spec, scales, totals, window
            # what balances may take only one of the two
            one_pass = balancing is None or balancing.by_values or balancing.by_traces
            wanted = self._gradients if one_pass else self._rows
            traced = wanted.get_concrete_function(*given)
            self._traced_variables = traced.variables
            if self.balanced is not None:
                self.balanced.hold(traced.structured_outputs.rows)
            self.prepared = True
        except ValueError as error:
            if "tf.function only supports singleton tf.Variables" not in str(error):
                raise
            where = " ".join(getattr(error, "__notes__", ()))
            raise TermwiseError(
                "A variable is made anew at each call of a loss or term, so it could never be "
                f"trained or saved {where}. Make it once: outside the function, or in __init__."
            ) from error

    @property
    def balancer_variables(self) -> list:
        """What a checkpoint holds of the balancer and the diagnostics."""
        found = [] if self.diagnostics is None else self.diagnostics.variables
        if self.balanced is None:
            return found
        return [*self.balanced.balancing.variables, *self.balanced.held.values(), *found]

    def others(self, known) -> list[tf.Variable]:
        """What the traced step reads or writes beside the known variables, by name.

        A counter or a table that a subclass or a term keeps in no attribute of its own.
        """
        results = self.strategy.experimental_local_results
        held = {id(part) for v in known for part in results(tensor_variable(v))}
        held |= {id(tensor_variable(v)) for v in known}
        traced = {id(v): v for v in [*self._step_variables(), *self._traced_variables]}
        return sorted((v for i, v in traced.items() if i not in held), key=lambda v: v.name)

    def _step_variables(self) -> list:
        """The variables of the traced steps."""
        return []


def _in_float32(gradient):
    if isinstance(gradient, tf.IndexedSlices):
        gradient = gradient.values  # the norm that TensorFlow takes of one
    return tf.cast(gradient, tf.float32)


def _square_sum(values):
    """The sum of squares of values [n]; the CPU's compiler does not vectorize a long sum."""
    size = values.shape.num_elements() // LANES
    squares = tf.square(values)
    if not size:
        return tf.reduce_sum(squares)
    folded = tf.add_n([squares[lane * size : (lane + 1) * size] for lane in range(LANES)])
    return tf.reduce_sum(folded) + tf.reduce_sum(squares[LANES * size :])


def _of_static_shape(gradient, shape):
    """A gradient whose shape is known: XLA compiles anew for each one that it has to find out."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    return tf.IndexedSlices(gradient.values, gradient.indices, tf.constant(list(shape), tf.int32))
