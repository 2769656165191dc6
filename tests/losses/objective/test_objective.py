"""The objective alone: its terms by name, their weights, and what the first step settles."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from losses.objective import Described, Objective, Step

Y_TRUE, Y_PRED = tf.constant([[1.0], [3.0]]), tf.constant([[2.0], [1.0]])  # mse 2.5, mae 1.5


def one_step(objective, training=True):
    inputs = keras.Input((1,))
    kernel = keras.layers.Dense(1, kernel_regularizer=keras.regularizers.L2(0.5), name="out")
    model = keras.Model(inputs, kernel(inputs), name="net")
    model.set_weights([np.array([[2.0]]), np.zeros(1)])
    step = Step(
        x=tf.ones([2, 1]), y=Y_TRUE, model=model, step=0, training=training, objective=objective
    )
    step.y_pred = Y_PRED
    return step


def complete(objective, training=True):
    step = one_step(objective, training)
    return objective.complete(objective.compute_terms(step), objective.model_terms(step), step)


def test_the_terms_come_in_order_with_their_values_and_weights():
    absolute = losses.term(lambda step: tf.abs(step.y - step.y_pred)[:, 0], name="mae", weight=0.5)
    objective = Objective(
        loss="mse",
        loss_weights={"mean_squared_error": losses.UncertaintyWeight(init=2.0)},
        terms=[absolute],
        output_names=["out"],
    )
    terms = complete(objective)
    values = {name: float(ratio.value()) for name, ratio in terms.items()}
    assert values == {
        "mean_squared_error": 2.5,
        "mae": 1.5,
        "regularization/out/kernel": 2.0,  # 0.5 * 2^2
        "uncertainty/mean_squared_error": 1.0,  # s / 2
    }
    weights = objective.weights(list(terms), step=0)
    np.testing.assert_allclose(weights, [np.exp(-2) / 2, 0.5, 1.0, 1.0], rtol=1e-6)
    assert objective.described == (
        Described("mean_squared_error", "compiled", "UncertaintyWeight(regression)"),
        Described("mae", "term", "0.5"),
        Described("regularization/out/kernel", "model", "1"),
        Described("uncertainty/mean_squared_error", "weight", "1"),
    )


def test_the_first_step_settles_the_compiled_losses_and_the_table():
    objective = Objective(loss=losses.StudentTNLL, output_names=["out"])
    assert objective.resolved.compiled is None and objective.described is None
    complete(objective)
    resolved = objective.resolved
    complete(objective)
    complete(objective, training=False)
    assert objective.resolved is resolved  # a class of losses is made once, with its parameters
    assert [loss.name for loss in resolved.compiled] == ["student_tnll"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        resolved.compiled = ()


def test_weights_can_be_asked_for_before_the_table_is_known():
    objective = Objective(loss="mse", loss_weights=0.25, output_names=["out"])
    step = one_step(objective)
    assert list(step.compiled_terms()) == ["mean_squared_error"]
    assert step.compiled_weights(["mean_squared_error"]).numpy().tolist() == [0.25]
    assert objective.described is None


def test_who_weighs_the_terms_further_changes_the_table():
    objective = Objective(loss="mse", output_names=["out"])
    complete(objective)
    objective.describe_with(
        lambda lines: [dataclasses.replace(line, weight="PCGrad") for line in lines]
    )
    assert [line.weight for line in objective.described] == ["PCGrad", "PCGrad"]


def test_the_places_of_loss_parameters_are_the_losses_the_terms_and_the_weights():
    weight, sparsity = losses.UncertaintyWeight(), losses.term(lambda step: 0.0, name="t")
    objective = Objective(
        loss="mse",
        loss_weights={"mean_squared_error": weight},
        terms=[sparsity],
        output_names=["out"],
    )
    assert objective.places() == [("t", sparsity)]
    complete(objective)
    (compiled,) = objective.resolved.compiled
    places = objective.places()
    assert places[:2] == [("mean_squared_error", compiled.loss), ("t", sparsity)]
    assert ("mean_squared_error", weight) in places


def test_a_name_in_loss_weights_is_checked_once_all_terms_are_known():
    objective = Objective(loss="mse", loss_weights={"mse": 2.0}, output_names=["out"])
    step = one_step(objective)
    assert step.compiled_terms()
    with pytest.raises(ValueError, match=r"names term 'mse'; the terms are 'mean_squared_error'"):
        complete(objective)


def test_the_groups_that_a_term_trains_stand_in_the_table():
    terms = [
        losses.term(lambda step: 0.0, name="a", trains="critic"),
        losses.term(lambda step: 0.0, name="b", trains=["critic", "generator"]),
    ]
    objective = Objective(terms=terms)
    complete(objective)
    assert [line.trains for line in objective.described][:2] == [
        ("critic",),
        ("critic", "generator"),
    ]


@pytest.mark.parametrize("key", ["\x1b[31mred", "two\nlines", "", 3, "dict"])
def test_a_term_whose_name_cannot_be_shown_is_refused(key):
    objective = Objective(loss="mse", output_names=["out"])
    step = one_step(objective)
    added = {"named": {"two\nlines": tf.zeros([])}} if key == "dict" else {key: tf.zeros([])}
    computed = {**objective.compute_terms(step), **added}
    with pytest.raises(ValueError, match="A term's name, given by compute_terms") as told:
        objective.complete(computed, {}, step)
    assert (r"named/two\nlines" if key == "dict" else repr(key)) in str(told.value)
    assert str(told.value).isprintable()
