"""An example's random numbers: uniform, normal, its own, and the same wherever it stands."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from losses.example_random import example_keys, normal, stateless_seeds, uniform


def inputs(n=40):
    rng = np.random.default_rng(0)
    return {
        "image": rng.normal(size=(n, 3, 2)).astype("float32"),
        "words": rng.integers(0, 2, (n, 4)),
        "flag": rng.integers(0, 2, n).astype(bool),
    }


def test_an_example_has_its_key_wherever_it_stands():
    x = inputs()
    keys = example_keys(x, 3, 7).numpy()
    order = np.random.default_rng(1).permutation(40)
    moved = example_keys({k: v[order][:11] for k, v in x.items()}, 3, tf.constant(7, tf.int64))
    np.testing.assert_array_equal(moved, keys[order][:11])
    assert len(set(keys)) == 40 and keys.min() >= 0 and keys.max() < 2**32


def test_another_seed_step_or_input_gives_other_keys():
    x = inputs()
    keys = example_keys(x, 0, 0).numpy()
    for other in (example_keys(x, 1, 0), example_keys(x, 0, 1), example_keys(x, -1, 2**40)):
        assert not set(keys) & set(other.numpy())
    for name in x:
        changed = {**x, name: np.roll(x[name], 1, axis=0)}
        assert np.mean(keys == example_keys(changed, 0, 0).numpy()) < 0.6


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int8", "uint8", "string"])
def test_every_dtype_has_keys(dtype):
    values = tf.range(50, dtype=tf.int32)
    values = tf.strings.as_string(values) if dtype == "string" else tf.cast(values, dtype)
    keys = example_keys(values, 0, 0).numpy()
    assert keys.shape == (50,) and len(set(keys)) == 50


def test_the_draws_are_uniform_and_normal_and_independent():
    keys = example_keys(np.arange(400.0, dtype="float32"), 0, 0)
    u, z = uniform(keys, 50).numpy(), normal(keys, 50).numpy()
    assert u.min() > 0 and u.max() < 1
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-3
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    for draws in (u, u.T):
        between = np.corrcoef(draws)[np.triu_indices(len(draws), 1)]
        assert np.abs(between).max() < 6 / np.sqrt(draws.shape[1])
        assert np.mean(between) == pytest.approx(0, abs=0.01)


def test_the_compiler_draws_the_same():
    x = inputs()

    def draw(step):
        return uniform(example_keys(x, 5, step), 9)

    compiled = tf.function(draw, jit_compile=True)(tf.constant(3, tf.int64))
    np.testing.assert_array_equal(compiled, draw(3))


def test_the_seeds_are_pairs_of_int32():
    seeds = stateless_seeds(example_keys(inputs(), 0, 0))
    assert seeds.shape == (40, 2) and seeds.dtype == tf.int32
    draws = [float(tf.random.stateless_uniform([], seed)) for seed in seeds]
    assert len(set(draws)) == 40
