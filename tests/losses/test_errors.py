"""The errors raised on purpose: what they are, and that they stay so inside TensorFlow."""

import sys

import keras
import pytest
import tensorflow as tf

import losses
from losses.errors import (
    TermwiseError,
    TermwiseRuntimeError,
    TermwiseTypeError,
    add_note,
    as_raised,
    raised_by_user,
)

KINDS = {
    TermwiseError: ValueError,
    TermwiseTypeError: TypeError,
    TermwiseRuntimeError: RuntimeError,
}


@pytest.mark.parametrize(("kind", "builtin"), KINDS.items())
def test_every_error_is_a_value_error_and_of_its_built_in_kind(kind, builtin):
    assert issubclass(kind, (losses.TermwiseError, ValueError)) and issubclass(kind, builtin)
    assert str(kind("Give another.")) == "Give another."


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_inside_a_function_with_autograph_stays_what_it_is(kind):
    @tf.function
    def trace(x):
        if x.shape.rank == 1:
            raise kind("Give a scalar.")
        return x

    with pytest.raises(kind, match="Give a scalar"):
        trace(tf.zeros([2]))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no notes")
def test_a_note_stands_below_the_message():
    with pytest.raises(TermwiseError) as error:
        try:
            raise TermwiseError("Give another.")
        except TermwiseError as caught:
            add_note(caught, "(while computing term 'a')")
            raise
    assert error.value.__notes__ == ["(while computing term 'a')"]


def raising():
    raise ValueError("my own")


def asserting():
    raise AssertionError


@pytest.mark.parametrize(
    ("function", "own"),
    [
        (raising, True),
        (asserting, True),
        (lambda: float("x"), False),
        (lambda: tf.ones([2]) + tf.ones([3]), False),
        (lambda: losses.get("no such loss"), False),
    ],
    ids=["raise", "assert", "built-in", "TensorFlow", "losses"],
)
def test_what_a_users_code_raises_is_told_from_what_libraries_do(function, own):
    with pytest.raises(Exception) as caught:
        function()
    assert raised_by_user(caught.value) == own


def test_what_keras_writes_around_an_exception_is_taken_off():
    class Layer(keras.layers.Layer):
        def call(self, x):
            raise ValueError("my own")

    with pytest.raises(ValueError, match="Exception encountered when calling") as caught:
        Layer()(tf.ones([2, 2]))
    assert raised_by_user(caught.value)
    assert str(as_raised(caught.value)) == "my own"
