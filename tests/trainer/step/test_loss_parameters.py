"""Loss parameters: which variables are the terms' own, and what they are called."""

import functools
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from losses.objective.parameter import parameter_of
from trainer import Trainer
from trainer.model.variables import tensor_variable
from trainer.step.loss_parameters import find_parameters, name_parameters

GLOBAL = keras.Variable(1.0, name="global_one")
MODULE = types.ModuleType("settings")
MODULE.temperature = keras.Variable(1.0, name="in_a_module")


def variable(name=None):
    return keras.Variable(1.0, name=name)


def named(*variables, places):
    """The names that the variables get when they are found in the places."""
    result = name_parameters([tensor_variable(v) for v in variables], places)
    for made in result.values():
        assert any(made is v for v in variables)
    return list(result)


class Holder:
    def __init__(self, **attributes):
        vars(self).update(attributes)


def test_variables_of_the_model_are_none():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    a = variable("a")
    read = [model.weights[0].value, a.value, a.value]
    assert find_parameters(read, model) == [a.value]


def test_a_name_of_its_own_wins_over_the_attributes():
    a = variable("margin")
    assert named(a, places=[("term", Holder(other=a))]) == ["margin"]


def test_a_variable_that_was_never_named_is_called_as_what_holds_it():
    a, b, c, d = (variable() for _ in range(4))
    weight = tf.Variable(1.0)

    def loss(y_true, y_pred):
        return y_true * d + weight

    holder = Holder(margin=a, scales=[b], by_key={"low": c})
    names = named(a, b, c, d, weight, places=[("one", holder), ("two", loss)])
    assert names == ["margin", "scales_0", "low", "d", "weight"]


def test_two_of_one_name_are_told_apart_by_their_terms_then_by_a_number():
    a, b = variable("a"), variable("a")
    places = [("first", Holder(x=a)), ("second", Holder(x=b))]
    assert named(a, b, places=places) == ["first/a", "second/a"]
    assert named(a, b, places=[("first", Holder(x=a, y=b))]) == ["first/a", "first/a_1"]


def nested(inner):
    return Holder(a=Holder(b=Holder(c=inner)))


def read_inside():
    def inner():
        return GLOBAL + 1.0

    return inner


def read_from_a_module(y_true, y_pred):
    return y_true * MODULE.temperature


class OfTheClass:
    shared = keras.Variable(1.0, name="of_the_class")

    def loss(self, y_true, y_pred):
        return y_true * self.shared


class WithMethod:
    def __init__(self, inner):
        self.inner = Holder(scale=inner)

    def loss(self, y_true, y_pred):
        return y_true * self.inner.scale


LAYER = keras.layers.Dense(1, name="hidden_layer")
LAYER.build((None, 2))
FAR = variable("far")
FOUND = {
    "three attributes deep": (FAR, nested(FAR), "far"),
    "read by a function inside a function": (GLOBAL, read_inside, "global_one"),
    "read from a module": (MODULE.temperature, read_from_a_module, "in_a_module"),
    "an attribute of a class": (OfTheClass.shared, OfTheClass().loss, "of_the_class"),
    "held by what holds a method": (FAR, WithMethod(FAR).loss, "far"),
    "an argument of a partial function": (FAR, functools.partial(max, FAR), "far"),
    "a default argument": (FAR, lambda y, p, a=FAR: y * a, "far"),
    "of a layer in a list": (LAYER.kernel, Holder(a=[Holder(b=LAYER)]), "hidden_layer/kernel"),
}


@pytest.mark.parametrize("place", FOUND)
def test_a_variable_is_found_through_functions_objects_and_containers(place):
    made, holder, name = FOUND[place]
    assert named(made, places=[("term", holder)]) == [name]


def test_one_without_a_name_that_lies_deep_is_called_as_its_attribute():
    a = variable()
    assert named(a, places=[("term", Holder(inner=Holder(temperature=a)))]) == ["temperature"]


def test_a_parameter_is_known_wherever_it_is_kept():
    a = losses.Parameter("a", 1.0, constraint="non_neg", maximize=True)
    iterator = iter([a])  # which no search looks into
    assert parameter_of(a.value) is a
    assert name_parameters([a.value], [("term", Holder(it=iterator))]) == {"a": a}
    assert name_parameters([a.value], [("term", Holder(raw=a.value))])["a"] is a


def test_a_parameter_that_is_gone_is_forgotten():
    a = losses.Parameter("a", 1.0)
    raw = a.value
    del a
    assert parameter_of(raw) is None
    assert parameter_of(tf.Variable(1.0)) is None


def test_a_foreign_variable_that_cannot_be_reached_is_called_as_its_tensorflow_variable():
    hidden = variable("hidden")
    iterator = iter([hidden])
    found = name_parameters([hidden.value], [("term", Holder(it=iterator))])
    assert list(found) == ["hidden"]
    assert found["hidden"] is hidden.value


def test_the_search_ends_in_a_ring_and_in_a_large_object():
    ring = Holder()
    ring.ring = ring
    ring.many = list(range(100_000))
    hidden = variable("hidden")
    assert list(name_parameters([hidden.value], [("term", ring)])) == ["hidden"]


def test_a_parameter_deep_inside_a_loss_keeps_its_constraint_in_training():
    a = losses.Parameter("a", 0.05, constraint="non_neg")
    iterator = [iter([a])]

    def loss(y_true, y_pred):
        (inner,) = iterator
        value = next(inner)
        iterator[:] = [iter([value])]
        return tf.reduce_mean((y_true - y_pred) ** 2, -1) + tf.convert_to_tensor(value)

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    trainer = Trainer(model, optimizer=keras.optimizers.SGD(0.1), loss=loss)
    x = np.ones((4, 2), "float32")
    trainer.fit((x, x[:, :1]), steps=2, batch_size=4, verbose=False)
    assert trainer.loss_parameters == {"a": a}
    assert float(a) == 0.0  # 0.05 - 0.1 is below


def test_a_name_that_cannot_be_shown_is_refused():
    a = tf.Variable(1.0)
    with pytest.raises(ValueError, match=r"A loss parameter's name is '.*two\\nlines'"):
        name_parameters([a], [("term", Holder(scales={"two\nlines": a}))])
