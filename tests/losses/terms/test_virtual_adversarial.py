"""Virtual adversarial training: the worst direction of linear logits, invariances, the Trainer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from losses import Step, VirtualAdversarial
from trainer import Trainer

RNG = np.random.default_rng(0)
W = RNG.normal(size=(3, 4)).astype("float32")
X = RNG.normal(size=(6, 3)).astype("float32")
Y = RNG.integers(0, 4, 6)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(p, q):
    return np.sum(p * (np.log(p) - np.log(q)), -1)


def linear(w=W, activation=None):
    layer = keras.layers.Dense(w.shape[1], activation, use_bias=False, name="out")
    model = keras.Sequential([keras.Input((len(w),)), layer])
    model.set_weights([w])
    return model


def step_of(model, x=X, **arguments):
    arguments = {"step": 0, "training": True, **arguments}
    step = Step(x=x, model=model, **arguments)
    step.y_pred = model(x, training=True)
    return step


def value(term, step):
    return float(term.call(step).value())


def worst(x, w, epsilon):
    """KL along the top eigenvector of the KL's Hessian W (diag(p) - p p') W', either way."""
    values = []
    for row in x.astype("float64"):
        p = softmax(row @ w)
        hessian = w @ (np.diag(p) - np.outer(p, p)) @ w.T
        d = epsilon * np.linalg.eigh(hessian)[1][:, -1]
        values.append([kl(p, softmax((row + s * d) @ w)) for s in (-1, 1)])
    return np.array(values)


def test_many_iterations_find_the_direction_in_which_kl_bends_most():
    term = VirtualAdversarial(epsilon=0.3, iterations=40)
    for row in X:
        found = value(term, step_of(linear(), row[None]))
        assert np.min(np.abs(worst(row[None], W, 0.3)[0] - found)) < 2e-3 * found


def test_one_feature_has_a_closed_form():
    # two logits a x and 0: every direction is +-1, and the divergence that of Bernoullis
    w, x, epsilon = np.array([[1.5]], "float32"), np.array([[0.0], [0.0]], "float32"), 0.8
    p, q = 0.5, 1 / (1 + np.exp(-1.5 * epsilon))  # symmetric at 0
    expected = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    for model, logits in ((linear(w), True), (linear(w, "sigmoid"), False)):
        term = VirtualAdversarial(epsilon=epsilon, from_logits=logits)
        assert value(term, step_of(model, x)) == pytest.approx(expected, rel=1e-5)


def test_logits_and_probabilities_give_the_same():
    logits = value(VirtualAdversarial(epsilon=0.5), step_of(linear()))
    term = VirtualAdversarial(epsilon=0.5, from_logits=False)
    assert value(term, step_of(linear(W, "softmax"))) == pytest.approx(logits, rel=1e-4)


def test_the_gradient_holds_the_clean_prediction_and_the_direction_fixed():
    model = linear()
    term, step = VirtualAdversarial(epsilon=0.5, iterations=2), step_of(model)
    seen = []
    step._forward = lambda other: seen.append(other.x) or model(other.x)
    with tf.GradientTape() as tape:
        found = term.call(step).value()
    gradient = tape.gradient(found, model.trainable_variables[0].value)
    p, moved = softmax(X @ W), np.asarray(seen[-1], "float64")
    expected = moved.T @ (softmax(moved @ W) - p) / len(X)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(moved - X, axis=1), 0.5, rtol=1e-5)


def test_examples_may_change_places_and_batches():
    term = VirtualAdversarial(epsilon=0.5)
    whole = value(term, step_of(linear()))
    order = np.array([3, 1, 0, 5, 4, 2])
    assert value(term, step_of(linear(), X[order])) == pytest.approx(whole, rel=1e-6)
    parts = [value(term, step_of(linear(), part)) for part in (X[:2], X[2:])]
    assert (2 * parts[0] + 4 * parts[1]) / 6 == pytest.approx(whole, rel=1e-6)
    assert value(term, step_of(linear(), step=1)) != pytest.approx(whole, rel=1e-3)
    assert value(VirtualAdversarial(epsilon=0.5, seed=1), step_of(linear())) != pytest.approx(
        whole, rel=1e-3
    )


@pytest.mark.parametrize("logits", [(30.0, -30.0), (-30.0, 30.0), (1000.0, 0.0)])
@pytest.mark.parametrize("from_logits", [True, False])
def test_sure_predictions_are_finite(logits, from_logits):
    model = linear(np.array([logits], "float32"), None if from_logits else "softmax")
    step = step_of(model, np.ones((2, 1), "float32"))
    with tf.GradientTape() as tape:
        found = VirtualAdversarial(epsilon=0.1, from_logits=from_logits).call(step).value()
    gradient = tape.gradient(found, model.trainable_variables[0].value)
    assert np.isfinite(found) and np.all(np.isfinite(gradient))
    assert float(found) >= 0


