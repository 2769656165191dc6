"""The gallery's mean teacher with few labels, reduced: its parts by hand, and a few steps."""

import numpy as np
import pytest
import tensorflow as tf

import losses
from experiments.configs import semi_supervised as config_file
from experiments.gallery import semi_supervised
from losses import Step


def made(**changes):
    config = config_file.get_config()
    config.update({"steps": 3, "log_every": 1, "validate_every": 3, "checkpoint_every": 3})
    config.update({"unlabelled_batch": 20, "batch_size": 10, "ramp_steps": 2, **changes})
    return semi_supervised.experiment(config.lock(), strategy="one_device", workdir=None)


@pytest.fixture(scope="module")
def trained():
    experiment = made()
    rows = experiment.trainer.fit(experiment.train_data, verbose=False, **experiment.fit).rows
    return experiment, rows


def test_a_hundred_images_have_a_label_and_all_are_without(trained):
    experiment, rows = trained
    labels = experiment.train_data.data["labelled"][1]
    assert np.bincount(labels).tolist() == [10] * 10
    assert len(experiment.train_data.data["unlabelled"][0]) == 1078
    assert [row["weight/agree"] for row in rows[1:]] == [4.0, 8.0]
    assert int(experiment.trainer.terms[0].averages.state.updates) == 3


def test_the_check_is_the_accuracy_on_the_test_images(trained):
    experiment, _ = trained
    x, y = experiment.test_data
    accuracy = np.mean(experiment.trainer.predict(x).argmax(-1) == y)
    (check,) = experiment.check(experiment.trainer).values()
    assert check.value == pytest.approx(accuracy, abs=1e-6)
    assert check.at_least == semi_supervised.LEAST and not check.reached  # after three steps


def test_the_picture_shows_36_images_with_what_is_told(trained):
    experiment, _ = trained
    figure = experiment.picture(experiment.trainer)
    told = experiment.trainer.predict(experiment.test_data[0][:36]).argmax(-1)
    assert [axes.get_title() for axes in figure.axes] == [str(digit) for digit in told]


def test_a_square_of_nine_pixels_is_erased_within_the_image():
    images = np.ones((200, 8, 8, 1), "float32")
    seen = semi_supervised.erased(images, (3, 7)).numpy()[..., 0]
    assert (seen.sum((1, 2)) == 64 - 9).all()
    for image in seen:
        rows, columns = np.nonzero(image == 0)
        assert np.ptp(rows) == np.ptp(columns) == 2
    assert ((1 - seen).sum(0) > 0).all()  # every place is erased in some image


def test_the_term_is_the_squared_distance_of_two_distributions_by_hand():
    """Of two classes with logits (2, 0) and (0, 0): 2 (p - 1/2)², p of a logit 2."""
    term = semi_supervised.agreement(config_file.get_config())
    step = Step(x=tf.zeros([1, 8, 8, 1]), model=None, step=0, training=True)
    step.forward = lambda x: tf.constant([[2.0, 0.0]])
    values = term.fn(step, lambda x: tf.zeros([1, 2])).numpy()
    p = 1 / (1 + np.exp(-2.0))
    np.testing.assert_allclose(values, [2 * (p - 0.5) ** 2], rtol=1e-6)


def test_student_and_teacher_see_two_views_of_one_image():
    config = config_file.get_config()
    term, seen = semi_supervised.agreement(config), []
    step = Step(x=tf.zeros([3, 8, 8, 1]), model=None, step=5, training=True)

    def look(x):
        seen.append(x.numpy())
        return tf.zeros([3, 10])

    step.forward = look
    term.fn(step, look)
    of_teacher, of_student = seen
    assert np.abs(of_teacher - of_student).max() > 0.1
    assert ((of_student == 0).sum((1, 2, 3)) == 9).all() and (of_teacher != 0).all()  # noise


def test_the_other_variants_have_no_teacher_and_their_own_labels():
    alone, full = made(variant="labels_alone"), made(variant="all_labels")
    assert alone.trainer.terms == full.trainer.terms == []
    assert len(alone.train_data.data["labelled"][1]) == 100
    assert len(full.train_data.data["labelled"][1]) == 1078
    with pytest.raises(losses.TermwiseError, match="'none': accepted are"):
        made(variant="none")
