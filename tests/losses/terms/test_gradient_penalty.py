"""The gradient penalty: slopes known in closed form, its gradients, a critic trained with it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from losses import GradientPenalty, Step
from trainer import Trainer

RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(6, 2)).astype("float32")
FAKE = RNG.normal(size=(6, 2)).astype("float32")


def step_of(x=REAL, fake=FAKE, model=None, step=0):
    found = Step(x={"image": x}, model=model, step=step, training=True)
    found.y_pred = {"fake": tf.constant(fake)}
    return found


def penalty(critic, **arguments):
    arguments = {"real": "image", "fake": "fake", **arguments}
    return GradientPenalty(critic=lambda step, x: critic(x), **arguments)


def linear(w):
    return lambda x: tf.linalg.matvec(x, tf.constant(w))


def test_by_hand():
    # the slope of 3 a + 4 b is 5 everywhere
    values = penalty(linear([3.0, 4.0])).call(step_of())
    np.testing.assert_allclose(values, [16.0] * 6, rtol=1e-6)
    values = penalty(linear([3.0, 4.0]), target=7.0).call(step_of())
    np.testing.assert_allclose(values, [4.0] * 6, rtol=1e-6)


def test_one_sided_leaves_gentle_slopes_alone():
    gentle, steep = linear([0.3, 0.4]), linear([3.0, 4.0])
    np.testing.assert_allclose(penalty(gentle).call(step_of()), [0.25] * 6, rtol=1e-6)
    np.testing.assert_array_equal(penalty(gentle, one_sided=True).call(step_of()), [0.0] * 6)
    np.testing.assert_allclose(penalty(steep, one_sided=True).call(step_of()), [16.0] * 6)


def test_the_slope_is_taken_between_real_and_fake():
    seen = []

    def critic(x):
        seen.append(x)
        return tf.reduce_sum(tf.square(x), axis=-1)  # its slope is 2 x

    values = penalty(critic).call(step_of())
    between = np.asarray(seen[0], "float64")
    expected = (2 * np.linalg.norm(between, axis=1) - 1) ** 2
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    share = (between - FAKE) / (REAL - FAKE)
    np.testing.assert_allclose(share[:, 0], share[:, 1], rtol=1e-3)
    assert np.all((share > 0) & (share < 1)) and len(np.unique(share[:, 0].round(3))) == 6


def test_each_example_has_its_own_place_at_each_step():
    def critic(x):
        return tf.reduce_sum(tf.square(x), axis=-1)

    values = penalty(critic).call(step_of()).numpy()
    np.testing.assert_array_equal(
        penalty(critic).call(step_of(REAL[::-1], FAKE[::-1])), values[::-1]
    )
    assert np.all(penalty(critic).call(step_of(step=1)) != values)
    assert np.all(penalty(critic, seed=1).call(step_of()) != values)


def test_the_slope_is_joint_over_all_features_and_scores():
    # scores (a, b) of 2 x 1 images: the slope of their sum is (1, 1)
    images = REAL[:, :, None]
    term = penalty(lambda x: x[:, :, 0], target=0.0)
    np.testing.assert_allclose(term.call(step_of(images, FAKE[:, :, None])), [2.0] * 6, rtol=1e-6)


def test_the_gradient_is_that_of_finite_differences():
    w = tf.constant([[0.3, -0.5, 1.2], [0.8, 0.1, -0.4]])

    def mean(w):
        term = penalty(lambda x: tf.reduce_sum(tf.tanh(x @ w), -1))
        return tf.reduce_mean(term.call(step_of()))

    (found,), (expected,) = tf.test.compute_gradient(mean, [w], delta=1e-2)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert np.max(np.abs(found)) > 0.05


def test_a_slope_of_zero_has_no_gradient():
    w = tf.zeros([2])
    with tf.GradientTape() as tape:
        tape.watch(w)
        values = penalty(lambda x: tf.linalg.matvec(x, w)).call(step_of())
    np.testing.assert_array_equal(values, [1.0] * 6)
    np.testing.assert_array_equal(tape.gradient(values, w), [0.0, 0.0])


def test_nothing_flows_to_the_generator():
    step = step_of()
    with tf.GradientTape() as tape:
        tape.watch(step.y_pred["fake"])
        values = penalty(lambda x: tf.reduce_sum(x**2, -1)).call(step)
    assert tape.gradient(values, step.y_pred["fake"]) is None


class GAN(keras.Model):
    """A generator and a critic in one model; x holds real points and the generator's noise."""

    def __init__(self):
        super().__init__(name="gan")

        def init(seed):
            return keras.initializers.GlorotUniform(seed=seed)

        dense = keras.layers.Dense
        self.generator = keras.Sequential(
            [keras.Input((2,)), dense(2, kernel_initializer=init(1), name="g")], name="generator"
        )
        self.critic = keras.Sequential(
            [
                keras.Input((2,)),
                dense(8, "tanh", kernel_initializer=init(2), name="c"),
                keras.layers.BatchNormalization(name="norm"),
                dense(1, kernel_initializer=init(3), name="score"),
            ],
            name="critic",
        )

    def call(self, x, training=None):
        fake = self.generator(x["noise"])
        return {
            "fake": fake,
            "on_real": self.critic(x["real"], training=training),
            "on_fake": self.critic(fake, training=training),
        }


