"""One benchmark in a process of its own: `python -m benchmarks.worker NAME FILE ROUNDS SECONDS`.

The process has the devices that the benchmark asks for; what contestants print is dropped.
"""

from __future__ import annotations

import json
import os
import sys

from benchmarks.machine import QUIET
from benchmarks.rounds import measure
from benchmarks.suite import SUITE, Benchmark


def run(benchmark: Benchmark, rounds: int, seconds: float) -> dict:
    """The result of a benchmark measured here, as `ratios.ratios` reads it."""
    strategy, agree = _strategy(benchmark)
    runs: dict = {}
    missing: list[str] = []
    for label, make in benchmark.contestants(strategy).items():
        try:
            runs[label] = make()
        except ImportError as error:
            missing.append(f"{label} is left out: {error}")
    failures: dict[str, Exception] | None = {} if benchmark.hosts == 1 else None
    found = measure(
        runs,
        rounds=rounds,
        seconds=seconds,
        unit=benchmark.step,
        agree=agree,
        failures=failures,
    )
    for label, failure in (failures or {}).items():
        said = " ".join(str(failure).split())
        if len(said) > 300:  # TensorFlow's cause stands at the end, after the stack
            said = f"{said[:60]} ... {said[-240:]}"
        missing.append(f"{label} is left out, it failed: {said}")
    return {
        "title": benchmark.title,
        "unit": benchmark.unit,
        "lower_is_better": False,
        "devices": benchmark.devices,
        "hosts": benchmark.hosts,
        "references": {a: b for a, b in benchmark.references.items() if {a, b} <= set(found)},
        "columns": {a: [*b] for a, b in benchmark.columns.items() if {*b} <= set(found)},
        "contestants": found,
        "axis": benchmark.axis,
        "points": dict(benchmark.points),
        "missing": missing,
    }


def _strategy(benchmark):
    """The strategy, and how hosts agree on a number; None and max for one device."""
    if benchmark.hosts > 1:
        from trainer.distributed.hosts import Hosts
        from trainer.distributed.strategies import resolve_strategy

        strategy = resolve_strategy("multi_worker")
        hosts = Hosts(strategy)
        return strategy, lambda seconds: float(hosts.exchange(seconds[0]).max())
    import tensorflow as tf

    if benchmark.devices == 1:
        return None, max
    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * benchmark.devices
    tf.config.set_logical_device_configuration(cpu, devices)
    names = [f"cpu:{index}" for index in range(benchmark.devices)]
    return tf.distribute.MirroredStrategy(names), max


def main(name: str, file: str, rounds: str, seconds: str) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # runs print as they do for users
    result = run(SUITE[name], int(rounds), float(seconds))
    place = json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {"index": 0})
    if not place["index"]:
        with open(file, "w") as out:
            json.dump(result, out)
    sys.stderr.flush()
    os._exit(0)  # paused loops wait in threads that never end


if __name__ == "__main__":
    os.environ.update(QUIET)
    main(*sys.argv[1:])
