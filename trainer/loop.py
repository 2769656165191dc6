"""Many steps inside one tf.function: the traced step, and the loops around it."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from trainer.parameters import tensor_variable
from trainer.replica import Record


class Window(NamedTuple):
    """Sums over the steps of a log window, carried through the loop.

    raw, weighted: float64 [terms]; examples, grad_norm: float64 []; weight: float32 [terms],
    of the last step; steps, skipped: int64 [].
    """

    raw: tf.Tensor
    weighted: tf.Tensor
    weight: tf.Tensor
    examples: tf.Tensor
    grad_norm: tf.Tensor
    steps: tf.Tensor
    skipped: tf.Tensor

    @classmethod
    def empty(cls, terms: int) -> Window:
        sums, zero, none = tf.zeros([terms], tf.float64), tf.zeros([], tf.float64), tf.zeros([])
        count = tf.cast(none, tf.int64)
        return cls(sums, sums, tf.zeros([terms]), zero, zero, count, count)

    def add(self, record: Record, skipping: bool) -> Window:
        """The window with one more step; a skipped step leaves only its count."""
        values = [record.raw, record.weighted, record.examples, record.grad_norm]
        one = tf.ones([], tf.int64)
        skipped = self.skipped
        if skipping:
            # the record of a skipped step has a norm that is not finite
            counted = tf.math.is_finite(record.grad_norm)
            values = [tf.where(counted, value, tf.zeros_like(value)) for value in values]
            one = tf.cast(counted, tf.int64)
            skipped += 1 - one
        raw, weighted, examples, norm = (tf.cast(value, tf.float64) for value in values)
        return Window(
            self.raw + raw,
            self.weighted + weighted,
            record.weight,
            self.examples + examples,
            self.grad_norm + norm,
            self.steps + one,
            skipped,
        )


class Loops:
    """The compiled functions of a run: one trace of the step, whatever the cadences.

    The step is traced alone, once per structure of the data; the loops call that trace, so
    that other data, or another number of steps, costs no tracing of the user's code.
    """

    def __init__(self, trainer, replica, *, jit_compile=False, skipping=False):
        self.trainer = trainer
        self.replica = replica
        self.strategy = trainer.strategy
        self.jit_compile = jit_compile
        self.skipping = skipping
        self.train_traces = self.eval_traces = 0
        self.forget_steps()
        self._eval_steps: dict = {}
        self._predict_steps: dict = {}
        self._eval_loop = None

    def forget_steps(self) -> None:
        """Drops the traces of the training step: what is constant in them has changed."""
        self._gradients = tf.function(self._replica_gradients, autograph=False)
        self._train_steps: dict = {}
        self._train_loops: dict = {}

    def _function(self, function):
        # as in Keras, users' code is traced as it stands: no AutoGraph
        return tf.function(function, jit_compile=self.jit_compile or None, autograph=False)

    def compute_gradients(self, batch):
        """path -> gradient summed over the replicas, and the Record; in cross-replica context."""
        scales = self.replica.optimizers.scales()
        gradients, record = self._gradients(batch, scales)
        if self.strategy.num_replicas_in_sync > 1:
            gradients = self._reduce(gradients)
            record = tf.nest.map_structure(
                lambda value: self.strategy.experimental_local_results(value)[0], record
            )
        norm = tf.linalg.global_norm([self._local(g) for g in gradients.values()])
        if scales is not None:
            norm /= scales[0]
        return gradients, record._replace(grad_norm=norm)

    def _replica_gradients(self, batch, scales):
        self.train_traces += 1
        return self._run(self.replica.train, (batch, scales))

    def _run(self, function, arguments):
        return self.strategy.run(function, args=arguments)

    def _reduce(self, gradients):
        variables = {path: tensor_variable(self.replica.variables[path]) for path in gradients}
        created_inside = self.strategy.extended.variable_created_in_scope
        inside = [path for path, variable in variables.items() if created_inside(variable)]
        # results of a traced function have lost their devices: without them, no efficient sum
        gradients = self._run(_identities, (gradients,))
        pairs = [(gradients[path], variables[path]) for path in inside]
        reduced = self.strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, pairs)
        summed = dict(zip(inside, reduced, strict=True))
        for path in [path for path in gradients if path not in summed]:  # not mirrored
            parts = self.strategy.experimental_local_results(gradients[path])
            summed[path] = tf.add_n([tf.convert_to_tensor(part) for part in parts])
        return {path: summed[path] for path in gradients}

    def _local(self, gradient):
        return self.strategy.experimental_local_results(gradient)[0]

    def prepare(self, spec) -> None:
        """Traces the forward and backward pass: finds the terms and the loss parameters."""
        scales = self.replica.optimizers.scales()
        scales = None if scales is None else tf.TensorSpec(scales.shape, scales.dtype)
        try:
            self._gradients.get_concrete_function(spec, scales)
        except ValueError as error:
            if "tf.function only supports singleton tf.Variables" not in str(error):
                raise
            where = " ".join(getattr(error, "__notes__", ()))
            raise ValueError(
                "A variable is made anew at each call of a loss or term, so it could never be "
                f"trained or saved {where}. Make it once: outside the function, or in __init__."
            ) from error

    def train_step(self, spec):
        """The traced step of one structure of data: batch -> Record."""
        key = _key(spec)
        if key not in self._train_steps:
            function = self._function(self.trainer.train_step)
            self._train_steps[key] = function.get_concrete_function(spec)
        return self._train_steps[key]

    def train(self, source, window: Window, position, steps) -> Window:
        """`steps` training steps from `position` of the data; the window that they fill."""
        if source not in self._train_loops:
            self._train_loops.clear()  # one source trains at a time
            self._train_loops[source] = self._make_train_loop(source)
        loop = self._train_loops[source]
        return loop(window, tf.constant(position, tf.int64), tf.constant(steps, tf.int64))

    def _make_train_loop(self, source):
        step = self.train_step(source.element_spec)
        counter = self.trainer.step

        def body(position, window):
            batch = source.next(position)
            record = step(*tf.nest.flatten(batch, expand_composites=True))
            counter.assign_add(1)
            return position + 1, window.add(record, self.skipping)

        @tf.function(autograph=False)
        def loop(window, position, steps):
            end = position + steps
            _, window = tf.while_loop(
                lambda at, _: at < end, body, (position, window), parallel_iterations=1
            )
            return window

        return loop

    def eval_step(self, spec):
        """The traced evaluation step: batch -> numerators [K], denominators [K], weights [T]."""
        key = _key(spec)
        if key not in self._eval_steps:

            def evaluate(batch):
                self.eval_traces += 1
                sums = self._run(self.replica.evaluate, (batch,))
                return tf.nest.map_structure(self._local, sums)

            function = self._function(evaluate)
            self._eval_steps[key] = function.get_concrete_function(spec)
        return self._eval_steps[key]

    def evaluate(self, source, steps=None):
        """Sums over a pass through the data (or its first `steps` batches).

        Returns:
          float64 [K] numerators and denominators, float32 [T] weights, int64 [] batches.
        """
        step = self.eval_step(source.element_spec)
        if self._eval_loop is None or self._eval_loop[0] is not step:
            self._eval_loop = step, self._make_eval_loop(step)
        limit = tf.constant(-1 if steps is None else steps, tf.int64)
        return self._eval_loop[1](source.batches(), limit)

    def _make_eval_loop(self, step):
        numerators, _, weights = step.structured_outputs
        zeros = tf.zeros(numerators.shape, tf.float64)

        def take(iterator, more, count, top, bottom, _):
            batch = more.get_value()
            n, d, weight = step(*tf.nest.flatten(batch, expand_composites=True))
            top, bottom = top + tf.cast(n, tf.float64), bottom + tf.cast(d, tf.float64)
            return iterator.get_next_as_optional(), count + 1, top, bottom, weight

        @tf.function(autograph=False)
        def loop(iterator, limit):
            start = (
                iterator.get_next_as_optional(),
                tf.zeros([], tf.int64),
                zeros,
                zeros,
                tf.zeros(weights.shape, weights.dtype),
            )
            _, count, top, bottom, weight = tf.while_loop(
                lambda more, count, *_: more.has_value() & ((limit < 0) | (count < limit)),
                lambda *values: take(iterator, *values),
                start,
            )
            return top, bottom, weight, count

        return loop

    def predict(self, batch, spec):
        """The outputs of one batch, the replicas' parts joined; tensors."""
        key = _key(spec)
        if key not in self._predict_steps:

            def predict(batch):
                outputs, alive = self._run(self.replica.predict, (batch,))
                if alive is None:
                    return outputs
                return self._join(outputs, alive)

            self._predict_steps[key] = self._function(predict)
        return self._predict_steps[key](batch)

    def _join(self, outputs, alive):
        alive = [a > 0 for a in self.strategy.experimental_local_results(alive)]

        def join(value):
            parts = self.strategy.experimental_local_results(value)
            parts = [p[: tf.where(a, tf.shape(p)[0], 0)] for p, a in zip(parts, alive, strict=True)]
            return tf.concat(parts, 0)

        return tf.nest.map_structure(join, outputs)


def _identities(values):
    return tf.nest.map_structure(tf.identity, values, expand_composites=True)


def _key(spec):
    return str(spec)
