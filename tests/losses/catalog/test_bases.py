"""Losses that compare examples: two replicas give the gradient of one, however the batch is split.

What a replica does is done here as the loop does it: `compiled_ratios`, the sums over replicas,
and gradients of the numerators seeded with the derivative of the total, summed over replicas.
"""

import numpy as np
import pytest
import tensorflow as tf

import losses
from losses.catalog.bases import weight_of_examples
from losses.distributed.gather import own_examples
from losses.objective.compiled import compiled_ratios, name_losses
from losses.objective.layout import Layout

RNG = np.random.default_rng(0)
X = RNG.normal(size=(7, 5)).astype("float32")
LABELS = np.array([0, 1, 0, 2, 1, 0, 2], "float32")
WEIGHT = np.array([1.0, 2.0, 0.0, 1.0, 0.5, 1.0, 3.0], "float32")
KERNEL = RNG.normal(size=(5, 8)).astype("float32")
SPLITS = [(4, 3), (6, 1), (1, 6), (7, 0), (0, 7)]


def same(y):
    return y


def stacked(y):
    return tf.reshape(y, [-1, 2, 4])


def map_of_classes(y):
    return tf.sigmoid(tf.reshape(y, [-1, 2, 2, 2]))


def grid(y):
    return tf.reshape(y, [-1, 1, 1, 8])


MASKS = RNG.integers(0, 2, (7, 2, 2, 2)).astype("float32")
BOXES = np.concatenate(
    [RNG.uniform(0.1, 0.9, (7, 1, 1, 1, 4)), RNG.integers(0, 2, (7, 1, 1, 1, 4))], -1
).astype("float32")
CASES = {
    "NTXent": (losses.NTXent(0.3), LABELS, stacked),
    "SupCon": (losses.SupCon(0.3), LABELS, same),
    "Triplet semihard": (losses.Triplet(), LABELS, same),
    "Triplet hard": (losses.Triplet(mining="hard", distance="squared-L2"), LABELS, same),
    "Triplet soft angular": (losses.Triplet(soft=True, distance="angular"), LABELS, same),
    "Triplet sum": (losses.Triplet(reduction="sum"), LABELS, same),
    "Triplet weighted": (losses.Triplet(reduction="mean_with_sample_weight"), LABELS, same),
    "Dice": (losses.Dice(), MASKS, map_of_classes),
    "Dice of classes": (losses.Dice(axis=(0, 1, 2)), MASKS, map_of_classes),
    "Dice of examples": (losses.Dice(axis=(1, 2, 3)), MASKS, map_of_classes),
    "Tversky": (losses.Tversky(alpha=0.7, beta=0.2), MASKS, map_of_classes),
    "YOLOv3": (losses.YOLOv3([[0.5, 0.5]], 3), BOXES, grid),
}


def share_of_gradient(loss, head, kernel, x, y, weight, add, alive=None):
    """The total's value and this replica's share of its gradient; `add` sums over replicas."""
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        y_pred = head(tf.tanh(tf.matmul(x, kernel)))
        with own_examples(alive):
            ratios = compiled_ratios(
                name_losses(loss, y_pred),
                y=y,
                y_pred=y_pred,
                sample_weight=weight,
                examples=tf.cast(tf.shape(x)[0], tf.float32),
            )
        if alive is not None:
            ratios = {name: ratio.scaled(alive) for name, ratio in ratios.items()}
        layout = Layout.of(ratios)
        numerators, denominators = layout.pack(ratios)
    sums = add(numerators)
    with tf.GradientTape() as total_tape:
        total_tape.watch(sums)
        total = tf.reduce_sum(layout.raw(sums, add(denominators)))
    seeds = total_tape.gradient(total, sums)
    return total, tape.gradient(numerators, kernel, output_gradients=seeds)


def on_one(case, x, y, weight):
    loss, _, head = CASES[case]
    return share_of_gradient(loss, head, tf.constant(KERNEL), x, y, weight, tf.identity)


def on_two(strategy, case, parts, alive=None):
    """parts: for each replica its x, y, weight."""
    loss, _, head = CASES[case]
    with strategy.scope():
        kernel = tf.Variable(KERNEL)

    def of_replica(index):
        return strategy.experimental_distribute_values_from_function(
            lambda context: (
                None
                if parts[0][index] is None
                else tf.constant(parts[context.replica_id_in_sync_group][index])
            )
        )

    @tf.function
    def step(x, y, weight):
        def replica(x, y, weight):
            context = tf.distribute.get_replica_context()
            mine = context.replica_id_in_sync_group
            return share_of_gradient(
                loss,
                head,
                tf.convert_to_tensor(kernel),
                x,
                y,
                weight,
                lambda value: context.all_reduce("SUM", value),
                None if alive is None else tf.constant(alive)[mine],
            )

        return strategy.run(replica, args=(x, y, weight))

    weight = None if parts[0][2] is None else of_replica(2)
    total, gradient = map(
        strategy.experimental_local_results, step(of_replica(0), of_replica(1), weight)
    )
    return total[0], sum(g.numpy() for g in gradient)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.one_in(3, of="case")
@pytest.mark.parametrize("case", CASES)
def test_two_replicas_give_the_gradient_of_one(two_replicas, case, weighted):
    y, weight = CASES[case][1], WEIGHT if weighted else None
    expected, expected_gradient = on_one(case, X, y, weight)
    for size, _ in SPLITS if case in ("SupCon", "Triplet semihard") else SPLITS[:2]:
        parts = [
            [None if a is None else a[part] for a in (X, y, weight)]
            for part in (slice(size), slice(size, None))
        ]
        total, gradient = on_two(two_replicas, case, parts)
        np.testing.assert_allclose(total, expected, rtol=1e-6)
        scale = np.abs(expected_gradient).max()
        np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6 * scale)


@pytest.mark.parametrize("case", ["NTXent", "SupCon", "Triplet semihard", "Triplet hard", "Dice"])
def test_a_replica_with_a_lent_example_adds_nothing(two_replicas, case):
    y = CASES[case][1]
    expected, expected_gradient = on_one(case, X[:1], y[:1], None)
    parts = [[X[:1], y[:1], None]] * 2
    total, gradient = on_two(two_replicas, case, parts, alive=[0.0, 1.0])
    np.testing.assert_allclose(total, expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)


def test_the_weight_of_an_example_is_its_sample_weight_where_the_mask_lets_it():
    y_pred = tf.ones([3, 4])
    assert weight_of_examples(y_pred) is None
    y_pred._keras_mask = tf.constant([True, False, True])
    found = weight_of_examples(y_pred, [[1.0], [2.0], [3.0]])
    np.testing.assert_array_equal(found, [1.0, 0.0, 3.0])
    with pytest.raises(ValueError, match=r"mine takes .* sample weights have shape \(2,\)"):
        weight_of_examples(y_pred, [1.0, 2.0], "mine")
