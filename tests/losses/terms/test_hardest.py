"""The hardest share of a batch: which examples are kept, and what is then the term's value."""

import numpy as np
import pytest
import tensorflow as tf

import losses
from losses import Ratio, reduce_values
from losses.terms.hardest import Hardest, keep_hardest

VALUES = [0.5, 4.0, 1.0, 3.0, 2.0]


def kept(values, share, **arguments):
    """The value of the hardest, and the numbers of those that are kept."""
    ratio = keep_hardest("ce", reduce_values(tf.constant(values), **arguments), share)
    rows = tf.reshape(ratio.values, [len(values), -1])
    return float(ratio.value()), np.flatnonzero(tf.reduce_any(rows != 0, 1)).tolist()


@pytest.mark.parametrize(
    ("share", "value", "examples"),
    [(1e-6, 4.0, [1]), (0.4, 3.5, [1, 3]), (0.41, 3.0, [1, 3, 4]), (1.0, 2.1, [0, 1, 2, 3, 4])],
)
def test_the_share_is_rounded_up_and_the_value_is_the_mean_of_what_is_kept(share, value, examples):
    assert kept(VALUES, share) == (pytest.approx(value), examples)


@pytest.mark.parametrize("share", [0.07, 0.29, 0.57, 0.58])  # times 100 they are a bit too large
def test_the_number_is_that_of_the_decimal(share):
    values = np.arange(1.0, 101.0, dtype="float32")
    assert len(kept(values, share)[1]) == round(100 * share)


def test_of_two_of_one_value_the_first_is_the_harder():
    assert kept([1.0, 2.0, 2.0, 2.0], 0.5)[1] == [1, 2]


def test_what_does_not_count_is_never_kept_nor_counted_in_the_share():
    weights = tf.constant([1.0, 0.0, 2.0, 0.0, 1.0])  # weighted values 0.5, 2, 2: half are 2 of 3
    assert kept(VALUES, 0.5, sample_weight=weights) == (2.0, [2, 4])
    mean = kept(VALUES, 0.5, sample_weight=weights, reduction="mean_with_sample_weight")
    assert mean == (pytest.approx((2.0 * 1.0 + 2.0) / 3.0), [2, 4])  # 1 and 2 are the hardest
    assert kept(VALUES, 1.0, sample_weight=tf.zeros([5])) == (0.0, [])


def test_pixels_are_kept_with_their_example():
    values = [[1.0, 1.0], [9.0, 0.5], [3.0, 3.0]]
    mask = tf.constant([[True, True], [False, True], [True, False]])
    assert kept(values, 0.5, mask=mask) == (pytest.approx((1.0 + 1.0 + 3.0) / 3.0), [0, 2])
    assert kept(values, 0.5, reduction="sum")[0] == 9.5 + 6.0


def test_what_is_not_finite_is_kept_and_seen():
    assert np.isnan(kept([1.0, float("nan"), 5.0], 0.3)[0])


def test_the_gradient_is_that_of_the_kept_alone():
    values = tf.constant(VALUES)
    with tf.GradientTape() as tape:
        tape.watch(values)
        value = keep_hardest("ce", Ratio.of_examples(values), 0.4).value()
    assert tape.gradient(value, values).numpy().tolist() == [0.0, 0.5, 0.0, 0.5, 0.0]


def test_a_term_without_values_of_examples_is_refused_by_name():
    with pytest.raises(ValueError, match="term 'dice' has none: it is one number of the batch"):
        keep_hardest("dice", Ratio.by_share(1.0, 4.0), 0.5)


@pytest.mark.parametrize("share", [0, -0.1, 1.5, float("nan"), True, "0.5"])
def test_what_is_no_share_is_refused(share):
    accepted = r"give a share above 0 and of at most 1, such as 0\.25"
    with pytest.raises(ValueError, match=rf"hardest=.*{accepted}"):
        Hardest.of(share)
    with pytest.raises(ValueError, match=rf"hardest\['ce'\]=.*{accepted}"):
        Hardest.of({"ce": share})
    with pytest.raises(ValueError, match=rf"FunctionTerm\(hardest=.*{accepted}"):
        losses.term(tf.square, name="squares", hardest=share)


def test_a_term_keeps_its_share_in_its_configuration():
    class Size(losses.Term):
        pass

    assert Size.from_config(Size(hardest=0.5).get_config()).hardest == 0.5
    assert "hardest" not in Size().get_config()
