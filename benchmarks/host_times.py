"""What a step of N hosts should take, from what it sends, against what it takes.

    python -m benchmarks.host_times [--hosts 2 4] [--seconds=3]

The model: a step of N hosts takes what N hosts need that train side by side and send nothing, each
on its share of the batch, and for each of its sums over hosts

    latency(N) + bytes(sum) / rate(N)

Latency and rate come of sums of two sizes that N processes make and do nothing else (a line through
both); which sums a step has, and how large they are, is read from its graph (`collectives.py`).
All processes are of this machine and share its cores, so the part without sums is measured for each
N too. Prints a table in Markdown, times in milliseconds, each the median over its hosts' windows.
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
from pathlib import Path

BATCH, INPUTS = 64, 32
SIZES = (1_000, 1_000_000)  # float32 of a sum
CASES = {  # title -> hidden units of two layers, terms
    "1 term": (64, 1),
    "32 terms": (64, 32),
    "16 times the parameters": (288, 1),
    "150 times the parameters": (960, 1),
}
LOG_EVERY = 20


def make_trainer(strategy, units: int, terms: int):
    """An MLP of some terms, as in `collectives.py`."""
    import keras
    import tensorflow as tf

    import losses
    from trainer import Trainer

    def build():
        dense = [keras.layers.Dense(units, activation="tanh") for _ in range(2)]
        return keras.Sequential([keras.Input((INPUTS,)), *dense, keras.layers.Dense(1)])

    def power(index):
        return lambda step: tf.reduce_mean(tf.abs(step.y_pred) ** (1 + 0.01 * index), axis=-1)

    more = [losses.term(power(index), name=f"power_{index}") for index in range(1, terms)]
    return Trainer(build, optimizer="adam", loss="mse", terms=more, strategy=strategy)


def step_ms(strategy, case: str, hosts: int, seconds: float) -> tuple[float, list[int]]:
    """Milliseconds of a step, and the bytes of its sums over hosts.

    Args:
      strategy: of all hosts, or "one_device": alone, with the share of one of `hosts`.
      seconds: about how long it is measured.
    """
    import numpy as np

    from benchmarks.collectives import collectives

    alone = strategy == "one_device"
    batch = BATCH // hosts if alone else BATCH
    x = np.random.default_rng(0).normal(size=(BATCH * 16, INPUTS)).astype("float32")
    data = x, x[:, :1].copy()
    trainer = make_trainer(strategy, *CASES[case])
    arguments = {"batch_size": batch, "log_every": LOG_EVERY, "steps_per_loop": 100}
    quiet = {"verbose": False, **arguments}
    trainer.fit(data, steps=200, **quiet)
    begun = time.perf_counter()
    trainer.fit(data, steps=400, **quiet)
    rate = 200 / (time.perf_counter() - begun)
    # hosts must take equally many, and each its own time alone
    steps = 400 + 100 * round(max(4, rate * seconds / 100)) if alone else 800
    history = trainer.fit(data, steps=steps, **quiet)
    rates = [row["steps_per_second"] for row in history.rows if row["step"] > 400]
    (traced,) = trainer._run.programs.steps
    return 1000 / statistics.median(rates), collectives(traced.function)[0]


def sum_ms(strategy, size: int, count: int = 20) -> float:
    """Milliseconds of one sum over hosts of float32 [size], after another."""
    import tensorflow as tf

    def summed(value):
        context, value = tf.distribute.get_replica_context(), tf.identity(value)  # on its device
        for _ in range(count):
            value = context.all_reduce("mean", value)
        return value

    many = tf.function(lambda value: strategy.run(summed, args=(value,)), autograph=False)
    value = tf.random.stateless_normal([size], [0, 1])
    times = []
    for _ in range(10):
        begun = time.perf_counter()
        float(tf.reduce_sum(many(value)))
        times.append(time.perf_counter() - begun)
    return 1000 * statistics.median(times[1:]) / count


def work(what: str, file: str, hosts: int, seconds: float) -> None:
    """What one process measures: `together` with the other hosts, or `alone` beside them."""
    from trainer import resolve_strategy

    together = what == "together"
    strategy = resolve_strategy("multi_worker") if together and hosts > 1 else "one_device"
    found: dict = {case: step_ms(strategy, case, hosts, seconds) for case in CASES}
    if strategy != "one_device":
        found["sums"] = [sum_ms(strategy, size) for size in SIZES]
    Path(f"{file}.{os.getpid()}.json").write_text(json.dumps(found))


def measured(what: str, hosts: int, seconds: float) -> list[dict]:
    """What `hosts` processes have found."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [what, f"{folder}/found", str(hosts), str(seconds)]
        worker = [sys.executable, "-m", "benchmarks.host_times", "--work", *arguments]
        if what == "together" and hosts > 1:
            launch = [sys.executable, "-m", "trainer.launch", "--max_restarts=0"]
            commands = [[*launch, f"--workers={hosts}", "--", *worker]]
        else:
            commands = [worker] * hosts
        quiet = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        processes = [subprocess.Popen(command, env=quiet, **pipes) for command in commands]
        said = [process.communicate()[0] for process in processes]
        files = sorted(Path(folder).glob("found.*.json"))
        if len(files) < hosts:
            raise RuntimeError(said[0][-3000:])
        return [json.loads(file.read_text()) for file in files]


def lines(hosts: int, seconds: float):
    """The rows of the table for some number of hosts."""
    alone, together = (measured(what, hosts, seconds) for what in ("alone", "together"))
    of_sums = [each.get("sums", [0.0, 0.0]) for each in together]  # one host has none
    small, large = (statistics.median(column) for column in zip(*of_sums, strict=True))
    per_byte = (large - small) / (4 * (SIZES[1] - SIZES[0]))
    latency = small - 4 * SIZES[0] * per_byte
    yield f"{hosts} hosts: a sum takes {latency:.3f} ms and {1e6 * per_byte:.3f} ms for each MB"
    for case in CASES:
        sizes = together[0][case][1]
        without = statistics.median(each[case][0] for each in alone)
        real = statistics.median(each[case][0] for each in together)
        said = without + len(sizes) * latency + sum(sizes) * per_byte
        yield (
            f"| {hosts} | {case} | {len(sizes)} | {sum(sizes):,} | {without:.2f} | {said:.2f} "
            f"| {real:.2f} | {real / said:.2f} |"
        )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--seconds", type=float, default=3.0, help="of a step alone")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.work:
        what, file, hosts, seconds = options.work
        work(what, file, int(hosts), float(seconds))
        return 0
    print("| hosts | step | sums | bytes | without sums | predicted | measured | of predicted |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for hosts in options.hosts:
        for line in lines(hosts, options.seconds):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
