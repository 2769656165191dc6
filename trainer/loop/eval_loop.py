"""Reading compiled: the traced evaluation step, its loop over a dataset, and predictions."""

from __future__ import annotations

import tensorflow as tf


class EvalLoops:
    """The compiled functions that evaluate and predict; they change nothing but metrics.

    Args:
      replica: the run's `Replica`.
      strategy: the run's strategy.
      jit_compile: compile the step with XLA, on one replica.
    """

    def __init__(self, replica, strategy, *, jit_compile=False):
        self.replica = replica
        self.strategy = strategy
        self.traces = 0
        self.jit_compile = False
        self._steps: dict = {}
        self._predict_steps: dict = {}
        self._loops: dict = {}
        self.switch(jit_compile)

    def switch(self, jit_compile: bool) -> None:
        """Goes on compiled by XLA, or not; what is traced the other way is dropped."""
        compiled = jit_compile and self.strategy.num_replicas_in_sync == 1
        if compiled != self.jit_compile:
            self.jit_compile = compiled
            for traced in (self._steps, self._predict_steps, self._loops):
                traced.clear()

    def _function(self, function):
        return tf.function(function, jit_compile=self.jit_compile or None, autograph=False)

    def _run(self, function, arguments):
        return self.strategy.run(function, args=arguments)

    def _local(self, value):
        return self.strategy.experimental_local_results(value)[0]

    def step(self, source):
        """The traced evaluation step: batch -> numerators [K], denominators [K], weights [T]."""
        key = str((source.element_spec, source.per_host))
        if key not in self._steps:
            self.replica.per_host = source.per_host

            def evaluate(*batch):
                self.traces += 1
                sums = self._run(self.replica.evaluate, batch)
                return tf.nest.map_structure(self._local, sums)

            given = [source.element_spec]
            if source.per_host:  # and whether the batch counts
                given.append(tf.TensorSpec([], tf.float32))
            self._steps[key] = self._function(evaluate).get_concrete_function(*given)
        return self._steps[key]

    def evaluate(self, source, steps=None):
        """Sums over a pass through the data (or its first `steps` batches).

        Returns:
          float64 [K] numerators and denominators, float32 [T] weights, int64 [] batches.
        """
        step, batches = self.step(source), source.batches()
        limit = tf.constant(-1 if steps is None else steps, tf.int64)
        if step not in self._loops:
            # each is traced once, here: no retracing that TensorFlow could warn of
            self._loops[step] = self._make_loop(step).get_concrete_function(batches, limit)
        return self._loops[step](batches, limit)

    def _make_loop(self, step):
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

    def predict(self, batch, source):
        """The outputs of one batch, the replicas' parts joined; tensors."""
        key = str(source.element_spec)
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