def data(n=26):
    rng = np.random.default_rng(1)
    return {
        "real": 3.0 + rng.normal(size=(n, 2)).astype("float32"),
        "noise": rng.normal(size=(n, 2)).astype("float32"),
    }


def terms(**arguments):
    return [
        losses.term(lambda s: (s.y_pred["on_fake"] - s.y_pred["on_real"])[:, 0], name="apart"),
        GradientPenalty(
            critic="critic", real="real", fake="fake", weight=10.0, trains="critic", **arguments
        ),
    ]


def train(strategy, steps=20, normalized=True, **arguments):
    def build():
        model = GAN()
        if not normalized:
            model.critic.get_layer("norm").trainable = False
            model.critic = keras.Sequential(
                [keras.Input((2,)), *(one for one in model.critic.layers if one.name != "norm")],
                name="critic",
            )
        return model

    trainer = Trainer(
        build,
        optimizer={"critic": keras.optimizers.SGD(0.02), "generator": keras.optimizers.SGD(0.001)},
        groups={"critic": "critic/*", "generator": "generator/*"},
        terms=terms(),
        strategy=strategy,
        **arguments,
    )
    batches = tf.data.Dataset.from_tensor_slices(data()).batch(5)
    rows = trainer.fit(batches, steps=steps, log_every=1, verbose=False).rows
    return trainer, rows


def test_a_critic_of_the_model_learns_the_slope():
    _, rows = train("one_device", 150, normalized=False)
    assert rows[-1]["raw/gradient_penalty"] < 0.3 * rows[0]["raw/gradient_penalty"]
    assert rows[0]["weight/gradient_penalty"] == 10.0


def test_it_leaves_moving_statistics_alone():
    model = GAN()
    step = Step(x={k: v[:4] for k, v in data().items()}, model=model, step=0, training=True)
    step.y_pred = model(step.x, training=True)
    before = [v.numpy() for v in model.non_trainable_variables]
    assert np.all(terms()[1].call(step) >= 0)
    for mine, theirs in zip(model.non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_two_replicas_give_the_ledger_and_weights_of_one(two_replicas):
    def run(strategy):
        trainer, rows = train(strategy, normalized=False)
        return rows, {v.path: np.asarray(v.value.read_value()) for v in trainer.model.weights}

    (rows, weights), (other_rows, other_weights) = run("one_device"), run(two_replicas)
    for mine, theirs in zip(other_rows, rows, strict=True):
        for key in ("total", "raw/apart", "raw/gradient_penalty"):
            assert mine[key] == pytest.approx(theirs[key], rel=1e-6, abs=1e-6), key
    for path, one in weights.items():
        np.testing.assert_allclose(other_weights[path], one, rtol=5e-6, atol=5e-6)


def test_it_trains_under_the_compiler():
    row, compiled = train("one_device", 4)[1][-1], train("one_device", 4, jit_compile=True)[1][-1]
    assert compiled["raw/gradient_penalty"] == pytest.approx(row["raw/gradient_penalty"], rel=1e-4)


def test_it_is_saved_by_its_arguments():
    term = GradientPenalty(
        2.0, True, critic="critic", real="real", fake="fake", seed=3, weight=10.0, trains="critic"
    )
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(term))
    assert isinstance(again, GradientPenalty)
    assert again.get_config() == term.get_config()


def test_a_name_that_nothing_has_is_an_error():
    with pytest.raises(ValueError, match=r"reads 'fakes'; .*Did you mean 'fake'"):
        penalty(linear([1.0, 1.0]), fake="fakes").call(step_of())
    term = GradientPenalty(critic="critics", real="image", fake="fake")
    with pytest.raises(
        ValueError, match=r"reads 'critics'; the layers are .*Did you mean 'critic'"
    ):
        term.call(step_of(model=GAN()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": -1.0}, r"target=-1.0\): give a finite number of at least 0"),
        ({"real": 3}, r"real=3\): give a name, or a function of the step"),
        ({"critic": None}, r"critic=None\): give a name, or a function \(step, x\)"),
    ],
)
def test_an_argument_outside_its_range_is_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        GradientPenalty(**{"critic": "c", "real": "r", "fake": "f", **arguments})


def test_two_shapes_and_integers_are_errors():
    with pytest.raises(ValueError, match=r"shape \(6, 2\) to generated ones of shape \(6, 3\)"):
        penalty(linear([1.0, 1.0])).call(step_of(fake=np.zeros((6, 3), "float32")))
    with pytest.raises(ValueError, match="floating examples, received int32"):
        penalty(linear([1.0, 1.0])).call(step_of(np.zeros((6, 2), "int32")))
