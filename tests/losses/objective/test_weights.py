"""The weights of the terms: what was given for each, by name, part and list."""

import keras
import pytest
import tensorflow as tf

import losses
from losses.objective.weights import GivenWeights, Weight, heads, weights_by_name


def test_a_term_is_a_part_of_the_terms_before_its_slashes():
    assert heads("a/b/c") == ["a/b", "a"]
    assert heads("a") == []


def test_the_weight_of_a_term_is_its_own_else_that_of_its_whole_else_one():
    given = GivenWeights({"a/b": 2.0, "a": 3.0}, {"a": 5.0, "t": 7.0})
    found = {name: given.of(name).value for name in ("a/b", "a/b/c", "a/x", "a", "t/p", "z")}
    assert found == {"a/b": 2.0, "a/b/c": 2.0, "a/x": 3.0, "a": 3.0, "t/p": 7.0, "z": 1.0}


def test_what_a_trainable_weight_adds_counts_as_it_is():
    given = GivenWeights({"a": losses.UncertaintyWeight(), "uncertainty": 4.0}, {})
    assert given.of("uncertainty/a").value == 1.0
    assert given.of("uncertainty/b").value == 4.0  # a term of the user's own
    assert given.of("a").penalizes and not given.of("b").penalizes
    assert float(given.of("a").penalty()) == 0.0 and given.of("b").penalty() is None


@pytest.mark.parametrize(
    ("loss_weights", "compiled", "expected"),
    [
        (None, ["a"], {}),
        (2.0, ["a"], {"a": 2.0}),
        ([1.0, 2.0], ["a", "b"], {"a": 1.0, "b": 2.0}),
        (
            {"a": 1.0, "b": {"c": 2.0, "d": [3.0, 4.0]}},
            [],
            {"a": 1.0, "b/c": 2.0, "b/d/0": 3.0, "b/d/1": 4.0},
        ),
    ],
    ids=["none", "one", "list", "nested"],
)
def test_every_form_of_loss_weights_is_by_name(loss_weights, compiled, expected):
    assert weights_by_name(loss_weights, compiled) == expected


@pytest.mark.parametrize(
    ("loss_weights", "message"),
    [
        ([1.0], r"is a list of 1, but there are 2 compiled losses: 'a', 'b'"),
        (0.5, r"loss_weights=0.5 is one weight, but there are 2 compiled losses: 'a', 'b'"),
    ],
)
def test_another_number_of_weights_than_of_losses_is_an_error(loss_weights, message):
    with pytest.raises(ValueError, match=message):
        weights_by_name(loss_weights, ["a", "b"])


def test_a_weight_of_no_term_is_an_error_with_the_nearest_name():
    given = GivenWeights({"sums": 1.0, "parts": 1.0}, {})
    given.check_names(["sums", "parts/a"])
    with pytest.raises(ValueError, match=r"names term 'sums'; the terms are 'sum'.*mean 'sum'\?"):
        given.check_names(["sum"])


@pytest.mark.parametrize(
    ("given", "value", "shown"),
    [
        (None, 1.0, "1"),
        (0.25, 0.25, "0.25"),
        (keras.Variable(2.0, name="v"), 2.0, "variable v"),
        (lambda step: tf.cast(step, tf.float32) / 2, 1.5, "<lambda>"),
        (losses.schedules.Linear(0.0, 1.0, steps=6), 0.5, "Linear(0 -> 1, steps 0..6)"),
        (losses.UncertaintyWeight(), 0.5, "UncertaintyWeight(regression)"),
    ],
    ids=["none", "number", "variable", "function", "schedule", "learned"],
)
def test_a_weight_is_a_float32_of_the_step_whatever_was_given(given, value, shown):
    weight = Weight(given, "a")
    found = weight(3)
    assert found.dtype == tf.float32 and float(found) == value
    assert str(weight) == shown


def test_a_pattern_weighs_what_no_name_does():
    given = GivenWeights({"regularization/*": 0.1, "regularization/a": 5.0, "b": 3.0}, {"b/c": 7.0})
    assert [given.of(name).value for name in ("regularization/a", "regularization/b", "b/c")] == [
        *(5.0, 0.1, 3.0),
    ]
    given.check_names(["regularization/a", "b"])
    with pytest.raises(ValueError, match=r"names term 'l2/\*'"):
        GivenWeights({"l2/*": 1.0}, {}).check_names(["regularization/a"])
    with pytest.raises(ValueError, match=r"patterns 'a\*' and '\*b', which both match term 'ab'"):
        GivenWeights({"a*": 1.0, "*b": 2.0}, {}).of("ab")


def test_a_weight_by_the_name_that_keras_gave_a_layer_is_that_of_its_term():
    names = {"dense_7": "dense", "dense_8": "dense_1"}
    given = GivenWeights({"dense_7": 2.0, "regularization/dense_8/kernel": 3.0}, {}, names)
    terms = ["dense", "dense_1", "regularization/dense_1/kernel"]
    given.check_names(terms)
    assert [given.of(name).value for name in terms] == [2.0, 1.0, 3.0]


def test_a_name_that_means_two_terms_is_an_error():
    given = GivenWeights({"dense_1": 2.0}, {}, {"dense_1": "dense", "dense_2": "dense_1"})
    with pytest.raises(ValueError, match="'dense_1': a term, and Keras's name for term 'dense'"):
        given.check_names(["dense", "dense_1"])
    given.check_names(["dense_1", "dense_2"], exact=["dense_1", "dense_2"])


def test_a_function_that_reads_a_variable_is_no_schedule_whether_that_trains_or_not():
    """What it will be in later steps cannot be told, so that its term never pauses."""
    assert Weight(lambda step: tf.cast(step > 3, tf.float32), "a").scheduled
    for trainable in (True, False):
        dial = tf.Variable(0.0, trainable=trainable)
        assert not Weight(lambda step, dial=dial: dial * 2.0, "a").scheduled
