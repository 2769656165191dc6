"""Text on the command line becomes a value of the field's type, or says what is accepted."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.cli.literal import parse, type_name

KINDS = [bool, int, float, str, list, tuple, dict, type(None)]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("true", bool, True),
        ("False", bool, False),
        ("-3", int, -3),
        ("1", float, 1.0),
        ("3e-4", float, 3e-4),
        ("1", str, "1"),
        ("", str, ""),
        ("(8, 16)", tuple, (8, 16)),
        ("[8, 16]", tuple, (8, 16)),
        ("8, 16", tuple, (8, 16)),
        ("(1,)", list, [1]),
        ("{'a': [1, None]}", dict, {"a": [1, None]}),
        ("None", type(None), None),
        ("true", type(None), True),
        ("0.5", type(None), 0.5),
        ("(1, 'a')", type(None), (1, "a")),
        ("adam", type(None), "adam"),
        ("2", np.float64, 2.0),
        ("2", np.int32, 2),
    ],
)
def test_text_is_a_value_of_the_type(text, kind, value):
    parsed = parse(text, kind)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "kind", "accepted"),
    [
        ("1", bool, "true or false"),
        ("yes", bool, "true or false"),
        ("0.5", int, "an integer"),
        ("1e3", int, "an integer"),
        ("true", int, "an integer"),
        ("", int, "an integer"),
        ("much", float, "a finite number"),
        ("nan", float, "a finite number"),
        ("1e999", float, "a finite number"),
        ("8", tuple, "a tuple such as (1, 2)"),
        ("(8, 16", tuple, "a tuple such as (1, 2)"),
        ("__import__('os')", list, "a list such as [1, 2]"),
        ("[1]", dict, 'a dict such as {"a": 1}'),
        ("{1, 2}", type(None), "numbers, strings, booleans, None, lists, dicts"),
        ("[1e999]", list, "a finite number"),
    ],
)
def test_what_is_no_such_value_is_refused_with_what_is_accepted(text, kind, accepted):
    with pytest.raises(ValueError, match=r"[Aa]ccepted") as caught:
        parse(text, kind)
    assert accepted in str(caught.value)


def test_items_are_of_the_type_of_the_default_items():
    assert parse("(1, 2)", tuple, (0.5,)) == (1.0, 2.0)
    with pytest.raises(ValueError, match=r"'a' is not like the items of the default, \(8, 16\)"):
        parse("(8, 'a')", tuple, (8, 16))


def test_items_of_an_empty_or_mixed_default_may_be_anything():
    assert parse("(1, 'a')", tuple, ()) == (1, "a")
    assert parse("(1, 'a')", tuple, ("a", 1)) == (1, "a")


def test_a_type_that_no_text_stands_for_is_named():
    with pytest.raises(ValueError, match="a Path cannot be given on the command line"):
        parse("x", type("Path", (), {}))
    assert type_name(int) == "an integer"


@given(text=st.text(), kind=st.sampled_from(KINDS))
@settings(deadline=None)
def test_any_text_gives_a_value_that_json_keeps_or_a_value_error(text, kind):
    try:
        value = parse(text, kind)
    except ValueError as error:
        assert str(error)
        return
    assert json.loads(json.dumps(value, allow_nan=False)) == json.loads(json.dumps(value))


@given(value=st.floats(allow_nan=False, allow_infinity=False))
@settings(deadline=None)
def test_a_float_comes_back_exactly(value):
    assert parse(repr(value), float) == value
    assert math.copysign(1, parse(repr(value), float)) == math.copysign(1, value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(value=JSON)
@settings(deadline=None)
def test_the_repr_of_a_plain_value_is_that_value(value):
    assert parse(repr(value), type(None)) == value
