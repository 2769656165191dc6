"""What is given by output (losses, labels, weights) finds its output, or says why not."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from losses.objective.compiled import compiled_ratios, name_losses
from losses.objective.outputs import MissingLabel, match_labels, match_weights, name_outputs

ONE, TWO = tf.ones([2, 1]), tf.ones([2, 3])


@pytest.mark.parametrize(
    "y_pred, output_names, expected",
    [
        (ONE, None, [""]),
        (ONE, ["head"], ["head"]),
        ([ONE, TWO], ["a", "b"], ["a", "b"]),
        ([ONE, TWO], None, ["output_0", "output_1"]),
        ({"a": ONE, "b": TWO}, ["dense", "dense_1"], ["a", "b"]),
        ({"a": ONE, "b": {"c": TWO}}, None, ["a", "b/c"]),
    ],
)
def test_outputs_are_named(y_pred, output_names, expected):
    assert list(name_outputs(y_pred, output_names)) == expected


def f(y_true, y_pred):
    return tf.reduce_mean(tf.abs(y_true - y_pred), -1)


@pytest.mark.parametrize(
    "loss, y_pred, names, expected",
    [
        ("mse", ONE, ["head"], ["mean_squared_error"]),
        (f, ONE, ["head"], ["f"]),
        (lambda t, p: p, ONE, ["head"], ["loss"]),
        ({"head": "mse"}, ONE, ["head"], ["head"]),
        ({"anything": "mse"}, ONE, None, ["anything"]),
        (["mse"], ONE, ["head"], ["mean_squared_error"]),
        (["mse", "mae"], ONE, ["head"], ["mean_squared_error", "mean_absolute_error"]),
        ("mse", [ONE, TWO], ["a", "b"], ["a", "b"]),
        (["mse", None], [ONE, TWO], ["a", "b"], ["a"]),
        ({"b": "mse"}, {"a": ONE, "b": TWO}, None, ["b"]),
        ({"b": {"c": "mse"}}, {"a": ONE, "b": {"c": TWO}}, None, ["b/c"]),
        (
            {"a": ["mse", "mae"]},
            {"a": ONE, "b": TWO},
            None,
            ["a/mean_squared_error", "a/mean_absolute_error"],
        ),
    ],
)
def test_terms_are_called_by_output_or_by_loss(loss, y_pred, names, expected):
    assert [one.name for one in name_losses(loss, y_pred, names)] == expected


@pytest.mark.parametrize(
    "loss, y_pred, names, message",
    [
        ({"lable": "mse"}, {"label": ONE, "box": TWO}, None, "'lable'.*Did you mean 'label'"),
        ({"head2": "mse"}, ONE, ["head"], "outputs are 'head'"),
        (["mse", "mae", "mse"], [ONE, TWO], ["a", "b"], "list of 3, but the model has 2 outputs"),
        ({"a": "mse", "b": "mae"}, ONE, None, "the model has one output"),
        (["mse", "mse"], ONE, None, "Term 'mean_squared_error' is defined twice"),
    ],
)
def test_a_loss_that_fits_no_output_is_an_error(loss, y_pred, names, message):
    with pytest.raises(ValueError, match=message):
        name_losses(loss, y_pred, names)


def test_something_that_is_no_loss_is_an_error():
    with pytest.raises(TypeError, match="loss= holds 3"):
        name_losses(3, ONE)


OUTPUTS = {"a": ONE, "b": TWO}


@pytest.mark.parametrize("y", [{"a": 1, "b": 2, "extra": 3}, (1, 2), [1, 2]])
def test_labels_find_their_output(y):
    assert match_labels(y, OUTPUTS, ["a", "b"]) == {"a": 1, "b": 2}


def test_labels_of_the_used_outputs_alone_are_enough():
    assert match_labels(7, OUTPUTS, ["b"]) == {"b": 7}
    assert match_labels((7,), OUTPUTS, ["b"]) == {"b": 7}
    assert match_labels({"b": 7}, OUTPUTS, ["b"]) == {"b": 7}


def test_the_one_output_may_have_a_label_with_parts():
    label = {"target": 1, "weights": 2}
    assert match_labels(label, {"": ONE}, [""]) == {"": label}
    assert match_labels({"head": 5}, {"head": ONE}, ["head"]) == {"head": 5}


@pytest.mark.parametrize(
    "y, outputs, used, message",
    [
        (1, OUTPUTS, ["a", "b"], "labels are one tensor, but 2 outputs have a loss: 'a', 'b'"),
        ((1, 2, 3), OUTPUTS, ["a", "b"], "labels are a tuple of 3"),
        ((1, 2), {"head": ONE}, ["head"], "a tuple of 2, but the model has one output, 'head'"),
    ],
)
def test_labels_that_do_not_fit_are_an_error(y, outputs, used, message):
    with pytest.raises(ValueError, match=message):
        match_labels(y, outputs, used)


USES = {
    "subtracted from": lambda label: label - 1.0,
    "subtracted": lambda label: 1.0 - label,
    "squared": lambda label: tf.square(label),
    "subtracted from a tensor": lambda label: tf.reduce_mean(tf.abs(ONE - label)),
    "indexed": lambda label: label[0],
    "an array": lambda label: np.asarray(label),
    "asked for its shape": lambda label: label.shape,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_missing_label_is_an_error_only_when_it_is_read(use):
    label = match_labels({"a": ONE}, OUTPUTS, ["a", "b"])["b"]
    assert isinstance(label, MissingLabel)
    with pytest.raises((ValueError, AttributeError), match="loss of output 'b' reads its label"):
        use(label)


def test_sample_weights_find_their_output_or_serve_all():
    assert match_weights(None, OUTPUTS, ["a"]) == {"a": None}
    assert match_weights(5, OUTPUTS, ["a", "b"]) == {"a": 5, "b": 5}
    assert match_weights({"a": 5}, OUTPUTS, ["a", "b"]) == {"a": 5, "b": None}
    assert match_weights((5, 6), OUTPUTS, ["a", "b"]) == {"a": 5, "b": 6}
    with pytest.raises(ValueError, match="'c'"):
        match_weights({"c": 5}, OUTPUTS, ["a"])
    with pytest.raises(ValueError, match="tuple of 3"):
        match_weights((1, 2, 3), OUTPUTS, ["a", "b"])


def test_the_mask_of_an_output_is_honoured():
    # the one private name this package reads: `_keras_mask`, which Keras's layers set
    embedding = keras.layers.Embedding(4, 1, mask_zero=True)
    y_pred = embedding(tf.constant([[1, 2, 0]]))
    assert hasattr(y_pred, "_keras_mask")
    losses = name_losses(lambda t, p: tf.squeeze(tf.abs(t - p), -1), y_pred)
    ratio = compiled_ratios(
        losses, y=tf.zeros([1, 3, 1]), y_pred=y_pred, sample_weight=None, examples=1.0
    )["loss"]
    assert float(ratio.denominator) == 2.0


def test_outputs_of_one_name_are_named_like_a_list():
    shared, inputs = keras.layers.Dense(1, name="head"), keras.Input((2,))
    model = keras.Model(inputs, [shared(inputs), shared(-inputs)])
    y_pred = [ONE, 2 * ONE]
    assert list(name_outputs(y_pred, model.output_names)) == ["head/0", "head/1"]
    for loss in ([f, "mse"], {"head": [f, "mse"]}, {"head/0": f, "head/1": "mse"}):
        named = name_losses(loss, y_pred, model.output_names)
        assert [(each.name, each.output) for each in named] == [
            (n, n) for n in ("head/0", "head/1")
        ]
    with pytest.raises(ValueError, match=r"names output 'head'.*Give a list: {'head': \[\.\.\.\]}"):
        name_losses({"head": "mse"}, y_pred, model.output_names)


def test_the_weights_of_a_nest_of_outputs_are_those_of_each():
    outputs = {"head/a": ONE, "head/b": ONE, "c": ONE}
    weights = match_weights({"head": 1.0, "head/b": 2.0}, outputs, list(outputs))
    assert weights == {"head/a": 1.0, "head/b": 2.0, "c": None}
