"""The process in which JAX trains: `main(file, name)`, which `contestant.py` starts.

The file is an npz of "x", "y", "batch" and the weights "0", "1", ... in Keras's order. Each line
read is a number of steps; the answer is JSON: the seconds and the processor time that these, or
somewhat more, took, and how many they were. The line "losses N" asks for the losses of N steps over
the arrays in their order. The first answer, without a question, is JAX's version.
"""

from __future__ import annotations

import functools
import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.in_jax.models import MODELS

ONE_BY_ONE = {"cnn"}
RATE, EPSILON, DECAY = 1e-3, 1e-7, 0.999


def epsilon_of_keras(count):
    """Keras adds epsilon before the bias of the second moment is taken out, optax after it."""
    return EPSILON / jnp.sqrt(1 - DECAY ** (count + 1))


OPTIMIZER = optax.adam(RATE, b2=DECAY, eps=EPSILON)
# for the comparison of losses: dividing gradients of 1e-6, epsilon is seen
AS_KERAS = optax.inject_hyperparams(optax.adam)(RATE, b2=DECAY, eps=epsilon_of_keras)


def loss_of(name, weights, x, y):
    logits = MODELS[name](iter(weights), x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def taken(name, optimizer, state, x, y, indices):
    """The state after a step on the examples of some indices, and the loss before it."""
    weights, slots = state
    loss_at = functools.partial(loss_of, name)
    loss, gradients = jax.value_and_grad(loss_at)(weights, x[indices], y[indices])
    updates, slots = optimizer.update(gradients, slots)
    return (optax.apply_updates(weights, updates), slots), loss


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def take_step(name, optimizer, state, x, y, indices):
    return taken(name, optimizer, state, x, y, indices)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def scan_steps(name, optimizer, state, x, y, indices):
    def step(state, each):
        return taken(name, optimizer, state, x, y, each)

    return jax.lax.scan(step, state, indices)


def take_steps(name, optimizer, state, x, y, indices):
    """The state and the losses after a step for each row of indices, int32 [steps, B].

    On a CPU a convolution inside a scan takes ten times as long as one outside: such a model's
    steps are programs of their own.
    """
    if name not in ONE_BY_ONE:
        return scan_steps(name, optimizer, state, x, y, indices)
    losses = []
    for each in indices:
        state, loss = take_step(name, optimizer, state, x, y, each)
        losses.append(loss)
    return state, jnp.stack(losses)


class Training:
    """A model that is trained epoch by epoch, each in an order of its own."""

    def __init__(self, file, name):
        self._name, self._batch = name, int(file["batch"])
        self._arrays = jnp.asarray(file["x"]), jnp.asarray(file["y"])
        self._examples = len(file["x"])
        self._start = [file[str(index)] for index in range(len(file.files) - 3)]
        self._state = self._first(OPTIMIZER)
        self._key = jax.random.key(0)
        self._permuted = jax.jit(lambda key: jax.random.permutation(key, self._examples))

    def losses(self, steps):
        """The losses of that many first steps over the arrays in their order."""
        indices = jnp.arange(steps * self._batch).reshape(-1, self._batch)
        _, losses = take_steps(self._name, AS_KERAS, self._first(AS_KERAS), *self._arrays, indices)
        return [float(loss) for loss in losses]

    def run(self, steps):
        """At least that many steps, in whole epochs."""
        of_epoch = self._examples // self._batch
        epochs = -(-steps // of_epoch)
        began, used = time.perf_counter(), time.process_time()
        for _ in range(epochs):
            self._key, key = jax.random.split(self._key)
            indices = self._permuted(key).reshape(-1, self._batch)
            self._state, losses = take_steps(
                self._name, OPTIMIZER, self._state, *self._arrays, indices
            )
        np.asarray(losses)
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
        return {"seconds": seconds, "cpu": cpu, "steps": epochs * of_epoch}

    def _first(self, optimizer):
        weights = [jnp.asarray(weight) for weight in self._start]
        return weights, optimizer.init(weights)


def main(file, name):
    with np.load(file) as loaded:
        training = Training(loaded, name)
    print(json.dumps(jax.__version__), flush=True)
    for line in sys.stdin:
        *what, steps = line.split()
        answer = training.losses(int(steps)) if what else training.run(int(steps))
        print(json.dumps(answer), flush=True)
