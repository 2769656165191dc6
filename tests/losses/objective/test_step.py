"""What a step offers to terms: outputs by name, another pass of the model, the losses' weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from losses import Objective, Step, UncertaintyWeight

X = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")


def noisy():
    return keras.Sequential(
        [
            keras.Input((3,), name="x"),
            keras.layers.Dense(8, "tanh", kernel_regularizer="l2", activity_regularizer="l2"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(1, name="out"),
        ]
    )


def step_of(model, **arguments):
    step = Step(**{"x": X, "model": model, "step": 0, "training": True, **arguments})
    step.y_pred = model(X, training=step.training)
    return step


def test_another_pass_changes_nothing_in_the_model():
    model = noisy()
    step = step_of(model)
    before = [v.numpy() for v in model.variables]
    first, second = step.forward(2.0 * X), step.forward(2.0 * X)
    for mine, theirs in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(first, second)  # the same masks
    assert np.max(np.abs(first - step.y_pred)) > 1e-3
    assert len(model.losses) == 1  # the kernel's; what the passes added is nowhere


def test_another_pass_reaches_the_weights():
    model = noisy()
    step = step_of(model)
    kernel = model.trainable_variables[0].value
    with tf.GradientTape() as tape:
        found = tf.reduce_sum(step.forward(X) ** 2)
    assert np.max(np.abs(tape.gradient(found, kernel))) > 0


def test_another_pass_is_that_of_the_trainer():
    model = noisy()

    def forward(step):
        return {"twice": 2.0 * model(step.x, training=step.training)}

    step = step_of(model, training=False, forward=forward)
    np.testing.assert_allclose(step.forward(X)["twice"], 2.0 * model(X), rtol=1e-6)
    np.testing.assert_array_equal(step.x, X)


def test_another_pass_takes_what_the_model_takes():
    step = step_of(noisy(), training=False)
    found = step.forward({"x": X, "only_for_terms": X[:, 0]})
    np.testing.assert_array_equal(found, step.forward(X))


def test_outputs_have_their_names():
    step = step_of(noisy())
    assert list(step.named_outputs()) == [""]
    step = step_of(noisy(), objective=Objective(loss="mse", output_names=["out"]))
    assert step.output_names == ["out"]
    assert step.named_outputs()["out"] is step.y_pred
    assert list(step.named_outputs({"a": X, "b": {"c": X}})) == ["a", "b/c"]


def test_the_weights_of_compiled_losses_are_known_before_the_terms_are():
    objective = Objective(
        loss={"a": "mse", "b": "mse", "c": "mse"},
        loss_weights={"a": 3.0, "b": lambda step: tf.cast(step, tf.float32), "later": 7.0},
    )
    step = step_of(noisy(), step=4, objective=objective)
    np.testing.assert_array_equal(step.compiled_weights(["b", "a", "c"]), [4.0, 3.0, 1.0])
    learned = Objective(loss="mse", loss_weights=UncertaintyWeight(init=0.0), output_names=["out"])
    step = step_of(noisy(), y=X[:, :1], objective=learned)
    names = list(step.compiled_terms())
    np.testing.assert_array_equal(step.compiled_weights(names), [0.5])


def test_compiled_terms_of_other_inputs_are_those_of_another_pass():
    objective = Objective(loss="mse", output_names=["out"])
    step = step_of(noisy(), y=X[:, :1], training=False, objective=objective)
    found = step.compiled_terms(x=2.0 * X)["mean_squared_error"]
    expected = np.mean((step.forward(2.0 * X) - X[:, :1]) ** 2)
    assert float(found.value()) == pytest.approx(float(expected), rel=1e-6)
    with pytest.raises(ValueError, match="both x= and y_pred="):
        step.compiled_terms(x=X, y_pred=X)
