"""What only a fresh process can tell: start-up and memory. `python -m benchmarks.fresh WHAT WHO`.

Each measurement is one process; the contestants' processes alternate in random order.
"""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import time

from benchmarks.suite import DEFAULT, HAND, RESIDENT, many_terms

NAMES = ("mlp", "transformer")
TERMS = (1, 8, 32)
LARGE = "mlp with 290 MB of arrays"  # more than what is laid out in each epoch's order
LARGE_EXAMPLES = 1_100_000
LIBRARIES = "import tensorflow, keras"
GROWTH_AT = (25_000, 50_000, 75_000, 100_000)  # steps


def startup(rounds: int) -> dict:
    """Seconds to import, and from the start of a process to the end of its first step."""
    imported = {LIBRARIES: LIBRARIES, "import trainer": f"{LIBRARIES}, trainer"}
    jobs = {label: ["-c", _TIMED.format(code)] for label, code in imported.items()}
    jobs.update({f"first step, {who}": _child("first_step", who) for who in (HAND, DEFAULT)})
    references = {
        "import trainer": LIBRARIES,
        f"first step, {DEFAULT}": f"first step, {HAND}",
    }
    return _result("start-up of the MLP", "s", jobs, references, rounds)


def memory(rounds: int) -> dict:
    """Megabytes at the peak of 2000 steps."""
    pairs = [(name, who) for name in (*NAMES, LARGE) for who in (HAND, DEFAULT)]
    pairs += [(f"mlp, {count} terms", DEFAULT) for count in TERMS] + [(LARGE, RESIDENT)]
    jobs = {f"{name}, {who}": _child(f"peak_{name}", who) for name, who in pairs}
    references = {
        f"{name}, {who}": f"{name.split(', ')[0]}, {HAND}" for name, who in pairs if who != HAND
    }
    title = "peak memory of a process that trains 2000 steps (transformer: 300)"
    return _result(title, "MB", jobs, references, rounds)


def growth(rounds: int) -> dict:
    """Megabytes in use after so many steps of a tiny model, against those at the first mark."""
    outputs = [_run(_child("growth", DEFAULT)) for _ in range(rounds)]
    sizes = [[float(word) for word in output.split()] for output in outputs]
    labels = [f"after {steps} steps" for steps in GROWTH_AT]
    return {
        "title": "memory of one process that goes on training a tiny model",
        "unit": "MB",
        "lower_is_better": True,
        "references": {label: labels[0] for label in labels[1:]},
        "contestants": {
            label: {"rates": list(column)}
            for label, column in zip(labels, zip(*sizes, strict=True), strict=True)
        },
    }


FRESH = {"startup": startup, "memory": memory, "growth": growth}

_TIMED = "import time; began = time.perf_counter(); {}; print(time.perf_counter() - began)"


def _child(what, who):
    return ["-m", "benchmarks.fresh", what, who]


def _result(title, unit, jobs, references, rounds):
    found: dict[str, list[float]] = {label: [] for label in jobs}
    draw = random.Random(0)
    for _ in range(rounds):
        for label in draw.sample(list(jobs), len(jobs)):
            found[label].append(float(_run(jobs[label]).split()[-1]))
    return {
        "title": title,
        "unit": unit,
        "lower_is_better": True,
        "references": references,
        "contestants": {label: {"rates": values} for label, values in found.items()},
    }


def _run(arguments) -> str:
    environment = {**os.environ, "TERMWISE_BENCH_BEGAN": repr(time.time())}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def _first_step(who) -> float:
    from benchmarks.workloads import mlp

    _training(who, mlp(), 1)
    return time.time() - float(os.environ["TERMWISE_BENCH_BEGAN"])


def _peak(name, who) -> float:
    from benchmarks.workloads import WORKLOADS, mlp

    model, _, count = name.partition(", ")  # "mlp", "mlp, 8 terms"
    workload = mlp(examples=LARGE_EXAMPLES) if name == LARGE else WORKLOADS[model]()
    terms = many_terms(int(count.split()[0]), False, workload) if count else None
    _training(who, workload, 300 if model == "transformer" else 2000, terms)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _training(who, workload, steps, terms=None):
    if who == HAND:
        from benchmarks.references import handwritten

        handwritten(workload)(steps)
        return
    import tempfile

    from benchmarks.termwise import make_trainer

    data, batch = workload.dataset, {}
    if who == RESIDENT:
        data, batch = workload.arrays, {"batch_size": workload.batch}
    callbacks = [_at_first()] if steps == 1 else ()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(workload, None, terms, workdir=folder + "/run")
        trainer.fit(data(), steps=steps, callbacks=callbacks, **batch)


def _at_first():
    """Says when the first step is done; what fit does after it (a checkpoint) is not start-up."""
    import keras

    def say(batch, logs):
        began = float(os.environ["TERMWISE_BENCH_BEGAN"])
        _answer(time.time() - began)

    return keras.callbacks.LambdaCallback(on_train_batch_end=say)


def _growth() -> str:
    import keras

    from benchmarks.termwise import make_trainer
    from benchmarks.workloads import mlp

    workload, sizes = mlp(16, 8), []

    def look(batch, logs):
        if len(sizes) < len(GROWTH_AT) and batch + 1 >= GROWTH_AT[len(sizes)]:
            with open("/proc/self/statm") as file:
                pages = int(file.read().split()[1])
            sizes.append(pages * resource.getpagesize() / 2**20)

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(workload, workdir=folder + "/run")
        callback = keras.callbacks.LambdaCallback(on_train_batch_end=look)
        arguments = dict(steps_per_loop=workload.steps_per_loop, callbacks=[callback])
        trainer.fit(workload.dataset(), steps=GROWTH_AT[-1], **arguments)
    return " ".join(map(str, sizes))


def _answer(value) -> None:
    os.write(ANSWERS, f"{value}\n".encode())
    os._exit(0)


if __name__ == "__main__":
    # what a run prints is dropped; the answer goes where standard output was
    ANSWERS = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    what, who = sys.argv[1:]
    if what == "first_step":
        _answer(_first_step(who))
    elif what == "growth":
        _answer(_growth())
    else:
        _answer(_peak(what.removeprefix("peak_"), who))
