"""What Termwise says about its input is shown in a line; a bug keeps its traceback."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from experiments.cli.configuration import ConfigurationError
from experiments.cli.user_errors import user_errors


def fails(error):
    raise error


def test_what_our_packages_raise_is_the_users():
    with pytest.raises(ConfigurationError) as caught, user_errors():
        losses.UncertaintyWeight(kind="other")
    assert str(caught.value).startswith("UncertaintyWeight(kind='other'): accepted are")
    assert isinstance(caught.value.__cause__, ValueError)


def test_what_a_library_raises_while_building_is_shown_with_its_place():
    with pytest.raises(ConfigurationError) as caught, user_errors(building=True):
        keras.layers.Dense(-1)
    message, place = str(caught.value).splitlines()
    assert message.startswith("ValueError: Received an invalid value for `units`")
    assert place.startswith("  from ")
    assert "test_user_errors.py, line " in place
    assert place.endswith("; --traceback shows the whole way")


def test_what_a_library_raises_while_training_is_a_bug():
    with pytest.raises(ValueError, match="invalid value for `units`") as caught, user_errors():
        keras.layers.Dense(-1)
    assert not isinstance(caught.value, ConfigurationError)


def test_an_error_of_tensorflow_while_building_is_one_line():
    with pytest.raises(ConfigurationError) as caught, user_errors(building=True):
        tf.reshape(tf.zeros(3), [2])
    assert str(caught.value).startswith("InvalidArgumentError: ")
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("error", [AttributeError("x"), KeyError("x"), IndexError(), NameError()])
def test_a_bug_passes_while_building(error):
    with pytest.raises(type(error)), user_errors(building=True):
        fails(error)


def test_a_bug_in_our_packages_is_not_what_they_say():
    with pytest.raises(TypeError) as caught, user_errors():
        losses.Ratio.of_examples()
    assert not isinstance(caught.value, ConfigurationError)


def test_what_is_raised_in_a_traced_function_is_found_in_its_message():
    @tf.function
    def traced(x):
        if tf.reduce_sum(x) > 0:  # so that AutoGraph rewrites it
            x = x + 1
        return losses.Ratio(tf.cast(x, tf.int32))

    with pytest.raises(ConfigurationError) as caught, user_errors():
        traced(tf.zeros(3))
    assert str(caught.value).startswith("A Ratio's numerator is a sum of floating values")


def test_what_a_traced_function_of_the_user_raises_is_shown_with_its_place():
    @tf.function
    def traced(x):
        if tf.reduce_sum(x) > 0:
            x = x + 1
        raise ValueError("I do not like it")

    with pytest.raises(ConfigurationError) as caught, user_errors(building=True):
        traced(np.zeros(3, "float32"))
    message, place = str(caught.value).splitlines()
    assert message == "ValueError: I do not like it"
    assert "test_user_errors.py, line " in place


def test_an_error_of_termwise_is_the_users_wherever_it_was_raised():
    from losses.errors import TermwiseRuntimeError

    with pytest.raises(ConfigurationError, match="not here"), user_errors():
        fails(TermwiseRuntimeError("not here, and not now"))


def test_an_error_of_a_file_is_the_users_too(tmp_path):
    from trainer.persistence import Workdir

    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="is a file"), user_errors():
        Workdir(tmp_path / "file")


def test_a_builtin_error_that_a_line_of_ours_raises_is_a_bug():
    with pytest.raises(NotImplementedError), user_errors(building=True):
        losses.Term(name="a").call(None)


@pytest.mark.parametrize("words", ["TermwiseError: not ours", "in user code: TermwiseError"])
def test_a_message_that_names_our_class_does_not_make_an_error_ours(words):
    with pytest.raises(KeyError), user_errors():
        fails(KeyError(words))
