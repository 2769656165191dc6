"""The suite's five models in JAX: functions of Keras's weights, in Keras's order, and a batch.

Each is (weights, x) -> logits, float32 [B, 10]; `weights` is an iterator of arrays.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

NORM = 1e-3  # Keras's epsilon of a layer normalization


def dense(weights, x):
    return x @ next(weights) + next(weights)


def mlp(weights, x):
    return dense(weights, jax.nn.relu(dense(weights, x)))


def convolution(weights, x):
    kernel, bias = next(weights), next(weights)
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=dimensions) + bias


def cnn(weights, x):
    x = jax.nn.relu(convolution(weights, x))
    window = (1, 2, 2, 1)
    x = lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
    x = jax.nn.relu(convolution(weights, x))
    return dense(weights, x.reshape(x.shape[0], -1))


def lstm(weights, words, unroll=1):
    """An embedding whose word 0 is masked, an LSTM that skips it, a dense layer.

    Args:
      unroll: so many of its steps make one of the scan's.
    """
    embedding, kernel, recurrent, bias = (next(weights) for _ in range(4))
    inputs = embedding[words.T] @ kernel + bias  # [T, B, 4 * units]: independent of the state

    def advance(state, at):
        inputs, known = at
        hidden, cell = state
        i, f, c, o = jnp.split(inputs + hidden @ recurrent, 4, axis=-1)
        following = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(c)
        output = jax.nn.sigmoid(o) * jnp.tanh(following)
        known = known[:, None]
        return (jnp.where(known, output, hidden), jnp.where(known, following, cell)), None

    zeros = jnp.zeros((words.shape[0], recurrent.shape[0]))
    (hidden, _), _ = lax.scan(advance, (zeros, zeros), (inputs, words.T != 0), unroll=unroll)
    return dense(weights, hidden)


def normalised(weights, x):
    gamma, beta = next(weights), next(weights)
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + NORM) * gamma + beta


def attention(weights, x):
    def projected():
        return jnp.einsum("btd,dhk->bthk", x, next(weights)) + next(weights)

    query, key, value = projected(), projected(), projected()
    scores = jnp.einsum("bthk,bshk->bhts", query * query.shape[-1] ** -0.5, key)
    mixed = jnp.einsum("bhts,bshk->bthk", jax.nn.softmax(scores), value)
    return jnp.einsum("bthk,hkd->btd", mixed, next(weights)) + next(weights)


def transformer(weights, words, blocks=4):
    x = next(weights)[words]
    for _ in range(blocks):
        x = x + attention(weights, normalised(weights, x))
        inner = jax.nn.gelu(dense(weights, normalised(weights, x)), approximate=False)
        x = x + dense(weights, inner)
    return dense(weights, normalised(weights, x).mean(1))


MODELS = {
    "mlp": mlp,
    "mlp_16x64": mlp,
    "cnn": cnn,
    "lstm": lstm,
    "lstm_unrolled": functools.partial(lstm, unroll=True),
    "transformer": transformer,
}
