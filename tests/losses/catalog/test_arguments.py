"""A variable as an argument of a loss would be read once and never train: it is refused by name."""

import inspect

import keras
import pytest
import tensorflow as tf

import losses
from losses import catalog

NO_LOSSES = {"BatchLoss", "noncrossing", "assign_boxes", "detected_boxes"}
ARGUMENTS = [
    (name, argument)
    for name in sorted(set(catalog.__all__) - NO_LOSSES)
    for argument in inspect.signature(getattr(losses, name)).parameters
]


@pytest.mark.parametrize("name, argument", ARGUMENTS)
def test_no_loss_takes_a_variable_for_a_constant(name, argument):
    loss = getattr(losses, name)
    signature = inspect.signature(loss).parameters.values()
    needed = {p.name: 1.0 for p in signature if p.default is p.empty}
    parameter = losses.Parameter("wanted", 0.5)
    for value in (parameter, keras.Variable([0.5, 0.2]), tf.Variable(0.5), [parameter, 1.0]):
        with pytest.raises(ValueError, match=rf"{name}\({argument}=\) was given a variable"):
            loss(**{**needed, argument: value})


def test_a_loss_of_keras_reads_a_variable_at_each_step():
    delta = losses.Parameter("delta", 0.5)
    loss = keras.losses.Huber(delta=delta)
    before = float(loss([[0.0]], [[4.0]]))
    delta.assign(1.0)
    assert float(loss([[0.0]], [[4.0]])) > before
