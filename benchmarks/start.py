"""Where the time to the first step goes: `python -m benchmarks.start [stages] [terms] [layers]`.

Each line is a process of its own, and its figures are seconds of processor time, which other
programs on the machine disturb least. `stages`: from the start of `python` to the end of the first
step of a new run, and of one that is continued, plain and with XLA. `terms`, `layers`: what
tracing takes (`Trainer.build`) with that many terms, or layers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time

from benchmarks.worker import QUIET

TERMS = (1, 8, 64)
LAYERS = (1, 8, 64)
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


def measured(*arguments) -> dict[str, float]:
    """What a process of its own finds."""
    command = [sys.executable, "-m", "benchmarks.start", "in-process", *map(str, arguments)]
    done = subprocess.run(
        command, env={**os.environ, **QUIET}, capture_output=True, text=True, timeout=1800
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main(what: list[str]) -> None:
    what = what or ["stages", "terms", "layers"]
    if "stages" in what:
        for xla in (0, 1):
            with tempfile.TemporaryDirectory() as folder:
                for start in ("new run", "continued"):
                    _say(f"{start}, XLA" if xla else start, measured("stages", folder, xla))
    if "terms" in what:
        for count in TERMS:
            _say(f"{count} terms", measured("traced", count, 1))
    if "layers" in what:
        for count in LAYERS:
            _say(f"{count} layers", measured("traced", 1, count))


def _say(label: str, seconds: dict[str, float]) -> None:
    parts = ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())
    print(f"{label}: {parts}; together {sum(seconds.values()):.2f} s", flush=True)


def _in_process(what: str, first: str, second: str) -> None:
    out = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a run prints is dropped
    if what == "stages":
        found = stages(first, bool(int(second)))
    else:
        found = traced(int(first), int(second))
    os.write(out, (json.dumps(found) + "\n").encode())


if __name__ == "__main__":
    if sys.argv[1:2] == ["in-process"]:
        _in_process(*sys.argv[2:])
    else:
        main(sys.argv[1:])
