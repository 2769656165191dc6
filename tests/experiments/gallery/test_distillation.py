"""The gallery's distillation, reduced: the divergence by hand, a frozen teacher, a few steps."""

import numpy as np
import pytest
import tensorflow as tf

import losses
from experiments.configs import distillation as config_file
from experiments.gallery import distillation
from losses import Step


def made(**changes):
    config = config_file.get_config()
    config.update({"steps": 3, "log_every": 3, "validate_every": 3, "checkpoint_every": 3})
    config.update({"teacher": {"steps": 2, "channels": (2,)}, **changes})
    return distillation.experiment(config.lock(), strategy="one_device", workdir=None)


@pytest.fixture(scope="module")
def trained():
    experiment = made()
    rows = experiment.trainer.fit(experiment.train_data, verbose=False, **experiment.fit).rows
    return experiment, rows


def test_the_term_is_the_divergence_at_a_temperature_by_hand():
    """Teacher (2, 0), student (0, 0), T = 2, of the teacher then p of a logit 1:

    4 (p log 2p + (1 - p) log 2(1 - p))
    """
    term = distillation.distillation(lambda x, training: tf.constant([[2.0, 0.0]]), 2.0, 1.0)
    step = Step(x=tf.zeros([1, 8, 8, 1]), model=None, step=0, training=True)
    step.y_pred = tf.zeros([1, 2])
    p = 1 / (1 + np.exp(-1.0))
    by_hand = 4 * (p * np.log(2 * p) + (1 - p) * np.log(2 * (1 - p)))
    assert float(term.function(step)[0]) == pytest.approx(by_hand, rel=1e-5)
    step.y_pred = tf.constant([[5.0, 3.0]])  # the same distribution
    assert float(term.function(step)[0]) == pytest.approx(0, abs=1e-6)


def test_the_teacher_is_not_trained_with_the_student(trained):
    experiment, rows = trained
    assert experiment.trainer.loss_parameters == {}
    assert rows[-1]["raw/distill"] > 0
    assert [v.path.split("/")[0] for v in experiment.trainer.model.variables] == ["student"] * 4


def test_the_check_is_the_accuracy_on_the_test_images(trained):
    experiment, _ = trained
    x, y = experiment.test_data
    accuracy = np.mean(experiment.trainer.predict(x).argmax(-1) == y)
    (check,) = experiment.check(experiment.trainer).values()
    assert check.value == pytest.approx(accuracy, abs=1e-6)
    assert check.at_least == distillation.LEAST


def test_the_picture_counts_all_test_images(trained):
    experiment, _ = trained
    (axes,) = experiment.picture(experiment.trainer).axes
    assert sum(int(text.get_text()) for text in axes.texts) == 360


def test_the_student_alone_begins_with_the_same_weights_and_labels(trained):
    experiment, alone = made(), made(variant="alone")
    for each in (experiment, alone):
        each.trainer.build(each.train_data, **each.batch)
    for one, other in zip(
        experiment.trainer.model.get_weights(), alone.trainer.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(
        *(each.train_data.data["labelled"][1] for each in (experiment, alone))
    )
    with pytest.raises(losses.TermwiseError, match="'none': accepted are"):
        made(variant="none")
