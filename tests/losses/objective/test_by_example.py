"""What each example adds to a term's two sums: over its pixels, by weights and masks."""

import numpy as np
import pytest
import tensorflow as tf

import losses
from losses import Ratio, reduce_values
from losses.objective import compiled_ratios, name_losses

VALUES = tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
WEIGHTS = tf.constant([2.0, 0.0, 1.0])
MASK = tf.constant([[True, False], [True, True], [True, True]])


@pytest.mark.parametrize(
    ("reduction", "numerators", "counts"),
    [
        ("sum_over_batch_size", [2, 0, 11], [1, 2, 2]),  # the mask counts, the weights do not
        ("mean_with_sample_weight", [2, 0, 11], [2, 0, 2]),
        ("sum", [2, 0, 11], None),
    ],
)
def test_an_example_adds_up_its_weighted_pixels(reduction, numerators, counts):
    ratio = reduce_values(VALUES, reduction=reduction, sample_weight=WEIGHTS, mask=MASK)
    parts = ratio.by_example()
    assert parts.numerators.numpy().tolist() == numerators
    assert (parts.counts if counts is None else parts.counts.numpy().tolist()) == counts
    assert parts.counted.numpy().tolist() == [True, False, True]
    assert float(tf.reduce_sum(parts.numerators)) == float(ratio.numerator)


def test_the_value_of_an_example_is_the_mean_over_its_pixels():
    parts = reduce_values(VALUES).by_example()
    assert parts.values.numpy().tolist() == [1.5, 3.5, 5.5]
    assert parts.counts.numpy().tolist() == [2.0, 2.0, 2.0]
    assert parts.counted is None


def test_a_replica_that_is_padding_adds_nothing():
    parts = reduce_values(VALUES, sample_weight=WEIGHTS).scaled(tf.constant(0.0)).by_example()
    assert not np.any(parts.numerators) and not np.any(parts.counts)


def of_loss(loss, y_true, y_pred, **arguments):
    named = name_losses(loss, y_pred)
    return compiled_ratios(
        named, y=y_true, y_pred=y_pred, sample_weight=None, examples=3.0, **arguments
    )[named[0].name]


def test_a_weighted_mean_over_the_batch_has_values_of_examples_and_its_root_has_none():
    labels, outputs = np.zeros((3, 2), "float32"), np.array([[1, 3], [2, 0], [0, 0]], "float32")
    arguments = {"weights": [3.0, 1.0], "reduction_point": "batch"}
    ratio = of_loss(losses.WeightedMSE(**arguments), labels, tf.constant(outputs))
    assert ratio.by_example().values.numpy().tolist() == [3.0, 3.0, 0.0]  # (3 + 9) / 4, 12 / 4
    assert float(ratio.value()) == 2.0
    root = of_loss(losses.WeightedRMSE(**arguments), labels, tf.constant(outputs))
    assert root.without_examples == "it is a function of sums over the batch"


def test_a_mined_triplet_belongs_to_its_anchor():
    loss = losses.Triplet(margin=1.0, mining="hard")
    ratio = of_loss(loss, np.array([0, 0, 1]), tf.constant([[0.0], [2.0], [3.0]]))
    assert ratio.by_example().values.numpy().tolist() == [0.0, 2.0, 0.0]


@pytest.mark.parametrize(
    ("ratio", "why"),
    [
        (Ratio.once(2.0), "it is of no example: every replica computes the same"),
        (Ratio.by_share(2.0, 4.0), "it is one number of the batch"),
        (Ratio(tf.constant(2.0), 4.0, after=tf.sqrt), "it is a function of sums over the batch"),
        (Ratio(tf.constant(2.0), 4.0, values=tf.constant(2.0)), "its values have no axis"),
        (Ratio(tf.constant(2.0), 4.0, values=tf.ones([2])), "has values=, but no counts="),
    ],
)
def test_what_has_no_value_per_example_says_why(ratio, why):
    assert why in ratio.without_examples
    with pytest.raises(ValueError, match="No example has a value"):
        ratio.by_example()
