"""Termwise as a contestant: the default path over tf.data, and arrays that stay on the device."""

from __future__ import annotations

import tempfile

import keras

from benchmarks.references import MANY, scope
from benchmarks.rounds import Paused
from trainer import Trainer


def termwise(
    *, resident=False, jit_compile=False, log_every=100, workdir=True, make_terms=None, steps=MANY
):
    """A function of (workload, strategy) that returns a contestant: one long `fit`, paused.

    It prints, writes metrics.jsonl and TensorBoard, as a user's would.

    Args:
      resident: arrays with batch_size=, shuffled, instead of the dataset.
      make_terms: a function that makes `terms=`; they replace the compiled loss.
      steps: where the fit ends.
    """

    def make(workload, strategy=None):
        folder = tempfile.TemporaryDirectory(prefix="termwise-bench-")
        trainer = make_trainer(
            workload,
            strategy,
            make_terms,
            workdir=folder.name + "/run" if workdir else None,
            jit_compile=jit_compile,
        )
        data = workload.arrays() if resident else workload.dataset()
        arguments = dict(log_every=log_every, steps_per_loop=workload.steps_per_loop)
        if resident:
            arguments["batch_size"] = workload.batch

        def start(paused):
            with folder:
                callback = keras.callbacks.LambdaCallback(
                    on_train_batch_end=lambda batch, logs: paused.reached(batch + 1)
                )
                trainer.fit(data, steps=steps, callbacks=[callback], **arguments)

        return Paused(start)

    return make


def make_trainer(workload, strategy=None, make_terms=None, **arguments) -> Trainer:
    """A Trainer of a workload on a strategy; None is one device."""
    with scope(strategy):
        model = workload.model()
    return Trainer(
        model,
        optimizer=workload.optimizer(),
        loss=None if make_terms else workload.loss(),
        terms=make_terms() if make_terms else (),
        strategy=strategy or "one_device",
        **arguments,
    )
