"""Adversarial regularization: closed forms of a linear model, what is perturbed, the Trainer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from losses import AdversarialRegularization, Step
from trainer import Trainer

W = np.array([[1.0], [-3.0], [2.0]], "float32")
X = np.array([[1.0, 0.0, 2.0], [0.5, 1.0, -1.0], [0.0, 2.0, 1.0], [1.0, 1.0, 1.0]], "float32")
Y = np.array([[0.0], [1.0], [2.0], [-3.0]], "float32")
DUAL = {"l2": np.linalg.norm(W), "infinity": np.abs(W).sum(), "l1": np.abs(W).max()}
every_norm = pytest.mark.parametrize("norm", DUAL)


def linear():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([W])
    return model


def step_of(model, x=X, y=Y, **arguments):
    arguments.setdefault("training", True)
    step = Step(x=x, y=y, model=model, step=0, **arguments)
    step.y_pred = model(x)
    return step


def value(term, step):
    return float(term.call(step).value())


def perturbed_by(term, step):
    """The inputs that a term puts through the model last."""
    seen = []
    step._forward = lambda other: seen.append(other.x) or other.model(other.x)
    term.call(step)
    return seen[-1]


@every_norm
def test_a_linear_regression_has_its_closed_form(norm):
    # the residual r grows by step_size times the dual norm of w, away from 0
    term = AdversarialRegularization(loss="mse", step_size=0.1, norm=norm)
    residual = X.astype("float64") @ W - Y
    expected = np.mean((np.abs(residual) + 0.1 * DUAL[norm]) ** 2)
    assert value(term, step_of(linear())) == pytest.approx(expected, rel=1e-5)


@every_norm
def test_the_perturbation_is_that_of_the_norm(norm):
    moved = perturbed_by(
        AdversarialRegularization(loss="mse", step_size=0.5, norm=norm), step_of(linear())
    )
    along = {"l2": W / np.linalg.norm(W), "infinity": np.sign(W), "l1": [[0.0], [-1.0], [0.0]]}
    expected = 0.5 * np.sign(X @ W - Y) * np.reshape(along[norm], [1, 3])
    np.testing.assert_allclose(moved - X, expected, atol=1e-6)


@every_norm
def test_several_steps_stay_within_epsilon(norm):
    term = AdversarialRegularization(
        loss="mse", step_size=0.3, norm=norm, steps=5, epsilon=0.5, random_start=True
    )
    moved = np.asarray(perturbed_by(term, step_of(linear())), "float64") - X
    order = {"l2": 2, "infinity": np.inf, "l1": 1}[norm]
    assert np.all(np.linalg.norm(moved, order, axis=1) <= 0.5 * (1 + 1e-5))
    # a linear model's worst point of the ball is where 5 steps of 0.3 end
    expected = np.mean((np.abs(X @ W - Y) + 0.5 * DUAL[norm]) ** 2)
    assert value(term, step_of(linear())) == pytest.approx(expected, rel=1e-2)


def test_without_epsilon_the_steps_add_up():
    term = AdversarialRegularization(loss="mse", step_size=0.1, steps=3)
    expected = np.mean((np.abs(X @ W - Y) + 0.3 * DUAL["l2"]) ** 2)
    assert value(term, step_of(linear())) == pytest.approx(expected, rel=1e-5)


def test_the_size_of_the_loss_does_not_matter():
    for scale in (1e-25, 1e15):
        term = AdversarialRegularization(
            loss=lambda t, p, s=scale: s * tf.abs(t - p)[:, 0], step_size=0.1
        )
        expected = scale * np.mean(np.abs(X @ W - Y) + 0.1 * DUAL["l2"])
        assert value(term, step_of(linear())) == pytest.approx(expected, rel=1e-5)


def test_labels_and_sample_weights_are_those_of_the_step():
    weight = np.array([1.0, 0.0, 2.0, 0.5], "float32")
    term = AdversarialRegularization(loss="mse", step_size=0.1)
    expected = np.mean(weight[:, None] * (np.abs(X @ W - Y) + 0.1 * DUAL["l2"]) ** 2)
    step = step_of(linear(), sample_weight=weight)
    assert value(term, step) == pytest.approx(expected, rel=1e-5)
    moved = perturbed_by(term, step)
    np.testing.assert_array_equal(moved[1], X[1])  # without a gradient nothing moves


class Joined(keras.Model):
    """w . a + v . b + table[id] of a dict of inputs."""

    def __init__(self):
        super().__init__()
        self.table = keras.layers.Embedding(3, 1, embeddings_initializer="ones")
        self.built = True

    def call(self, x, training=None):
        a = tf.reduce_sum(x["a"] * W[:2, 0], -1, keepdims=True)
        return a + tf.reduce_sum(x["b"] * W[2, 0], [1, 2])[:, None] + self.table(x["id"])


def joined():
    x = {"a": X[:, :2], "b": X[:, 2:, None], "id": np.array([0, 1, 2, 0]), "label": Y + 0.5}
    return step_of(Joined(), {key: tf.constant(one) for key, one in x.items()})


def test_the_norm_is_joint_over_the_float_inputs_and_others_stay():
    step = joined()
    moved = perturbed_by(AdversarialRegularization(loss="mse", step_size=0.5), step)
    change = np.concatenate([moved["a"] - X[:, :2], moved["b"][:, :, 0] - X[:, 2:]], axis=1)
    direction = W[:, 0] / np.linalg.norm(W)
    np.testing.assert_allclose(change, 0.5 * np.sign(step.y_pred - Y) * direction, atol=1e-6)
    np.testing.assert_array_equal(moved["id"], step.x["id"])
    np.testing.assert_array_equal(moved["label"], step.x["label"])  # the model does not read it


def test_a_feature_mask_comes_before_the_norm():
    # without the second feature the norm is that of (1, 2): the whole step goes to the others
    term = AdversarialRegularization(loss="mse", step_size=0.5, feature_mask=[1.0, 0.0, 1.0])
    moved = perturbed_by(term, step_of(linear()))
    expected = 0.5 * np.sign(X @ W - Y) * np.array([1.0, 0.0, 2.0]) / np.sqrt(5.0)
    np.testing.assert_allclose(moved - X, expected, atol=1e-6)


def test_feature_masks_by_input_and_in_a_random_start():
    term = AdversarialRegularization(
        loss="mse", step_size=0.5, norm="infinity", feature_mask={"a": 0.0}, random_start=True
    )
    moved = perturbed_by(term, joined())
    np.testing.assert_array_equal(moved["a"], X[:, :2])
    assert np.all(np.abs(moved["b"][:, :, 0] - X[:, 2:]) > 0.1)


def test_the_clip_pair_bounds_the_inputs():
    x = np.clip(X, 0.0, 1.0)
    term = AdversarialRegularization(loss="mse", step_size=9.0, norm="infinity", clip=(0.0, 1.0))
    moved = np.asarray(perturbed_by(term, step_of(linear(), x)))
    np.testing.assert_array_equal(moved, (np.sign(x @ W - Y) * np.sign(W.T) + 1) / 2)


@pytest.mark.parametrize("clip", [(0.0, 1.0), (None, 0.1), (-0.2, None)])
def test_the_clip_pair_may_be_open_and_brings_inputs_from_outside_into_the_range(clip):
    term = AdversarialRegularization(loss="mse", step_size=0.1, norm="infinity", clip=clip)
    moved = perturbed_by(term, step_of(linear()))
    expected = np.clip(X + 0.1 * np.sign(X @ W - Y) * np.sign(W.T), *clip)
    np.testing.assert_allclose(moved, expected, rtol=1e-6)


def test_gradients_that_are_not_finite_count_as_zero():
    def loss(y_true, y_pred):  # the slope at 0 is infinite
        return tf.sqrt(tf.abs(y_pred[:, 0])) + 2.0 * y_pred[:, 1]

    model = keras.Sequential([keras.Input((3,)), keras.layers.Activation("linear")])
    x = np.array([[0.0, 1.0, 1.0], [1.0, 1.0, 1.0]], "float32")
    term = AdversarialRegularization(loss=loss, step_size=0.5)
    moved = perturbed_by(term, step_of(model, x, Y[:2]))
    np.testing.assert_allclose(moved[0], [0.0, 1.5, 1.0])  # the first slope is left out
    assert np.all(np.isfinite(moved))
    step = 0.5 * np.array([0.5, 2.0, 0.0]) / np.sqrt(4.25)
    np.testing.assert_allclose(moved[1], x[1] + step, rtol=1e-6)


def test_no_gradient_flows_through_the_perturbation():
    model = linear()
    term = AdversarialRegularization(loss="mse", step_size=0.1)
    with tf.GradientTape() as tape:
        found = term.call(step_of(model)).value()
    (gradient,) = tape.gradient(found, [model.layers[0].kernel.value])
    d = 0.1 * np.sign(X @ W - Y) * W.T / np.linalg.norm(W)
    moved = X + d  # held fixed
    np.testing.assert_allclose(gradient, 2 * moved.T @ (moved @ W - Y) / 4, rtol=1e-4)


def test_the_random_start_is_of_the_example_and_the_step():
    term = AdversarialRegularization(
        loss=lambda t, p: 0.0 * p[:, 0], step_size=0.5, epsilon=0.2, random_start=True
    )
    step = step_of(linear())
    first = np.asarray(perturbed_by(term, step))
    np.testing.assert_array_equal(
        perturbed_by(term, step_of(linear(), X[::-1], Y[::-1])), first[::-1]
    )
    step.step = 1
    assert np.all(np.any(perturbed_by(term, step) != first, axis=1))
    length = np.linalg.norm(first - X, axis=1)
    assert np.all(length <= 0.2 * (1 + 1e-6)) and np.std(length) > 0.01


def noisy(regularizer=None, rate=0.5):
    def init(seed):
        return keras.initializers.GlorotUniform(seed=seed)

    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(
                8,
                "tanh",
                name="hidden",
                kernel_initializer=init(1),
                kernel_regularizer=regularizer,
                activity_regularizer=regularizer,
            ),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dropout(rate, seed=3),
            keras.layers.Dense(1, kernel_initializer=init(2), name="out"),
        ],
        name="net",
    )


def fit(model, *, terms, steps=1, **arguments):
    arguments = {"optimizer": keras.optimizers.SGD(0.05), "loss": "mse", **arguments}
    trainer = Trainer(model, terms=terms, **arguments)
    return trainer, trainer.fit((X, Y), steps=steps, batch_size=4, log_every=1, verbose=False).rows


def test_moving_statistics_and_regularizers_are_those_of_the_clean_pass():
    _, plain = fit(noisy("l2"), terms=[])
    clean, model = noisy("l2"), noisy("l2")
    fit(clean, terms=[])
    trainer, rows = fit(model, terms=[AdversarialRegularization(weight=0.0, step_size=0.3)])
    for key, one in plain[0].items():
        if key.startswith("raw/"):
            assert rows[0][key] == pytest.approx(one, rel=1e-6), key
    for mine, theirs in zip(
        model.non_trainable_variables, clean.non_trainable_variables, strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    names = [line.split()[0] for line in trainer.describe().splitlines() if " term " in line]
    assert names == ["adversarial_regularization"]


def test_two_passes_of_one_step_draw_the_same_masks():
    step = step_of(noisy())
    np.testing.assert_array_equal(step.forward(X), step.forward(X))


def test_the_ledger_shows_the_adversarial_loss():
    trainer, rows = fit(linear(), terms=[AdversarialRegularization(step_size=0.1)], steps=3)
    clean, moved = np.mean((X @ W - Y) ** 2), (np.abs(X @ W - Y) + 0.1 * DUAL["l2"]) ** 2
    assert rows[0]["raw/adversarial_regularization"] == pytest.approx(np.mean(moved), rel=1e-5)
    assert rows[0]["weight/adversarial_regularization"] == pytest.approx(0.2)
    assert rows[0]["total"] == pytest.approx(clean + 0.2 * np.mean(moved), rel=1e-5)
    evaluated = trainer.evaluate((X, Y), batch_size=3)
    w = np.asarray(trainer.model.get_weights()[0], "float64")
    expected = np.mean((np.abs(X @ w - Y) + 0.1 * np.linalg.norm(w)) ** 2)
    assert evaluated["raw/adversarial_regularization"] == pytest.approx(expected, rel=1e-5)


def two_outputs():
    def init(seed):
        return keras.initializers.GlorotUniform(seed=seed)

    x = keras.Input((3,))
    h = keras.layers.Dense(5, "tanh", kernel_initializer=init(1), name="hidden")(x)
    mask = keras.layers.Dense(2, "sigmoid", kernel_initializer=init(2), name="mask")(h)
    size = keras.layers.Dense(1, kernel_initializer=init(3), name="size")(h)
    return keras.Model(x, {"mask": mask, "size": size})


LOSS = {"size": "mse", "mask": lambda: losses.Dice()}


def several(n=26):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 3)).astype("float32")
    y = {"mask": rng.integers(0, 2, (n, 2)), "size": rng.normal(size=(n, 1))}
    return x, {key: one.astype("float32") for key, one in y.items()}


def test_several_losses_are_moved_against_as_one_and_shown_apart():
    x, y = several(4)
    model = two_outputs()
    weights = {"size": 0.7, "mask": lambda step: 2.0 + 0.0 * tf.cast(step, tf.float32)}

    def total(x, parts=False):
        out = model(x)
        size = 0.7 * tf.reduce_mean(tf.square(out["size"] - y["size"]))
        mask = 2.0 * losses.Dice()(y["mask"], out["mask"])
        return (size, mask) if parts else size + mask

    with tf.GradientTape() as tape:
        tape.watch(moved := tf.constant(x))
        found = total(moved)
    moved += 0.2 * tf.math.l2_normalize(tape.gradient(found, moved), axis=1)
    size, mask = total(moved, parts=True)
    trainer = Trainer(
        model,
        loss={"size": "mse", "mask": losses.Dice()},
        loss_weights=weights,
        terms=[AdversarialRegularization(step_size=0.2, name="adv")],
    )
    row = trainer.evaluate((x, y), batch_size=4)
    assert row["raw/adv/size"] == pytest.approx(float(size), rel=1e-5)
    assert row["raw/adv/mask"] == pytest.approx(float(mask), rel=1e-5)
    assert row["weight/adv/size"] == row["weight/adv/mask"] == pytest.approx(0.2)


def test_a_weight_that_learns_does_not_learn_from_the_adversarial_loss():
    def run(terms):
        weight = losses.UncertaintyWeight(init=0.5)
        fit(linear(), terms=terms, loss_weights=weight)
        return float(weight.log_variance)

    assert run([AdversarialRegularization(step_size=0.1)]) == pytest.approx(run([]), rel=1e-6)


@pytest.mark.very_slow
@pytest.mark.parametrize("norm, steps", [("l2", 1), ("infinity", 2), ("l1", 2)])
def test_it_trains_under_the_compiler(norm, steps):
    arguments = {"norm": norm, "steps": steps, "step_size": 0.1, "epsilon": 0.15}

    def run(**more):
        term = AdversarialRegularization(random_start=True, clip=(-2.0, 2.0), **arguments)
        model = noisy("l2", rate=0.0)  # the compiler draws other masks
        trainer, rows = fit(model, terms=[term], steps=4, **more)
        return rows[-1], trainer.model.get_weights()

    (row, weights), (compiled_row, compiled) = run(), run(jit_compile=True)
    assert compiled_row["total"] == pytest.approx(row["total"], rel=1e-4)
    for mine, theirs in zip(compiled, weights, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def train(strategy, build, loss, data, term, batch, **arguments):
    trainer = Trainer(
        build,
        optimizer=keras.optimizers.SGD(0.05),
        loss=loss,
        terms=[term],
        strategy=strategy,
        **arguments,
    )
    data = tf.data.Dataset.from_tensor_slices(data).batch(batch)
    rows = trainer.fit(data, steps=20, log_every=1, verbose=False).rows
    return rows, {v.path: np.asarray(v.value.read_value()) for v in trainer.model.weights}


@pytest.mark.parametrize("case", ["one loss", "several losses"])
def test_two_replicas_give_the_ledger_and_weights_of_one(case, two_replicas):
    x, y = several()

    def run(strategy):
        if case == "one loss":
            data, loss = (x, y["mask"], np.arange(26.0)), "binary_crossentropy"

            def build():
                model = two_outputs()
                return keras.Model(model.input, model.output["mask"])
        else:
            data, build = (x, y), two_outputs
            loss = {"size": "mse", "mask": losses.Dice()}
        term = AdversarialRegularization(
            weight=0.5, step_size=0.1, steps=2, epsilon=0.15, random_start=True
        )
        return train(strategy, build, loss, data, term, 5)  # 3 + 2, and 1 + 0 at the end

    rows, weights = run("one_device")
    other_rows, other_weights = run(two_replicas)
    for mine, theirs in zip(other_rows, rows, strict=True):
        for key in theirs:
            if key.startswith(("raw/", "total")):
                assert mine[key] == pytest.approx(theirs[key], rel=1e-6, abs=1e-7), key
    for path, one in weights.items():
        np.testing.assert_allclose(other_weights[path], one, rtol=5e-6, atol=5e-6)


def test_it_is_saved_by_its_arguments():
    term = AdversarialRegularization(
        losses.Charbonnier(0.5),
        keras.optimizers.schedules.PolynomialDecay(0.1, 10, 1.0),
        step_size=0.3,
        norm="infinity",
        steps=4,
        epsilon=0.5,
        random_start=True,
        clip=(0.0, None),
        feature_mask=[1.0, 0.0, 1.0],
        seed=5,
        name="adv",
        trains="body",
    )
    same = AdversarialRegularization.from_config(term.get_config())
    assert same.get_config() == term.get_config()
    saved = keras.saving.serialize_keras_object(term)
    assert saved["registered_name"] == "termwise>AdversarialRegularization"
    again = keras.saving.deserialize_keras_object(saved)
    step = step_of(linear())
    assert value(again, step) == pytest.approx(value(term, step), rel=1e-6)
    assert float(again.weight(5)) == float(term.weight(5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step_size": 0.0}, r"step_size=0.0\): give a finite number above 0"),
        ({"step_size": "big"}, r"step_size='big'\): give a finite number above 0"),
        ({"epsilon": -1.0}, r"epsilon=-1.0\): give a finite number above 0"),
        ({"norm": "linf"}, r"norm='linf'\): accepted are 'l2', 'infinity' and 'l1'"),
        ({"steps": 0}, r"steps=0\): give a whole number of at least 1"),
        ({"steps": 1.5}, r"steps=1.5\): give a whole number"),
        ({"clip": 1.0}, r"clip=1.0\): give a pair"),
    ],
)
def test_an_argument_outside_its_range_is_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        AdversarialRegularization(**arguments)


def test_without_any_loss_there_is_an_error():
    term = losses.term(lambda step: step.y_pred[:, 0], name="own")
    trainer = Trainer(linear(), terms=[term, AdversarialRegularization()])
    with pytest.raises(ValueError, match="no loss to increase"):
        trainer.build((X, Y))


def test_a_mask_of_an_unknown_input_is_an_error():
    with pytest.raises(ValueError, match="feature_mask names input 'c'; the inputs are 'a'"):
        AdversarialRegularization(loss="mse", feature_mask={"c": 1.0}).call(joined())
