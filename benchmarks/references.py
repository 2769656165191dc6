"""What a user would pick instead: the hand-written loop, Orbit, and Keras's fit.

Each is a function of (workload, strategy) that returns a contestant: `run(steps) -> seconds`.
"""

from __future__ import annotations

import contextlib
import time

import keras
import tensorflow as tf

from benchmarks.rounds import Paused

MANY = 10**9  # steps: more than any round takes
STEPS_PER_CALL = 1000  # of the hand-written loop and Orbit: nothing is read more often


def handwritten(workload, strategy=None):
    """Many steps in one tf.function: no host transfer, one trace, the update in the graph."""
    with scope(strategy):
        model, optimizer = workload.model(), workload.optimizer()
        optimizer.build(model.trainable_variables)
    loss = workload.loss()
    step, iterator = training_step(workload, model, optimizer, loss, strategy)

    @tf.function
    def loop(iterator, steps):
        value = tf.zeros([])
        for _ in tf.range(steps):
            value = step(next(iterator))
        return value

    def run(steps):
        began = time.perf_counter()
        value = tf.zeros([])
        for count in calls(steps):
            value = loop(iterator, tf.constant(count))
        value.numpy()
        return time.perf_counter() - began

    return run


def training_step(workload, model, optimizer, loss, strategy):
    """The step of a batch, and the iterator it is fed from; also Orbit's."""
    variables = model.trainable_variables

    def replica_step(batch):
        x, y = batch
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
            if strategy is not None:
                value /= strategy.num_replicas_in_sync
        optimizer.apply(tape.gradient(value, variables), variables)
        return value

    dataset = workload.dataset().repeat().prefetch(tf.data.AUTOTUNE)
    if strategy is None:
        return replica_step, iter(dataset)

    def step(batch):
        values = strategy.run(replica_step, args=(batch,))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)

    return step, iter(strategy.experimental_distribute_dataset(dataset))


def orbit_trainer(workload, strategy=None):
    """Orbit's StandardTrainer under its Controller, with a mean loss, as its manual shows it.

    Raises:
      ImportError: tf-models-official is not installed.
    """
    import orbit

    with scope(strategy):
        model, optimizer = workload.model(), workload.optimizer()
        optimizer.build(model.trainable_variables)
    step, iterator = training_step(workload, model, optimizer, workload.loss(), strategy)
    counter = tf.Variable(0, dtype=tf.int64)
    mean = keras.metrics.Mean()

    class Trainer(orbit.StandardTrainer):
        def __init__(self):
            super().__init__(None)
            self._train_iter = iterator

        def train_loop_begin(self):
            mean.reset_state()

        def train_step(self, iterator):
            mean.update_state(step(next(iterator)))
            counter.assign_add(1)

        def train_loop_end(self):
            return {"loss": mean.result()}

    controller = orbit.Controller(
        trainer=Trainer(), global_step=counter, steps_per_loop=STEPS_PER_CALL
    )

    def run(steps):
        began = time.perf_counter()
        controller.train(int(counter) + steps, checkpoint_at_completion=False)
        return time.perf_counter() - began

    return run


def keras_fit(steps_per_execution):
    """One long `Model.fit`, paused between rounds."""

    def make(workload, strategy=None):
        with scope(strategy):
            model = workload.model()
            model.compile(
                workload.optimizer(),
                workload.loss(),
                steps_per_execution=steps_per_execution,
                jit_compile=False,
            )
        dataset = workload.dataset().repeat().prefetch(tf.data.AUTOTUNE)

        def start(paused):
            callback = keras.callbacks.LambdaCallback(
                on_train_batch_end=lambda batch, logs: paused.reached(batch + 1)
            )
            model.fit(dataset, steps_per_epoch=MANY, epochs=1, verbose=0, callbacks=[callback])

        return Paused(start)

    return make


def calls(steps: int):
    """How many steps each call of a loop takes, at most STEPS_PER_CALL."""
    for first in range(0, steps, STEPS_PER_CALL):
        yield min(STEPS_PER_CALL, steps - first)


def scope(strategy):
    return contextlib.nullcontext() if strategy is None else strategy.scope()
