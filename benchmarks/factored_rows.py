"""What balancing costs term by term and in one pass, in processor time of one thread.

    python -m benchmarks.factored_rows [MODEL ...] [--rounds=40]

Each model with 4 and 16 terms: UPGrad over all shared variables against the plain step of the same
model, the contestants in turns of a few steps. Processor time of one thread says what a step
costs on a machine that others use too; prints one line for each contestant.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

from losses import balancing
from trainer import Trainer
from trainer.balancing import jacobian
from trainer.loop.window import LogWindow

BATCH, EXAMPLES, SECONDS = 64, 1024, 0.06
layers = keras.layers


def cnn():
    x = inputs = keras.Input((16, 16, 1))
    x = layers.MaxPooling2D()(layers.Conv2D(16, 3, activation="relu")(x))
    x = layers.Flatten()(layers.Conv2D(32, 3, activation="relu")(x))
    return inputs, layers.Dense(64, activation="relu")(x)


def mlp():
    x = inputs = keras.Input((256,))
    for _ in range(3):
        x = layers.Dense(1024, activation="relu")(x)
    return inputs, x


def small_mlp():
    inputs = keras.Input((64,))
    return inputs, layers.Dense(128, activation="relu")(inputs)


def words():
    inputs = keras.Input((16,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(20000, 64)(inputs))
    return inputs, layers.Dense(64, activation="relu")(x)


MODELS = {"cnn": cnn, "mlp": mlp, "small_mlp": small_mlp, "words": words}


class Contestant:
    """One way to train a model, ready to run steps.

    Args:
      model: of `MODELS`.
      terms: int, m heads with a loss each.
      together: whether one backward pass takes all terms through what they share.
      arguments: of the Trainer.
    """

    def __init__(self, model, terms: int, together: bool = True, **arguments):
        names = [f"t{i:02}" for i in range(terms)]

        def build():
            keras.utils.set_random_seed(1)
            inputs, trunk = model()
            return keras.Model(inputs, {n: layers.Dense(10, name=n)(trunk) for n in names})

        draw = np.random.default_rng(0)
        inputs, _ = model()
        shape = (EXAMPLES, *inputs.shape[1:])
        ids = inputs.dtype == "int32"
        x = draw.integers(0, 20000, shape) if ids else draw.normal(size=shape)
        y = {n: draw.integers(0, 10, EXAMPLES).astype("int32") for n in names}
        loss = {n: keras.losses.SparseCategoricalCrossentropy(True) for n in names}
        trainer = Trainer(build, optimizer=keras.optimizers.SGD(1e-3), loss=loss, **arguments)
        run = trainer._run
        source = trainer._open((x.astype("int32" if ids else "float32"), y), BATCH, static=True)
        choose = jacobian.shared_rows if together else lambda *_: None
        with mock.patch.object(jacobian, "shared_rows", choose):
            step = run.traced(source)
            self.terms = len(step.program.layout.names)
            self.loop = run.open(step, source, 0)
            self.steps = 1
            self.run()
        self.steps = 20  # one cycle of every=20
        self.steps = 20 * max(1, round(SECONDS / min(self.run() for _ in range(3)) / 20))

    def run(self) -> float:
        """Seconds of processor time per step."""
        window = LogWindow.empty(self.terms)
        began = time.process_time()
        self.loop.run(window, 0, self.steps)  # reads the window
        return (time.process_time() - began) / self.steps


def measure(name: str, terms: int, rounds: int) -> None:
    """Prints one line for each way to train a model with some terms."""
    model, upgrad = MODELS[name], balancing.UPGrad
    contestants = {
        "plain": Contestant(model, terms),
        "UPGrad, one by one": Contestant(model, terms, together=False, balancer=upgrad()),
        "UPGrad": Contestant(model, terms, balancer=upgrad()),
        "UPGrad(every=20)": Contestant(model, terms, balancer=upgrad(every=20)),
    }
    times: dict[str, list[float]] = {way: [] for way in contestants}
    for _ in range(rounds):
        for way, contestant in contestants.items():
            times[way].append(contestant.run())
    for way, found in times.items():
        plain = times["plain"]
        ratio = statistics.median(a / b for a, b in zip(found, plain, strict=True))
        best = min(found) / min(plain)
        print(
            f"| {name} | {terms} | {way} | {1e3 * min(found):.2f} | {best:.2f} ({ratio:.2f}) |",
            flush=True,
        )


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--terms", type=int, nargs="*", default=[4, 16])
    given = parser.parse_args(argv)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    print("| model | terms | step | ms, best | of its plain step, best (median) |")
    print("|---|---|---|---|---|")
    for name in given.models or MODELS:
        for terms in given.terms:
            measure(name, terms, given.rounds)
    return 0


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")
    sys.exit(main())
