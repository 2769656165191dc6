"""Reductions as two sums: Keras's value on the whole, and no other value when split."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from losses import Ratio, reduce_values

REDUCTIONS = ["sum_over_batch_size", "mean", "mean_with_sample_weight", "sum"]


class Values(keras.losses.Loss):
    """Hands its predictions on, so that only the reduction is left."""

    def call(self, y_true, y_pred):
        return y_pred


def test_a_mean_counts_the_valid_elements_alone():
    values = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    mask = tf.constant([[True, False], [True, True]])
    ratio = reduce_values(values, mask=mask)
    assert (float(ratio.numerator), float(ratio.denominator)) == (8.0, 3.0)


def test_weights_per_example_reach_every_time_step():
    values = tf.constant([[1.0, 2.0], [3.0, 4.0]])  # as many steps as examples
    ratio = reduce_values(values, sample_weight=tf.constant([1.0, 10.0]))
    assert (float(ratio.numerator), float(ratio.denominator)) == (73.0, 4.0)


def test_what_is_masked_may_be_nan():
    values = tf.constant([1.0, float("nan")])
    assert float(reduce_values(values, mask=tf.constant([True, False])).value()) == 1.0


def test_nothing_valid_is_zero_not_nan():
    for reduction in REDUCTIONS:
        ratio = reduce_values(tf.ones([3]), reduction=reduction, mask=tf.zeros([3], tf.bool))
        assert float(ratio.value()) == 0.0


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_value_is_that_of_keras(reduction, weighted, masked):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(7, 3)).astype("float32")
    weight = rng.uniform(0, 2, (7, 3)).astype("float32") if weighted else None
    mask = rng.uniform(size=(7, 3)) > 0.4 if masked else None
    y_pred = tf.constant(values)
    if masked:
        y_pred._keras_mask = tf.constant(mask)
    expected = Values(reduction=reduction)(tf.zeros([7, 3]), y_pred, weight)
    found = reduce_values(
        tf.constant(values),
        reduction=reduction,
        sample_weight=None if weight is None else tf.constant(weight),
        mask=None if mask is None else tf.constant(mask),
    )
    assert float(found.value()) == pytest.approx(float(expected), rel=2e-6)


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(REDUCTIONS),
    st.integers(1, 12),
    st.integers(0, 12),
    st.integers(0, 2**31 - 1),
)
def test_the_sums_of_two_parts_are_the_sums_of_the_whole(reduction, size, cut, seed):
    rng = np.random.default_rng(seed)
    values, weight = rng.normal(size=(2, size)).astype("float32")
    mask = rng.uniform(size=size) > 0.3

    def sums(part):
        ratio = reduce_values(
            tf.constant(values[part]),
            reduction=reduction,
            sample_weight=tf.constant(weight[part]),
            mask=tf.constant(mask[part]),
        )
        return np.array([float(ratio.numerator), float(ratio.denominator or 0.0)])

    split = sums(slice(0, cut)) + sums(slice(cut, None))
    np.testing.assert_allclose(split, sums(slice(None)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 2, 3)])
def test_weights_of_another_shape_are_an_error(shape):
    with pytest.raises(ValueError, match=r"Term 'boxes' has values of shape \(2, 4\)"):
        reduce_values(tf.ones([2, 4]), sample_weight=tf.ones(shape), term="boxes")


def test_a_ratio_divides_after_the_sums_and_roots_after_the_division():
    ratio = Ratio(tf.constant([8.0, 3.0]), tf.constant([2.0, 3.0]), after=tf.reduce_prod)
    assert float(ratio.value()) == 4.0
    assert float(Ratio(tf.constant(5.0)).value()) == 5.0
    assert float(Ratio.of_examples([1.0, 2.0]).value()) == 1.5
    assert float(Ratio.by_share(3.0, 7).value()) == 3.0
    assert float(Ratio.once(3.0).value()) == 3.0
    assert float(Ratio.once(3.0).scaled(0.0).value()) == 0.0


def test_a_ratio_that_makes_no_sense_is_an_error():
    with pytest.raises(TypeError, match="received int32"):
        Ratio(tf.constant(1))
    with pytest.raises(ValueError, match="needs after="):
        Ratio(tf.ones([3]), 1.0)
