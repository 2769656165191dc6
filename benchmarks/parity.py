"""`python -m benchmarks.parity`: one training on one device and on two, by fit and by Termwise.

Each case of replica_cases.py that `Model.fit` can express is trained for 20 steps four times, from
equal weights over the same global batches: by `Model.fit` and by Termwise, on one device and on
two (logical devices of the CPU, `MirroredStrategy`). The table shows by how much the weights of the
two runs differ: by float32 rounding, where the number of devices does not matter.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from benchmarks.replica_cases import CASES, SIZES, STEPS, Case, train

RESULTS = Path(__file__).parent / "results" / "parity.md"
ROUNDING = 5e-6  # what float32 may differ by after 20 steps
EVEN = (64, 32, 1)  # the same examples, so that the first batch falls evenly on two devices


def fit_weights(case: Case, strategy, sizes=SIZES) -> dict[str, np.ndarray]:
    """Path -> weights after `STEPS` steps of `Model.fit` on batches of these sizes."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = case.model()
        model.compile(case.optimizer(), case.loss())
    model.fit(_batches(case.data(), sizes), steps_per_epoch=STEPS, verbose=0, **case.fit)
    return {v.path: np.asarray(tf.convert_to_tensor(v)) for v in model.weights}


def termwise_weights(case: Case, strategy) -> dict[str, np.ndarray]:
    """Path -> weights after `STEPS` steps of Termwise, on batches of `SIZES`."""
    _, held = train(case, strategy)
    return {path: value for path, value in held.items() if not path.startswith("slot ")}


def _batches(data, sizes) -> tf.data.Dataset:
    """Batches of these sizes, over and over, of one shape for all."""
    ends = np.cumsum(sizes)
    parts = [
        tuple(a[end - size : end] for a in data) for end, size in zip(ends, sizes, strict=True)
    ]
    spec = tuple(tf.TensorSpec([None, *a.shape[1:]], a.dtype) for a in data)
    return tf.data.Dataset.from_generator(lambda: iter(parts), output_signature=spec).repeat()


def difference(weights, one, two) -> float | str:
    """The largest difference of the weights on one device and on two, or the error on two.

    Args:
      weights: a function of a strategy: path -> weights.
      one, two: strategies.
    Returns:
      max |a - b| / max(|a|, 1) over all weights, infinite where `two` gives no number; or the
      kind and the first line of what was raised.
    """
    try:
        found = weights(two)
    except Exception as error:
        return _first_line(error)
    largest = 0.0
    for path, value in weights(one).items():
        part = np.max(np.abs(found[path] - value) / np.maximum(np.abs(value), 1.0), initial=0.0)
        largest = max(largest, float(part) if np.isfinite(part) else np.inf)
    return largest


def compare(names: Iterable[str], one, two) -> Iterator[tuple]:
    """Yields the case's name; what `Model.fit` differs by, and on `EVEN`; what Termwise does."""
    for name in names:
        case = CASES[name]
        yield (
            name,
            difference(partial(fit_weights, case), one, two),
            difference(partial(fit_weights, case, sizes=EVEN), one, two),
            difference(partial(termwise_weights, case), one, two),
        )


def table(rows) -> str:
    """The rows as a Markdown table."""
    first, even = ", ".join(map(str, SIZES)), ", ".join(map(str, EVEN))
    lines = [f"| case | `Model.fit`, {first} | `Model.fit`, {even} | Termwise, {first} |"]
    lines += ["|---|---:|---:|---:|"]
    lines += [f"| {name} | {' | '.join(map(_shown, values))} |" for name, *values in rows]
    return "\n".join(lines)


def machine() -> str:
    """What it ran on, in one line."""
    cpuinfo, model = Path("/proc/cpuinfo"), platform.processor()
    if cpuinfo.exists():
        named = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = named[0].partition(":")[2].strip() if named else model
    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()}; Python "
        f"{platform.python_version()}, TensorFlow {tf.__version__}, Keras {keras.__version__}"
    )


def report(rows) -> str:
    """The whole page."""
    return f"""# One device and two: what `Model.fit` and Termwise make of it

Made by `python -m benchmarks.parity` on: {machine()}.

Each case is trained for {STEPS} steps on one logical CPU device and on two, from equal weights over
the same global batches: of 1, 63 and 33 examples over and over, where at first one of two devices
has no example, and for `Model.fit` also of 64, 32 and 1. The numbers are the largest difference of
the weights between the two runs, |a - b| / max(|a|, 1): float32 rounding stays below {ROUNDING:g},
more is **bold**. Words are the error that training on two devices raised. Where `Model.fit` is in
bold, a second run may give another number: on two devices it does not always repeat itself.

{table(rows)}
"""


def _first_line(error) -> str:
    """`RuntimeError: ...`, the first line that says something, shortened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Keras says first in which layer, in bold; TensorFlow in which node of the graph
    lines = [line for line in lines if not line.startswith("Exception encountered")] or [""]
    text = re.sub(r"\x1b\[\d*m|\{\{.*?\}\} ", "", lines[0])
    if len(text) > 100:
        text = text[:100].rsplit(" ", 1)[0] + " ..."
    return f"{type(error).__name__}: {text}"


def _shown(value) -> str:
    if isinstance(value, str):
        return value.replace("|", "\\|")
    if not np.isfinite(value):
        return "**not finite**"
    return f"{value:.1e}" if value <= ROUNDING else f"**{value:.1e}**"


def main(argv: list[str] | None = None) -> int:
    """Prints the table line by line; with all cases also writes results/parity.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity", description=__doc__)
    able = [name for name, case in CASES.items() if case.keras]
    parser.add_argument("cases", nargs="*", metavar="CASE", help="; ".join(able))
    names = parser.parse_args(argv).cases
    if unknown := [name for name in names if name not in able]:
        parser.error(f"{unknown[0]!r} is no case. Accepted: {'; '.join(able)}.")
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    one, two = tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["cpu:0", "cpu:1"])
    rows = []
    for row in compare(names or able, one, two):
        print(table([row]).splitlines()[-1], flush=True)
        rows.append(row)
    if not names:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(report(rows), encoding="utf-8")
        print(RESULTS.relative_to(Path.cwd()) if RESULTS.is_relative_to(Path.cwd()) else RESULTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
