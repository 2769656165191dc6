"""Parts of one element with different numbers of examples are refused, by name and length."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import Trainer
from trainer.data.lengths import check_lengths, of_equal_lengths


def pairs(first, second, drop=False):
    """Elements of `first` rows beside `second` ones."""
    datasets = (tf.data.Dataset.range(24).batch(n, drop_remainder=drop) for n in (first, second))
    return tf.data.Dataset.zip(*datasets)


def test_arrays_are_named_with_their_lengths():
    batch = {"image": np.zeros([4, 2]), "text": np.zeros([3])}, np.zeros([4])
    with pytest.raises(ValueError, match=r"data has .* x\['image'\] 4, x\['text'\] 3, y 4\."):
        check_lengths(batch, "data")


def test_static_lengths_are_refused_before_anything_is_read():
    with pytest.raises(ValueError, match=r"parts of different lengths: x 2, y 3\."):
        of_equal_lengths(pairs(2, 3, drop=True), "data")


def test_other_lengths_are_refused_at_their_element():
    iterator = iter(of_equal_lengths(pairs(4, 6).take(1), "data"))
    with pytest.raises(tf.errors.InvalidArgumentError, match="different lengths: x 4, y 6"):
        next(iterator)


def test_equal_lengths_pass_as_they_are():
    dataset = tf.data.Dataset.from_tensor_slices(((np.arange(5.0),), {"a": np.arange(5)})).batch(2)
    checked = of_equal_lengths(dataset, "data")
    assert checked.element_spec == dataset.element_spec
    assert int(checked.cardinality()) == 3
    for element, same in zip(dataset, checked, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, element, same)


def test_ragged_parts_are_counted_by_rows():
    rows = tf.ragged.constant([[1.0], [2.0, 3.0], [4.0]])
    dataset = tf.data.Dataset.from_tensor_slices((rows, np.arange(3.0))).batch(2)
    assert len(list(of_equal_lengths(dataset, "data"))) == 2


@pytest.mark.parametrize("ways", ["fit", "evaluate"])
def test_a_last_element_of_other_lengths_ends_a_run_with_its_lengths(ways):
    x, y = (tf.data.Dataset.from_tensor_slices(np.ones([n, 1], "float32")) for n in (6, 7))
    data = tf.data.Dataset.zip(x.batch(4), y.batch(4))
    trainer = Trainer(
        keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]), optimizer="sgd", loss="mse"
    )
    with pytest.raises(ValueError, match="different lengths: x 2, y 3"):
        if ways == "fit":
            trainer.fit(data, steps=2, verbose=False)
        trainer.evaluate(data)


def test_a_dict_of_tuples_of_other_lengths_is_told_of_sources():
    batch = {"labelled": (np.zeros((4, 2)), np.zeros(4)), "pool": (np.zeros((6, 2)),)}
    with pytest.raises(ValueError, match=r"give trainer\.Sources\(labelled=\.\.\., pool="):
        check_lengths(batch, "data")