def test_a_model_that_does_not_read_its_input_has_no_divergence():
    assert value(VirtualAdversarial(epsilon=1.0), step_of(linear(np.zeros((3, 4))))) == 0.0


def test_both_predictions_are_made_with_the_same_masks():
    # without a change of the inputs nothing but other masks could move the prediction
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dropout(0.5), keras.layers.Dense(4, name="out")]
    )
    assert value(VirtualAdversarial(epsilon=1e-4), step_of(model)) < 1e-6


def test_masked_time_steps_do_not_count():
    class Marked(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.supports_masking = True

        def call(self, x):
            return x

        def compute_mask(self, x, mask=None):
            return tf.constant([[True, False], [True, True], [False, False]])

    out = keras.layers.Dense(4, use_bias=False, name="out")
    model = keras.Sequential([keras.Input((2, 3)), Marked(), out])
    out.set_weights([W])
    x = X.reshape(3, 2, 3)
    term = VirtualAdversarial(epsilon=0.5)
    before = value(term, step_of(model, x))
    ratio = term.call(step_of(model, x))
    assert float(ratio.denominator) == 3.0
    assert before > 0


def build():
    def init(seed):
        return keras.initializers.GlorotUniform(seed=seed)

    x = keras.Input((3,))
    h = keras.layers.Dense(8, "tanh", kernel_initializer=init(1), name="hidden")(x)
    label = keras.layers.Dense(4, kernel_initializer=init(2), name="label")(h)
    return keras.Model(
        x,
        {"label": label, "size": keras.layers.Dense(1, kernel_initializer=init(3), name="size")(h)},
    )


def train(strategy, steps=20, xi=1e-2, **arguments):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(26, 3)).astype("float32"), rng.integers(0, 4, 26)
    trainer = Trainer(
        build,
        optimizer=keras.optimizers.SGD(0.05),
        loss={"label": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "size": "mse"},
        terms=[VirtualAdversarial(0.5, epsilon=1.0, xi=xi, output="label")],
        strategy=strategy,
        **arguments,
    )
    data = tf.data.Dataset.from_tensor_slices((x, {"label": y, "size": x[:, :1]})).batch(5)
    rows = trainer.fit(data, steps=steps, log_every=1, verbose=False).rows
    return rows, {v.path: np.asarray(v.value.read_value()) for v in trainer.model.weights}


# a difference of predictions that are xi apart has lost the digits that xi takes
@pytest.mark.parametrize(("xi", "accuracy"), [(1.0, 1e-6), (1e-2, 2e-4)])
def test_two_replicas_give_the_ledger_and_weights_of_one(xi, accuracy, two_replicas):
    rows, weights = train("one_device", xi=xi)
    other_rows, other_weights = train(two_replicas, xi=xi)
    for mine, theirs in zip(other_rows, rows, strict=True):
        for key in ("total", "raw/label", "raw/virtual_adversarial"):
            # a divergence has the absolute error of its logarithms: on other processors 2.5e-7
            assert mine[key] == pytest.approx(theirs[key], rel=accuracy, abs=4e-7), key
    for path, one in weights.items():
        np.testing.assert_allclose(other_weights[path], one, rtol=5e-6, atol=5e-6)


def test_it_trains_under_the_compiler():
    row, compiled = train("one_device", 4)[0][-1], train("one_device", 4, jit_compile=True)[0][-1]
    for key in ("total", "raw/virtual_adversarial"):
        assert compiled[key] == pytest.approx(row[key], rel=1e-4)


def test_it_is_saved_by_its_arguments():
    term = VirtualAdversarial(
        0.3, epsilon=2.0, xi=0.1, iterations=3, output="a", from_logits=False, seed=4, name="vat"
    )
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(term))
    assert isinstance(again, VirtualAdversarial)
    assert again.get_config() == term.get_config()
    assert term.get_config()["epsilon"] == 2.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": 0.0}, r"VirtualAdversarial\(epsilon=0.0\): give a finite number above 0"),
        ({"epsilon": 1.0, "xi": float("nan")}, r"xi=nan\)"),
        ({"epsilon": 1.0, "iterations": 0}, r"iterations=0\): give a whole number of at least 1"),
    ],
)
def test_an_argument_outside_its_range_is_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        VirtualAdversarial(**arguments)


def test_several_outputs_need_a_name():
    step = step_of(build())
    with pytest.raises(ValueError, match=r"one of the outputs 'label', 'size'\. Say which"):
        VirtualAdversarial(epsilon=1.0).call(step)
    with pytest.raises(ValueError, match=r"reads 'lable'.*Did you mean 'label'"):
        VirtualAdversarial(epsilon=1.0, output="lable").call(step)
