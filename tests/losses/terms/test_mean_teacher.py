"""The arguments of a mean teacher; what it does in training is in tests/trainer/model."""

import keras
import pytest
import tensorflow as tf

import losses
from losses.terms.mean_teacher import Averages


def agree(step, teacher):
    return tf.reduce_sum(tf.square(step.y_pred - teacher(step.x)), axis=-1)


def test_the_decay_rises_to_its_value_after_a_first_update_that_copies():
    averages = Averages("agree", 0.9)
    decays = []
    for updates in (0, 1, 10, 79, 80, 1000):
        averages.state.updates.assign(updates)
        decays.append(float(averages.present_decay()))
    assert decays == pytest.approx([0.0, 2 / 11, 11 / 20, 80 / 89, 0.9, 0.9], abs=1e-6)


@pytest.mark.parametrize("decay", [1.0, -0.1, 1.5, "much", float("nan")])
def test_a_decay_outside_its_range_is_refused(decay):
    with pytest.raises(losses.TermwiseError, match=r"decay.*from 0 and below 1"):
        losses.MeanTeacher(agree, decay=decay)


def test_a_lambda_needs_a_name_and_what_is_no_function_is_refused():
    with pytest.raises(losses.TermwiseError, match=r'Pass name="\.\.\."'):
        losses.MeanTeacher(lambda step, teacher: 0.0)
    with pytest.raises(TypeError, match=r"a function \(step, teacher\), received 0.99"):
        losses.MeanTeacher(0.99)


def test_the_averages_are_those_of_a_run():
    with pytest.raises(losses.TermwiseError, match=r"in trainer\.terms"):
        _ = losses.MeanTeacher(agree).averages


def test_its_configuration_makes_it_again():
    teacher = losses.MeanTeacher(
        agree, decay=0.5, weight=2.0, source="unlabelled", trains="body", hardest=0.5
    )
    again = losses.MeanTeacher.from_config(teacher.get_config())
    assert again.get_config() == teacher.get_config()
    assert (again.name, again.decay, again.weight) == ("agree", 0.5, 2.0)
    assert keras.saving.get_registered_name(losses.MeanTeacher) == "termwise>MeanTeacher"
