"""The bound of a step: its matrix products alone, forward and backward, on the same shapes.

Each workload has a bare network here: its products and convolutions, without biases, activations,
norms, loss and update, and with no more than slices between them. Its gradients are formed of the
output itself, so that each product of the real step is done once, and nothing else is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from benchmarks.references import calls

DRAW = np.random.default_rng(0)
BATCHES = 64  # different ones, so that no product is taken out of the loop


class Bare(NamedTuple):
    """A network of products.

    Attributes:
      inputs: the shape of a batch, float32.
      weights: what it multiplies by, drawn; outputs keep the size of inputs, since numbers that
        vanish are slow to compute.
      forward: (x, weights) -> the output.
      of_words: whether the gradient of the batch is formed too, as that of an embedding.
    """

    inputs: tuple[int, ...]
    weights: list
    forward: Callable
    of_words: bool = False


def drawn(*shape: int):
    """A weight that keeps the size of what it multiplies."""
    return DRAW.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))


def mlp(batch: int, units: int) -> Bare:
    def forward(x, weights):
        return (x @ weights[0]) @ weights[1]

    return Bare((batch, 64), [drawn(64, units), drawn(units, 10)], forward)


def cnn(batch: int) -> Bare:
    def forward(x, weights):
        x = tf.nn.conv2d(x, weights[0], 1, "VALID")[:, :7, :7]  # what pooling leaves
        x = tf.nn.conv2d(x, weights[1], 1, "VALID")
        return tf.reshape(x, (batch, -1)) @ weights[2]

    weights = [drawn(3, 3, 1, 16), drawn(3, 3, 16, 32), drawn(800, 10)]
    return Bare((batch, 16, 16, 1), weights, forward)


def lstm(batch: int, steps: int = 16, units: int = 32) -> Bare:
    def forward(x, weights):
        inputs = tf.reshape(tf.reshape(x, (-1, units)) @ weights[0], (steps, batch, 4 * units))
        hidden = inputs[0, :, :units]
        for each in range(1, steps):
            gates = hidden @ weights[1]
            hidden = gates[:, :units] + inputs[each, :, :units]  # else it would not be read
        return hidden @ weights[2]

    weights = [drawn(units, 4 * units), drawn(units, 4 * units), drawn(units, 10)]
    return Bare((steps, batch, units), weights, forward, True)


def transformer(batch: int, length: int = 16, units: int = 32, heads: int = 4) -> Bare:
    size = units // heads

    def block(x, weights):
        query, key, value = (
            tf.transpose(tf.reshape(x @ w, (batch, length, heads, size)), (0, 2, 1, 3))
            for w in weights[:3]
        )
        mixed = tf.matmul(tf.matmul(query, key, transpose_b=True), value)
        x = tf.reshape(tf.transpose(mixed, (0, 2, 1, 3)), (-1, units)) @ weights[3]
        return (x @ weights[4]) @ weights[5]

    def forward(x, weights):
        x = tf.reshape(x, (-1, units))
        for first in range(0, 24, 6):
            x = block(x, weights[first : first + 6])
        return x[:batch] @ weights[24]

    grown = np.sqrt(size * length)  # by scores that nothing divides
    weights = []
    for _ in range(4):
        weights += [drawn(units, units) for _ in range(3)]
        weights += [drawn(units, units) / grown, drawn(units, 64), drawn(64, units)]
    return Bare((batch, length, units), [*weights, drawn(units, 10)], forward, True)


BARE: dict[str, Callable[[int], Bare]] = {
    "mlp": lambda batch: mlp(batch, 128),
    "mlp_16x64": lambda batch: mlp(batch, 64),
    "cnn": cnn,
    "lstm": lstm,
    "lstm_unrolled": lstm,
    "transformer": transformer,
}


def products_alone(name: str, jit_compile: bool):
    """A function of (workload, strategy) that returns a contestant: the products of many steps.

    Args:
      name: of the workload.
      jit_compile: whether XLA makes one program of all steps.
    """

    def make(workload, strategy=None):
        bare = BARE[name](workload.batch)
        weights = [tf.constant(weight, tf.float32) for weight in bare.weights]
        batches = tf.constant(DRAW.normal(size=(BATCHES, *bare.inputs)), tf.float32)

        @tf.function(jit_compile=jit_compile, autograph=False)
        def loop(batches, weights, steps):
            def body(step, _):
                return step + 1, gradients(bare, batches[step % BATCHES], weights)

            first = gradients(bare, batches[0], weights)
            _, last = tf.while_loop(
                lambda step, _: step < steps, body, (0, first), parallel_iterations=1
            )
            return last

        def run(steps):
            began = time.perf_counter()
            for count in calls(steps):
                last = loop(batches, weights, tf.constant(count))
            last[0].numpy()
            return time.perf_counter() - began

        return run

    return make


def gradients(bare: Bare, x, weights) -> list:
    """What the products of a step leave: the gradient of each weight, and of words."""
    of = [*weights, x] if bare.of_words else list(weights)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(of)
        output = bare.forward(x, weights)
    return tape.gradient(output, of, output_gradients=output)
