"""A check: a value, its bounds, whether it keeps them, and how it is written."""

import math

import numpy as np
import pytest

from experiments.experiment import Check


@pytest.mark.parametrize(
    ("check", "reached", "text"),
    [
        (Check(0.934, at_least=0.9), True, "0.934 >= 0.9"),
        (Check(0.9, at_least=0.9), True, "0.9 >= 0.9"),
        (Check(0.8999999, at_least=0.9), False, "0.8999999 >= 0.9"),
        (Check(0.031, at_most=0.02), False, "0.031 <= 0.02"),
        (Check(2.001, at_least=1.98, at_most=2.02), True, "1.98 <= 2.001 <= 2.02"),
        (Check(2.1, at_least=1.98, at_most=2.02), False, "1.98 <= 2.1 <= 2.02"),
        (Check(17), True, "17"),
        (Check(math.nan), False, "nan"),
        (Check(math.inf, at_least=0.0), False, "inf >= 0"),
    ],
    ids=lambda value: None,
)
def test_a_check_is_reached_within_its_bounds_and_says_so(check, reached, text):
    assert (check.reached, str(check)) == (reached, text)


def test_an_array_of_one_number_is_a_number():
    check = Check(np.float32(0.5), at_most=np.array(1))
    assert (check.value, type(check.value), type(check.at_most)) == (0.5, float, float)


def test_what_is_written_has_the_bounds_that_there_are_and_no_nan():
    assert Check(0.5, at_least=0.4).plain() == {"value": 0.5, "at_least": 0.4, "reached": True}
    assert Check(math.nan, at_most=1).plain() == {"value": None, "at_most": 1, "reached": False}
    assert Check(3).plain() == {"value": 3, "reached": True}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"value": "much"}, TypeError, "value='much'.*is a str"),
        ({"value": None}, TypeError, "value=None.*is a NoneType"),
        ({"value": [1, 2]}, TypeError, "value=.*is a list"),
        ({"value": 1, "at_least": math.nan}, ValueError, "at_least=nan.*finite"),
        ({"value": 1, "at_least": 2, "at_most": 1}, ValueError, "no value is both"),
    ],
)
def test_what_is_no_check_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Check(**arguments)
