"""Termwise as a contestant: the default path over tf.data, and arrays that stay on the device."""

from __future__ import annotations

import contextlib
import tempfile

from benchmarks.references import Clock, scope
from trainer import Trainer


def termwise(
    *, resident=False, jit_compile=False, log_every=100, workdir=True, make_terms=None, console=True
):
    """A function of (workload, strategy) that returns a contestant.

    A run is a `fit` timed between its events on_train_begin and on_train_end: it prints, writes
    metrics.jsonl and TensorBoard; the checkpoint at its end does not count.

    Args:
      resident: arrays with batch_size=, shuffled, instead of the dataset.
      make_terms: a function that makes `terms=`; they replace the compiled loss.
    """

    def make(workload, strategy=None):
        with scope(strategy):
            model = workload.model()
        folder = tempfile.TemporaryDirectory(prefix="termwise-bench-")
        trainer = Trainer(
            model,
            optimizer=workload.optimizer(),
            loss=None if make_terms else workload.loss(),
            terms=make_terms() if make_terms else (),
            strategy=strategy or "one_device",
            workdir=folder.name + "/run" if workdir else None,
            jit_compile=jit_compile,
        )
        data = workload.arrays() if resident else workload.dataset()
        arguments = dict(batch_size=workload.batch) if resident else {}

        def run(steps):
            clock = Clock()
            with contextlib.redirect_stdout(None):
                trainer.fit(
                    data,
                    steps=int(trainer.step) + steps,
                    log_every=log_every,
                    callbacks=[clock.callback()],
                    verbose=console,
                    keep_last=1,
                    **arguments,
                )
            return clock.seconds

        run.trainer = trainer
        run.folder = folder  # lives as long as the contestant
        return run

    return make
