"""Gaussian and Student-t likelihoods: against PyTorch, scipy, and noise of known parameters."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import special, stats

from losses import GaussianNLL, SparseCrossentropy, StudentTNLL
from losses.catalog.likelihood import log_gamma_step


def test_gaussian_by_hand():
    # e = 2, v = e^1: (1 + 4 / e) / 2
    value = GaussianNLL()([3.0], [[1.0, 1.0]])
    np.testing.assert_allclose(value, (1 + 4 / np.e) / 2, rtol=1e-6)


def test_gaussian_is_that_of_pytorch():
    # torch 2.13.0, float64: GaussianNLLLoss(full=..., reduction="none")(mean, y, exp(log_variance))
    y_true = np.array([1.0, 3.0, -2.0])
    y_pred = np.array([[0.0, 0.0], [1.0, 1.0], [-2.0, -1.0]])
    expected = [0.5, 1.2357588823428847, -0.5]
    np.testing.assert_allclose(GaussianNLL().call(y_true, y_pred), expected, rtol=1e-6)
    expected = [1.4189385332046727, 2.1546974155475573, 0.41893853320467267]
    np.testing.assert_allclose(GaussianNLL(full=True).call(y_true, y_pred), expected, rtol=1e-6)


def test_gaussian_full_is_the_density():
    rng = np.random.default_rng(0)
    y_true, y_pred = rng.normal(size=(4, 3)), rng.normal(size=(4, 3, 2))
    expected = -stats.norm.logpdf(y_true, y_pred[..., 0], np.exp(y_pred[..., 1] / 2))
    loss = GaussianNLL(full=True)
    np.testing.assert_allclose(loss.call(y_true, y_pred), expected.mean(-1), rtol=1e-5)
    np.testing.assert_allclose(loss.call(y_true[..., None], y_pred), expected.mean(-1), rtol=1e-5)
    np.testing.assert_allclose(loss.call(y_true[:, 0], y_pred[:, 0]), expected[:, 0], rtol=1e-5)
    np.testing.assert_allclose(loss.call(y_true[:, :1], y_pred[:, 0]), expected[:, 0], rtol=1e-5)
    np.testing.assert_allclose(loss.call(y_true[:, :1], y_pred[:, :1]), expected[:, 0], rtol=1e-5)


def test_gaussian_scale_law():
    # y and mean times f, v times f^2: + log f
    rng = np.random.default_rng(1)
    y_true, mean, log_variance = rng.normal(size=(3, 5))
    y_pred = np.stack([mean, log_variance], -1)
    scaled = np.stack([7 * mean, log_variance + 2 * np.log(7)], -1)
    loss = GaussianNLL()
    np.testing.assert_allclose(
        loss(7 * y_true, scaled), loss(y_true, y_pred) + np.log(7), rtol=1e-5
    )


@pytest.mark.parametrize("jit_compile", [False, True])
def test_gaussian_is_finite_at_the_hard_points(jit_compile):
    y_pred = tf.constant([[0.0, s] for s in (-1e4, -200, -30, 30, 200, 1e4)])

    def value_and_gradient(y_pred):
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            value = GaussianNLL().call([0.0, 1, 1, 1, 1, 0], y_pred)
        return value, tape.gradient(value, y_pred)

    for tensor in tf.function(value_and_gradient, jit_compile=jit_compile)(y_pred):
        assert np.all(np.isfinite(tensor))


def test_student_is_that_of_pytorch():
    # torch 2.13.0, float64: -torch.distributions.StudentT(df, 0, scale).log_prob(e)
    errors = np.array([[-3.0], [0.0], [0.5], [100.0]])
    for df, scale, expected in (
        (3, 2, [2.8132676060543007, 1.6940360301834552, 1.7352746045889265, 15.147302035710783]),
        (
            500,
            0.5,
            [17.642570045788233, 0.22629135231136388, 0.7267910193109645, 1101.0358045977573],
        ),
    ):
        value = StudentTNLL(df, scale).call(errors, np.zeros((4, 1)))
        np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("df", [1e-2, 1.0, 3.0, 30.0, 1e4, 1e8])
def test_student_is_the_density_at_every_df(df):
    errors = np.array([[0.0], [1e-3], [1.0], [-50.0]])
    value = StudentTNLL(df, 0.7).call(errors, np.zeros((4, 1)))
    expected = -stats.t.logpdf(errors[:, 0], df, scale=0.7)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


def test_student_with_many_degrees_of_freedom_is_normal():
    value = StudentTNLL(1e12).call([[1.5]], [[0.0]])
    np.testing.assert_allclose(value, [-stats.norm.logpdf(1.5)], rtol=1e-6)


def test_the_step_of_log_gamma_is_exact_and_so_is_its_slope():
    x = np.logspace(-6, 6, 200)
    with np.errstate(all="ignore"):
        expected = special.gammaln(x + 0.5) - special.gammaln(x)
        slope = special.digamma(x + 0.5) - special.digamma(x)
    wide = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(wide)
        value = log_gamma_step(wide)
    small = x < 1e3  # further, scipy's two terms cancel
    np.testing.assert_allclose(value[small], expected[small], rtol=2e-10, atol=2e-10)
    np.testing.assert_allclose(tape.gradient(value, wide)[small], slope[small], rtol=1e-8)
    np.testing.assert_allclose(value[-1], 0.5 * np.log(x[-1]), rtol=1e-7)
    np.testing.assert_allclose(log_gamma_step(tf.constant(x, tf.float32)), value, atol=2e-6)


def test_student_starts_exactly_where_it_is_told():
    for start in (3.0, 0.1, 1.7, 1e-4, 123.4):
        loss = StudentTNLL(df=start, scale=start, trainable=True)
        assert float(loss.df) == float(loss.scale) == np.float32(start)
        assert loss.get_config()["df"] == loss.get_config()["scale"] == start
        assert {v.name for v in (loss.log_df, loss.log_scale)} == {"log_df", "log_scale"}
    assert not [v for v in vars(StudentTNLL()).values() if isinstance(v, tf.Variable)]


def test_student_recovers_the_noise_it_is_given():
    rng = np.random.default_rng(2)
    noise = stats.t.rvs(4.0, scale=0.5, size=20000, random_state=rng).astype("float32")[:, None]
    df, _, scale = stats.t.fit(noise, floc=0)  # what these 20000 draws say
    loss = StudentTNLL(df=20.0, scale=3.0, trainable=True)
    parameters = [loss.log_df.value, loss.log_scale.value]

    @tf.function(jit_compile=True)
    def step():
        # Newton's iteration with the Hessian by nested tapes
        with tf.GradientTape(persistent=True) as outer:
            with tf.GradientTape() as inner:
                value = loss(noise, tf.zeros_like(noise))
            gradient = tf.stack(inner.gradient(value, parameters))
            ascent = [gradient[0], gradient[1]]
        hessian = tf.stack([tf.stack(outer.gradient(g, parameters)) for g in ascent])
        damped = hessian + 0.05 * tf.eye(2)
        return tf.clip_by_value(tf.linalg.solve(damped, gradient[:, None])[:, 0], -0.5, 0.5)

    for _ in range(60):
        move = step()
        for parameter, change in zip(parameters, tf.unstack(move), strict=True):
            parameter.assign_sub(change)
    np.testing.assert_allclose(loss.df, df, rtol=1e-2)
    np.testing.assert_allclose(loss.scale, scale, rtol=1e-3)
    np.testing.assert_allclose(loss.df, 4.0, rtol=0.1)
    np.testing.assert_allclose(loss.scale, 0.5, rtol=0.02)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_student_is_finite_at_the_hard_points(jit_compile):
    loss = StudentTNLL(trainable=True, scale=1e-3)
    y_pred = tf.constant([[0.0, 1e-20, 30.0, 1e6]])

    def gradients():
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            value = loss(tf.zeros([1, 4]), y_pred)
        return value, tape.gradient(value, [y_pred, loss.log_df.value, loss.log_scale.value])

    for tensor in tf.nest.flatten(tf.function(gradients, jit_compile=jit_compile)()):
        assert np.all(np.isfinite(tensor))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StudentTNLL(df=0.0), "df=0.0.*> 0"),
        (lambda: StudentTNLL(scale=float("inf")), "scale=inf.*> 0"),
        (lambda: GaussianNLL().call(np.ones(3), np.ones((3, 4))), r"axis of 2.*\(3, 4\).*tf.stack"),
        (lambda: GaussianNLL().call(np.ones(2), np.ones(2)), r"axis of 2.*\(2,\)"),
        (lambda: GaussianNLL().call(np.ones((3, 4)), np.ones((3, 5, 2))), r"\(3, 4\).*\(3, 5\)"),
    ],
)
def test_errors_say_what_is_accepted(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def log_softmax(z):
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def test_smoothed_class_ids_are_smoothed_one_hot_labels():
    rng = np.random.default_rng(0)
    labels, z = rng.integers(0, 4, (5, 2)), 3 * rng.normal(size=(5, 2, 4))
    target = 0.9 * np.eye(4)[labels] + 0.1 / 4
    expected = -np.sum(target * log_softmax(z), -1)
    loss = SparseCrossentropy(label_smoothing=0.1)
    np.testing.assert_allclose(loss.call(labels, z), expected, rtol=1e-5)
    of_keras = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    np.testing.assert_allclose(loss(labels, z), of_keras(np.eye(4)[labels], z), rtol=1e-5)
    of_probabilities = SparseCrossentropy(0.1, from_logits=False)
    np.testing.assert_allclose(
        of_probabilities.call(labels, np.exp(log_softmax(z))), expected, rtol=1e-5
    )


def test_an_ignored_class_is_left_out_of_the_mean_and_of_the_gradient():
    labels, z = np.array([0, 3, 1]), tf.Variable(np.eye(3, dtype="float32"))
    loss = SparseCrossentropy(label_smoothing=0.3, ignore_class=3)
    with tf.GradientTape() as tape:
        value = loss(labels, z)
    left = log_softmax(np.eye(3)[[0, 2]])
    target = 0.7 * np.eye(3)[[0, 1]] + 0.1
    np.testing.assert_allclose(value, -np.sum(target * left) / 2, rtol=1e-6)
    assert np.all(tape.gradient(value, z)[1] == 0)


def test_smoothing_is_in_the_configuration_and_within_its_range():
    loss = SparseCrossentropy(0.1, ignore_class=2)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config() and again.label_smoothing == 0.1
    with pytest.raises(ValueError, match=r"label_smoothing=1.5\): give a number from 0 to 1"):
        SparseCrossentropy(1.5)
