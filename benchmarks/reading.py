"""Evaluation as a contest: the same compiled model, the same dataset, whole passes."""

from __future__ import annotations

import time

from benchmarks.termwise import make_trainer


def keras_evaluate(workload):
    """`Model.evaluate` over the workload's dataset; `run(passes)`."""
    model = workload.model()
    model.compile(workload.optimizer(), workload.loss(), jit_compile=False)
    dataset = workload.dataset()
    return _timed(lambda: model.evaluate(dataset, verbose=0))


def termwise_evaluate(workload):
    """`Trainer.evaluate` over the same."""
    trainer, dataset = make_trainer(workload), workload.dataset()
    return _timed(lambda: trainer.evaluate(dataset))


def _timed(evaluate):
    def run(passes):
        began = time.perf_counter()
        for _ in range(passes):
            evaluate()
        return time.perf_counter() - began

    return run
