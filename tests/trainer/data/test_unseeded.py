"""What of a pipeline draws without a seed is named, and nothing of one that is seeded."""

import keras
import pytest
import tensorflow as tf

from trainer.data.unseeded import find_unseeded


def numbers():
    return tf.data.Dataset.range(8)


def noisy(value):
    return tf.cast(value, tf.float32) + tf.random.uniform([])


UNSEEDED = {
    "a shuffle": lambda: numbers().shuffle(8).batch(2),
    "a shuffle of one of two": lambda: tf.data.Dataset.zip(numbers(), numbers().shuffle(8)),
    "random numbers": lambda: tf.data.Dataset.random().batch(2),
    "a draw in a map": lambda: numbers().map(noisy).batch(2),
    "a map in any order": lambda: numbers().map(
        lambda n: n, num_parallel_calls=2, deterministic=False
    ),
}


@pytest.fixture
def unseeded_process():
    tf.random.set_seed(None)
    yield
    keras.utils.set_random_seed(0)


@pytest.mark.parametrize("kind", UNSEEDED)
def test_what_draws_without_a_seed_is_named(kind, unseeded_process):
    assert len(find_unseeded(UNSEEDED[kind]())) == 1


def test_seeds_of_their_own_or_of_the_process_are_enough(unseeded_process):
    seeded = numbers().shuffle(8, seed=1).map(lambda n: n, num_parallel_calls=2).batch(2)
    assert find_unseeded(seeded) == []
    keras.utils.set_random_seed(3)
    for kind in list(UNSEEDED)[:4]:
        assert find_unseeded(UNSEEDED[kind]()) == [], kind


def test_a_shuffle_that_is_read_again_draws_on_unless_it_is_told_not_to():
    assert len(find_unseeded(numbers().shuffle(8, seed=1), again=True)) == 1
    steady = numbers().shuffle(8, seed=1, reshuffle_each_iteration=False)
    assert find_unseeded(steady, again=True) == []
