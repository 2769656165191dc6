"""`class_weight=` weighs each label by its class, wherever the labels stand; else it is refused."""

import numpy as np
import pytest
import tensorflow as tf

from losses.objective.class_ids import Classes, classes_of
from trainer.data.given.class_weight import checked_class_weight, class_weights

BY_CLASS = {0: 1.0, 1: 5.0, 2: 0.5}
IDS = np.array([[0, 2, 1], [1, 1, 0]])
WEIGHTS = np.vectorize(BY_CLASS.get)(IDS)
OF_EXAMPLE, OF_STEP = np.array([2.0, 3.0]), np.arange(6.0).reshape(2, 3)


def weights(y, sample_weight=None, output=(None, 3, 3), **classes):
    classes = Classes(tf.TensorShape(output), **classes)
    return np.asarray(class_weights(y, sample_weight, BY_CLASS, classes))


@pytest.mark.parametrize(
    "labels", [IDS, IDS[..., None], np.eye(3)[IDS], IDS.astype("float32"), {"tags": IDS}]
)
def test_each_time_step_weighs_what_its_class_weighs(labels):
    np.testing.assert_allclose(weights(labels), WEIGHTS)


@pytest.mark.parametrize(
    "sample_weight, factor",
    [
        (OF_EXAMPLE, OF_EXAMPLE[:, None]),
        (OF_EXAMPLE[:, None], OF_EXAMPLE[:, None]),
        (OF_STEP, OF_STEP),
    ],
)
def test_sample_weights_of_examples_or_time_steps_multiply(sample_weight, factor):
    np.testing.assert_allclose(weights(IDS, sample_weight), WEIGHTS * factor)


def test_weights_of_examples_multiply_sample_weights_of_time_steps():
    found = weights(np.array([1, 2]), OF_STEP, output=(None, 3))
    np.testing.assert_allclose(found, np.array([[5.0], [0.5]]) * OF_STEP)


def test_a_class_that_is_not_named_weighs_one():
    found = class_weights(IDS, None, {2: 4.0}, Classes(tf.TensorShape([2, 3, 3])))
    np.testing.assert_allclose(found, np.where(IDS == 2, 4.0, 1.0))


def test_binary_labels_of_time_steps_are_ids():
    found = class_weights(IDS % 2, None, {1: 4.0}, Classes(tf.TensorShape([2, 3, 1]), binary=True))
    np.testing.assert_allclose(found, np.where(IDS % 2 == 1, 4.0, 1.0))


@pytest.mark.parametrize(
    "labels, output, more, words",
    [
        (IDS, (None, 3), dict(binary=True, loss="binary_crossentropy"), "compares each element"),
        (IDS, (None, 7), {}, "cannot tell the classes of labels of shape"),
        (IDS % 2, (None, 3, 2), {}, "names class 2, but there are 2 classes, 0 to 1"),
        ({"a": IDS, "b": IDS}, (None, 3), {}, "the labels of one output, received those of 2"),
        (np.array(["cat"]), (None, 3), {}, "the labels are strings"),
    ],
)
def test_what_cannot_be_meant_is_refused(labels, output, more, words):
    with pytest.raises((ValueError, TypeError), match=words):
        weights(labels, output=output, **more)


def test_an_ignored_class_may_have_a_weight():
    found = class_weights(
        np.array([0, 255]), None, {255: 0.0}, Classes(tf.TensorShape([2, 3]), ignored=(255,))
    )
    np.testing.assert_allclose(found, [1.0, 0.0])


def test_the_output_that_has_a_loss_tells_the_classes():
    outputs = {"tags": tf.zeros([2, 3, 4]), "size": tf.zeros([2, 1])}
    classes = classes_of({"tags": "sparse_categorical_crossentropy"}, outputs)
    assert classes.output == [2, 3, 4] and not classes.binary
    assert classes_of("binary_crossentropy", tf.zeros([2, 3])).binary


def test_class_weights_by_source_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"dict for 'labelled'.* main source alone"):
        checked_class_weight({"labelled": {0: 2.0}})
