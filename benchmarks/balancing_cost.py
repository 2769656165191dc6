"""What balancing costs: a small CNN with four terms, each step against its own plain step.

    python -m benchmarks.balancing_cost [--rounds=7] [--torch=PYTHON]

`--torch` names a Python that has torch and torchjd: TorchJD's step is then measured against its
own plain one, in the same rounds. Writes benchmarks/results/balancing_cost.md.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from benchmarks.machine import describe_machine
from losses import balancing
from trainer import Trainer
from trainer.loop.window import LogWindow

TERMS = ("a", "b", "c", "d")
BATCH = 64
SECONDS = 0.7  # of one contestant in one round


def build():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((16, 16, 1))
    x = keras.layers.Conv2D(16, 3, activation="relu")(inputs)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Conv2D(32, 3, activation="relu")(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(64, activation="relu", name="features")(x)
    return keras.Model(inputs, {name: keras.layers.Dense(10, name=name)(x) for name in TERMS})


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2048, 16, 16, 1)).astype("float32")
    return x, {name: rng.integers(0, 10, 2048).astype("int32") for name in TERMS}


class Contestant:
    """One way to train, ready to run steps."""

    def __init__(self, **arguments):
        loss = {name: keras.losses.SparseCategoricalCrossentropy(True) for name in TERMS}
        self.trainer = Trainer(build, optimizer=keras.optimizers.SGD(1e-3), loss=loss, **arguments)
        run, source = self.trainer._run, self.trainer._open(data(), BATCH, static=True)
        step = run.traced(source)
        self.terms = len(step.program.layout.names)
        self.loop = run.open(step, source, 0)
        self.steps = 1
        self.run()
        self.steps = 20
        step = min(self.run() for _ in range(3))  # other programs slow some of them down
        self.steps = 100 * max(1, round(SECONDS / step / 100))  # whole intervals of diagnostics

    def run(self) -> float:
        """Seconds per step."""
        window = LogWindow.empty(self.terms)
        began = time.perf_counter()
        self.loop.run(window, 0, self.steps)  # reads the window
        return (time.perf_counter() - began) / self.steps


class Torch:
    """TorchJD in a process of its own, asked for one round at a time."""

    def __init__(self, python: str, kind: str):
        script = Path(__file__).with_name("torchjd_cost.py")
        self.process = subprocess.Popen(
            [python, str(script), kind, str(SECONDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self) -> float:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return float(json.loads(self.process.stdout.readline()))

    def close(self):
        self.process.kill()


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--torch")
    given = parser.parse_args(argv)
    contestants: dict = {
        "plain": Contestant(),
        "UPGrad": Contestant(balancer=balancing.UPGrad()),
        "UPGrad at=features": Contestant(balancer=balancing.UPGrad(at="features")),
        "diagnostics every 100": Contestant(gradient_diagnostics_every=100),
        "plain, XLA": Contestant(jit_compile=True),
        "UPGrad, XLA": Contestant(balancer=balancing.UPGrad(), jit_compile=True),
    }
    if given.torch:
        contestants["torch plain"] = Torch(given.torch, "plain")
        contestants["TorchJD UPGrad"] = Torch(given.torch, "upgrad")
    times: dict[str, list[float]] = {name: [] for name in contestants}
    try:
        for _ in range(given.rounds):
            order = list(contestants)
            random.shuffle(order)
            for name in order:
                times[name].append(contestants[name].run())
    finally:
        for one in contestants.values():
            if isinstance(one, Torch):
                one.close()
    report = table(times)
    print(report)
    machine = describe_machine()
    text = "\n".join(
        [
            "# What balancing costs",
            "",
            "`python -m benchmarks.balancing_cost`: the CNN, four terms, batch 64; the best of "
            f"{given.rounds} rounds in random order.",
            "",
            report,
            "",
            "```json",
            json.dumps(machine, indent=2),
            "```",
            "",
        ]
    )
    Path(__file__).with_name("results").joinpath("balancing_cost.md").write_text(text)
    return 0


def table(times: dict[str, list[float]]) -> str:
    """Each contestant's best step, and its ratio to its own plain one."""
    lines = ["| step | ms, best | against its plain step |", "|---|---|---|"]
    for name, found in times.items():
        plain = "torch plain" if "orch" in name else "plain, XLA" if "XLA" in name else "plain"
        ratio = min(found) / min(times[plain])
        lines.append(f"| {name} | {1e3 * min(found):.2f} | {ratio:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")
    sys.exit(main())
