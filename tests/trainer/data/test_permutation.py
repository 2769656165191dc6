"""The order of an epoch is a fair permutation at every size: held against what chance allows.

All draws are fixed, so that nothing here fails by chance. The bounds are 5 standard deviations.
"""

import math
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from trainer.data.permutation import FIRST_SHUFFLING, order_of_epoch


@tf.function
def several(examples, seed, epochs):
    return tf.map_fn(
        lambda epoch: order_of_epoch(examples, seed, epoch),
        tf.range(epochs, dtype=tf.int64),
        fn_output_signature=tf.int32,
    )


def orders(examples, seeds, epochs):
    """[seeds * epochs, examples]."""
    drawn = []
    for seed in range(seeds):
        drawn.append(several(examples, seed, epochs).numpy())
    return np.concatenate(drawn)


def test_all_orders_of_five_are_equally_frequent():
    drawn = orders(5, 8, 750)
    expected = len(drawn) / 120
    counts = Counter(map(tuple, drawn))
    chi_squared = sum((counts[p] - expected) ** 2 for p in counts) / expected
    chi_squared += (120 - len(counts)) * expected
    assert abs(chi_squared - 119) < 5 * math.sqrt(2 * 119)


@pytest.mark.parametrize("examples", [5, 10, 37, 100, 500])
def test_every_example_comes_equally_often_at_every_place(examples):
    drawn = orders(examples, 4, 250)
    assert np.array_equal(np.sort(drawn), np.broadcast_to(np.arange(examples), drawn.shape))
    counts = np.zeros((examples, examples))
    np.add.at(counts, (np.arange(examples)[None], drawn), 1)
    expected, free = len(drawn) / examples, (examples - 1) ** 2
    chi_squared = ((counts - expected) ** 2).sum() / expected
    assert abs(chi_squared - free) < 5 * math.sqrt(2 * free)
    # one stands at its own place on average, with variance 1; one follows its predecessor
    for events in ((drawn == np.arange(examples)).sum(), (np.diff(drawn) == 1).sum()):
        assert abs(events - len(drawn)) < 5 * math.sqrt(len(drawn)) + len(drawn) / examples


@pytest.mark.parametrize(("examples", "seeds"), [(50, 60), (500, 30), (2000, 15), (60_000, 3)])
def test_sorted_classes_come_as_evenly_as_chance_allows(examples, seeds):
    """The counts of 5 classes in 50 batches vary as those of drawing without replacement do."""
    batch = max(examples // 50, 5)
    batches, variance = examples // batch, batch * 0.16 * (examples - batch) / (examples - 1)
    ratios, neighbours = [], []
    for order in orders(examples, seeds, 2):
        classes = (order * 5 // examples)[: batches * batch].reshape(batches, batch)
        counts = np.stack([np.sum(classes == c, 1) for c in range(5)])
        ratios.append(((counts - batch / 5) ** 2).mean() / variance)
        neighbours.append(np.corrcoef(order[:-1], order[1:])[0, 1] * math.sqrt(examples))
    allowed = 5 * math.sqrt(2 / (4 * (batches - 1)) / len(ratios))
    assert abs(np.mean(ratios) - 1) < allowed
    assert abs(np.mean(neighbours)) < 5 / math.sqrt(len(neighbours))


def test_seeds_and_epochs_draw_orders_of_their_own():
    drawn = orders(100, 20, 20)
    assert len(set(map(tuple, drawn))) == len(drawn)
    equal = (drawn[:-1] == drawn[1:]).sum(1)  # places that two orders share: one on average
    assert abs(equal.mean() - 1) < 5 / math.sqrt(len(equal))
    for seed in (-1, 2**31, 2**63 + 5):  # any whole number
        assert sorted(order_of_epoch(7, seed, 2**40).numpy()) == list(range(7))


def test_xla_draws_the_same_order():
    compiled = tf.function(lambda epoch: order_of_epoch(1000, 3, epoch), jit_compile=True)
    epoch = tf.constant(7, tf.int64)
    np.testing.assert_array_equal(compiled(epoch), order_of_epoch(1000, 3, epoch))


def test_the_first_shuffling_is_still_that_of_runs_that_began_with_it():
    index, key = tf.range(50, dtype=tf.int64), tf.constant([4, 0, 9], tf.uint32)
    expected = tf.raw_ops.RandomIndexShuffle(index=index, seed=key, max_index=np.int64(49))
    np.testing.assert_array_equal(order_of_epoch(50, 4, 9, FIRST_SHUFFLING), expected)
