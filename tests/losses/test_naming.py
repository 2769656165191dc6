"""Names: default ones, and the nearest to a mistyped one."""

import keras
import pytest

import losses
from losses.naming import (
    checked_name,
    counted_name,
    nearest,
    own_name,
    snake_case,
    suggestion,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("SparseFocal", "sparse_focal"), ("IoU", "io_u"), ("YOLOv3", "yol_ov3"), ("mse", "mse")],
)
def test_a_class_name_in_snake_case(name, expected):
    assert snake_case(name) == expected


def test_the_number_that_keras_adds_is_no_part_of_a_name():
    assert {own_name(losses.SparseFocal()) for _ in range(3)} == {"sparse_focal"}
    assert own_name(keras.losses.MeanSquaredError(name="mine_2")) == "mine_2"
    assert counted_name("conv2d_3", keras.layers.Conv2D) == ("conv2d", 3)


def test_the_nearest_name_is_suggested_and_none_where_none_is_near():
    assert suggestion("trunck", ["head", "trunk"]) == " Did you mean 'trunk'?"
    assert suggestion("xyzzy", ["head", "trunk"]) == ""
    assert suggestion(3, []) == ""


def test_several_names_come_nearest_first():
    names = ["mean_squared_error", "mean_absolute_error", "hinge"]
    assert nearest("mean_squared_eror", names, 2)[0] == "mean_squared_error"
    assert nearest("hing", names, 3) == ["hinge"]
    assert nearest("mse", ["mean"]) == [] and nearest("mse", ["mean"], least=0.4) == ["mean"]


@pytest.mark.parametrize("name", ["", "two\nlines", "\x1b[31mred", "\u202eturned", "\ud800"])
def test_a_name_that_cannot_be_shown_is_refused_as_repr_shows_it(name):
    with pytest.raises(
        ValueError, match=r"^A term's name is '.*'\. Give one line of plain text\.$"
    ):
        checked_name(name, "A term's name")
    if name:
        with pytest.raises(ValueError, match="A term's name is"):
            losses.term(lambda step: step.y, name=name)
    with pytest.raises(ValueError, match="A parameter's name is"):
        losses.Parameter(name, 1.0)


def test_a_name_is_a_string():
    with pytest.raises(TypeError, match=r"^A group's name is 3, of int\. Give a string\.$"):
        checked_name(3, "A group's name")
    assert checked_name("größe 1/2", "A term's name") == "größe 1/2"
