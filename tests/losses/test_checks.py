"""Checks of numbers: what counts as one, what does not, and what the errors say."""

from decimal import Decimal

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from losses import balancing
from losses.checks import (
    as_number,
    check_length,
    is_whole,
    number,
    numbers_of_terms,
    pick,
    whole,
    without_fraction,
)


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_a_whole_number_of_python_or_numpy_is_one(value):
    assert is_whole(value)
    assert type(whole("steps", value)) is int and whole("steps", value) == 3


@pytest.mark.parametrize(
    "value",
    [True, np.True_, 3.0, np.float64(3), "3", None, [3], np.array([3]), 2.5, 0, -1],
    ids=repr,
)
def test_anything_else_is_refused_with_what_is_accepted(value):
    with pytest.raises(ValueError) as error:
        whole("steps", value)
    assert str(error.value) == f"steps={value!r}: give a whole number of at least 1."
    assert isinstance(error.value, losses.TermwiseError)


def test_the_least_the_owner_and_the_words_stand_in_the_error():
    assert whole("start", 0, 0) == 0
    with pytest.raises(ValueError, match=r"^start=-1: give a whole number of at least 0\.$"):
        whole("start", -1, least=0)
    with pytest.raises(ValueError, match=r"^Dice\(axis='a'\): give an axis\.$"):
        whole("axis", "a", owner=losses.Dice(), accepted="an axis")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1e4, 10000), (np.float32(3), 3), (np.array(3.0), 3), (tf.constant(3), 3), (7, 7)],
)
def test_a_float_without_a_fraction_can_be_taken_as_a_whole_number(value, expected):
    assert whole("steps", without_fraction(value)) == expected


@pytest.mark.parametrize(
    "value", [2.5, "3", True, float("inf"), [1.0], tf.constant([1.0])], ids=repr
)
def test_what_has_a_fraction_or_is_no_number_stays_as_it_is(value):
    assert without_fraction(value) is value


@pytest.mark.parametrize(
    "value",
    [
        2,
        2.0,
        np.float32(2),
        np.int8(2),
        Decimal(2),
        np.array(2.0),
        tf.constant(2),
        tf.constant(2.0),
    ],
    ids=repr,
)
def test_a_number_is_a_float(value):
    assert type(number("alpha", value)) is float and number("alpha", value) == 2.0


@pytest.mark.parametrize(
    "value",
    [True, np.True_, "2", None, [2.0], np.array([2.0]), np.array(True), tf.constant([2.0]), 2j],
    ids=repr,
)
def test_what_is_no_number_is_none(value):
    assert as_number(value) is None
    with pytest.raises(ValueError, match=r"^alpha=.*: give a finite number\.$"):
        number("alpha", value)


def test_a_variable_or_a_tensor_of_a_graph_is_no_number():
    assert as_number(keras.Variable(1.0)) is None
    assert as_number(tf.Variable(1.0)) is None

    @tf.function
    def traced(tensor):
        assert as_number(tensor) is None
        return tensor

    traced(tf.constant(1.0))


@pytest.mark.parametrize(
    ("value", "bounds", "accepted"),
    [
        (float("nan"), {}, "a finite number"),
        (float("inf"), {"least": 0}, "a finite number of at least 0"),
        (0.0, {"above": 0}, "a finite number above 0"),
        (-0.5, {"least": 0, "most": 1}, "a finite number of at least 0 and of at most 1"),
        (1.5, {"least": 0, "most": 1}, "a finite number of at least 0 and of at most 1"),
        (-1, {"least": 0, "accepted": "a share"}, "a share"),
    ],
)
def test_a_number_outside_its_range_is_refused(value, bounds, accepted):
    with pytest.raises(ValueError) as error:
        number("alpha", value, owner=balancing.PCGrad(), **bounds)
    assert str(error.value) == f"PCGrad(alpha={value!r}): give {accepted}."


def test_the_ends_of_a_range_are_inside():
    assert number("alpha", 0, least=0, most=1) == 0.0
    assert number("alpha", 1, least=0, most=1) == 1.0


TAKES_A_WHOLE_NUMBER = {
    "DWA": lambda value: balancing.DWA(period=value).period,
    "PCGrad": lambda value: balancing.PCGrad(every=value).every,
    "LRA": lambda value: balancing.LearningRateAnnealing(reference=value).reference,
    "Linear": lambda value: losses.schedules.Linear(0.0, 1.0, steps=value).steps,
    "AdaptiveRobust": lambda value: losses.AdaptiveRobust(value).num_channels,
    "YOLOv3": lambda value: losses.YOLOv3([[0.5, 0.5]], value).num_classes,
    "VAT": lambda value: losses.VirtualAdversarial(epsilon=1.0, iterations=value).iterations,
}


@pytest.mark.parametrize("make", TAKES_A_WHOLE_NUMBER.values(), ids=TAKES_A_WHOLE_NUMBER)
def test_every_constructor_takes_a_whole_number_of_numpy_and_refuses_true(make):
    assert type(make(np.int64(3))) is int and make(np.int64(3)) == 3
    with pytest.raises(ValueError, match="=True"):
        make(True)


TAKES_A_NUMBER = {
    "NTXent(temperature=": lambda value: losses.NTXent(temperature=value),
    "Triplet(margin=": lambda value: losses.Triplet(margin=value),
    "SparseFocal(gamma=": lambda value: losses.SparseFocal(gamma=value),
    "StudentTNLL(df=": lambda value: losses.StudentTNLL(df=value),
}


@pytest.mark.parametrize("start", TAKES_A_NUMBER)
def test_a_parameter_that_would_not_be_trained_is_refused(start):
    with pytest.raises(ValueError) as error:
        TAKES_A_NUMBER[start](losses.Parameter("wanted", 0.5))
    assert str(error.value).startswith(start)


@pytest.mark.parametrize("values", [[1, 2.0], (1, 2), np.array([1.0, 2.0]), tf.constant([1, 2])])
def test_numbers_of_terms_are_a_tuple_of_floats(values):
    found = numbers_of_terms("leak", values, owner=balancing.PCGrad(), accepted="shares")
    assert found == (1.0, 2.0) and all(type(value) is float for value in found)


@pytest.mark.parametrize("values", [[], [0.5, -0.1], [0.5, 1.5], [float("nan")], ["a"], [True]])
def test_a_number_of_a_term_outside_its_range_is_refused(values):
    with pytest.raises(ValueError, match=r"^PCGrad\(leak=\(.*\)\): give shares\.$"):
        numbers_of_terms(
            "leak", values, least=0, most=1, owner=balancing.PCGrad(), accepted="shares"
        )


def test_another_number_of_values_than_of_terms_is_an_error():
    check_length("kind", ("a", "b"), 2, owner=balancing.PCGrad())
    message = r"^PCGrad\(kind=\) holds 2 kinds, but there are 3 terms. Give one for each.$"
    with pytest.raises(ValueError, match=message):
        check_length("kind", ("a", "b"), 3, owner=balancing.PCGrad(), what="kinds")


def test_one_of_several_is_picked_by_its_name():
    outputs = {"a": 1, "b": 2}
    assert pick(outputs, "b", "kl", "outputs") == 2
    assert pick({"": 3}, None, "kl", "outputs") == 3
    with pytest.raises(ValueError, match=r"'kl' reads one of the outputs 'a', 'b'. Say which"):
        pick(outputs, None, "kl", "outputs")
    with pytest.raises(ValueError, match=r"'kl' reads 'bb'; the outputs are .* mean 'b'\?"):
        pick(outputs, "bb", "kl", "outputs")
