"""Where the time to the first step goes: `python -m benchmarks.start [PART ...] [--rounds=7]`.

Each line is a process of its own in each round, and its figures are seconds of processor time,
which other programs on the machine disturb least: of all rounds, best (median). Byte code of Python
is kept, as users have it.

stages: from the start of `python` to the end of the first step of a new run, and of one that is
  continued, plain and with XLA.
terms, layers: what tracing takes (`Trainer.build`) with that many terms, or layers.
cache: twenty steps under XLA without a cache of its programs, with an empty and with a full one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.machine import users_environment

TERMS = (1, 8, 64)
LAYERS = (1, 8, 64)
CACHED = ("mlp", "lstm", "transformer")
CACHED_STEPS = 20
PARTS = ("stages", "terms", "layers", "cache")
STAGES = ("import tensorflow, keras", "import trainer", "model", "trainer", "build", "first step")


def stages(folder: str, xla: bool) -> dict[str, float]:
    """Seconds of each of the `STAGES` of a process that trains the MLP."""
    marks = [time.process_time()]

    def mark():
        marks.append(time.process_time())

    import keras
    import tensorflow as tf

    marks[0] = 0.0  # the start of python counts to the import
    mark()
    from benchmarks.termwise import make_trainer

    mark()
    from benchmarks.workloads import mlp

    workload = mlp()
    workload.model()
    mark()
    trainer = make_trainer(workload, workdir=folder, jit_compile=xla)
    data = workload.dataset()
    mark()
    trainer.build(data)
    mark()
    done = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: mark())
    last = tf.train.latest_checkpoint(f"{folder}/checkpoints")
    steps = 1 + (int(last.rsplit("-", 1)[1]) if last else 0)
    trainer.fit(data, steps=steps, callbacks=[done])
    return {
        name: after - before for name, before, after in zip(STAGES, marks, marks[1:], strict=False)
    }


def traced(terms: int, layers: int) -> dict[str, float]:
    """Seconds that `Trainer.build` takes; and the first step, plain."""
    from benchmarks.suite import many_terms
    from benchmarks.termwise import make_trainer
    from benchmarks.workloads import mlp

    workload = mlp(units=16, layers=layers)
    trainer = make_trainer(workload, make_terms=many_terms(terms, False, workload))
    data = workload.dataset()
    began = time.process_time()
    trainer.build(data)
    built = time.process_time()
    trainer.fit(data, steps=1)
    return {"build": built - began, "first step": time.process_time() - built}


def cached(model: str, folder: str) -> dict[str, float]:
    """Seconds of twenty steps of resident arrays under XLA; and the size of the folder in MB.

    Args:
      folder: where XLA keeps its programs; "" for nowhere.
    """
    import tensorflow as tf

    from experiments.cli import xla_cache

    if folder:
        xla_cache.use(folder, tf)  # before anything looks for devices
    import keras

    from benchmarks.termwise import make_trainer
    from benchmarks.workloads import WORKLOADS

    workload = WORKLOADS[model]()
    seconds = []

    def mark(batch, logs):
        seconds.append(time.process_time() - began)

    with tempfile.TemporaryDirectory() as workdir:
        trainer = make_trainer(workload, workdir=f"{workdir}/run", jit_compile=True)
        callback = keras.callbacks.LambdaCallback(on_train_batch_end=mark)
        began = time.process_time()
        trainer.fit(
            workload.arrays(), batch_size=workload.batch, steps=CACHED_STEPS, callbacks=[callback]
        )
    found = {f"{CACHED_STEPS} steps": seconds[-1]}
    if folder:
        files = [file for file in Path(folder).rglob("*") if file.is_file()]
        found["MB"] = sum(file.stat().st_size for file in files) / 2**20
    return found


def measured(*arguments) -> dict[str, float]:
    """What a process of its own finds."""
    command = [sys.executable, "-m", "benchmarks.start", "--in_process", *map(str, arguments)]
    done = subprocess.run(
        command, env=users_environment(), capture_output=True, text=True, timeout=1800
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def one_round(parts: list[str]) -> Iterator[tuple[str, dict[str, float]]]:
    """(label, what its process found), one after another."""
    if "stages" in parts:
        for xla in (0, 1):
            with tempfile.TemporaryDirectory() as folder:
                for start in ("new run", "continued"):
                    label = f"{start}, XLA" if xla else start
                    yield label, measured("stages", folder, xla)
    if "terms" in parts:
        for count in TERMS:
            yield f"{count} terms", measured("traced", count, 1)
    if "layers" in parts:
        for count in LAYERS:
            yield f"{count} layers", measured("traced", 1, count)
    if "cache" in parts:
        for model in CACHED:
            yield f"{model}, no cache", measured("cached", model, "")
            with tempfile.TemporaryDirectory() as folder:
                yield f"{model}, an empty cache", measured("cached", model, folder)
                yield f"{model}, a full cache", measured("cached", model, folder)


def main(parts: list[str], rounds: int) -> None:
    found: dict[str, list[dict[str, float]]] = {}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds} ...", file=sys.stderr, flush=True)
        for label, seconds in one_round(parts):
            found.setdefault(label, []).append(seconds)
    for label, each in found.items():
        figures = {name: [seconds[name] for seconds in each] for name in each[0]}
        told = [f"{name} {_best_and_median(values)}" for name, values in figures.items()]
        print(f"{label}: {', '.join(told)}", flush=True)


def _best_and_median(values: list[float]) -> str:
    return f"{min(values):.2f} ({statistics.median(values):.2f})"


def _in_process(what: str, first: str, second: str) -> None:
    out = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a run prints is dropped
    if what == "cached":
        found = cached(first, second)
    else:
        each = (
            stages(first, bool(int(second)))
            if what == "stages"
            else traced(int(first), int(second))
        )
        found = {**each, "together": sum(each.values())}
    os.write(out, (json.dumps(found) + "\n").encode())


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--in_process", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    unknown = [part for part in given.parts if part not in PARTS]
    if unknown:
        parser.error(f"no part {unknown[0]!r}. There are: {', '.join(PARTS)}.")
    if given.rounds < 1:
        parser.error(f"--rounds={given.rounds}: give more than 0.")
    return given


if __name__ == "__main__":
    given = _parse()
    if given.in_process:
        _in_process(*given.in_process)
    else:
        main(given.parts or [*PARTS], given.rounds)
