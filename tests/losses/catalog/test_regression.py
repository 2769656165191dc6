"""Pinball and Charbonnier losses: by hand, by formula, and at zero residual."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from losses import Charbonnier, Quantile

RNG = np.random.default_rng(0)
Y_TRUE, Y_PRED = RNG.normal(size=(5, 3)), RNG.normal(size=(5, 3))


def pinball(residual, tau):
    return np.where(residual > 0, tau * residual, (tau - 1) * residual)


def test_pinball_by_hand():
    # above by 2: 0.9 * 2; below by 2: 0.1 * 2
    np.testing.assert_allclose(
        Quantile(0.9).call([[2.0], [-2.0]], [[0.0], [0.0]]), [1.8, 0.2], rtol=1e-6
    )


def test_pinball_of_one_quantile_is_a_mean_over_outputs():
    expected = pinball(Y_TRUE - Y_PRED, 0.3).mean(-1)
    np.testing.assert_allclose(Quantile(0.3).call(Y_TRUE, Y_PRED), expected, rtol=1e-5)


def test_half_the_absolute_error_is_the_median():
    expected = np.abs(Y_TRUE - Y_PRED).mean(-1) / 2
    np.testing.assert_allclose(Quantile(0.5).call(Y_TRUE, Y_PRED), expected, rtol=1e-5)


@pytest.mark.parametrize("label", [Y_TRUE[:, 0], Y_TRUE[:, :1], np.repeat(Y_TRUE[:, :1], 3, 1)])
def test_several_quantiles_have_one_prediction_each(label):
    tau = [0.1, 0.5, 0.9]
    expected = pinball(Y_TRUE[:, :1] - Y_PRED, np.array(tau)).mean(-1)
    np.testing.assert_allclose(Quantile(tau).call(label, Y_PRED), expected, rtol=1e-5)


def test_several_quantiles_of_several_outputs():
    y_pred = RNG.normal(size=(5, 3, 2))
    expected = pinball(Y_TRUE[..., None] - y_pred, np.array([0.2, 0.7])).mean(-1)
    np.testing.assert_allclose(Quantile([0.2, 0.7]).call(Y_TRUE, y_pred), expected, rtol=1e-5)


def test_its_minimizer_is_the_quantile():
    labels = RNG.exponential(size=1001)
    guesses = np.quantile(labels, [0.75, 0.8, 0.85])
    value = [float(Quantile(0.8)(labels, np.full(1001, guess))) for guess in guesses]
    assert np.argmin(value) == 1


def test_charbonnier_follows_the_formula():
    expected = np.sqrt((Y_TRUE - Y_PRED) ** 2 + 0.1**2).mean(-1)
    np.testing.assert_allclose(Charbonnier(0.1).call(Y_TRUE, Y_PRED), expected, rtol=1e-5)


def test_charbonnier_is_the_absolute_error_far_off_and_epsilon_at_zero():
    loss = Charbonnier()
    value = loss.call([[0.0], [0.0], [0.0]], [[0.0], [10.0], [1e8]])
    np.testing.assert_allclose(value, [1e-3, 10.0, 1e8], rtol=1e-6)


@pytest.mark.parametrize("factor", [1e-3, 8.0, 1e6])
def test_scale_laws(factor):
    args = (factor * Y_TRUE, factor * Y_PRED)
    np.testing.assert_allclose(
        Quantile(0.3)(*args), factor * Quantile(0.3)(Y_TRUE, Y_PRED), rtol=1e-5
    )
    np.testing.assert_allclose(
        Charbonnier(0.1 * factor)(*args), factor * Charbonnier(0.1)(Y_TRUE, Y_PRED), rtol=1e-5
    )


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("loss", [Quantile(0.3), Charbonnier(), Charbonnier(1e-30)])
def test_the_gradient_is_finite_at_zero_residual_and_far_off(loss, jit_compile):
    y_pred = tf.constant([[0.0, 1e-30, 1e6, -1e6]])

    def value_and_gradient(y_pred):
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            value = loss(tf.zeros([1, 4]), y_pred)
        return value, tape.gradient(value, y_pred)

    value, slope = tf.function(value_and_gradient, jit_compile=jit_compile)(y_pred)
    assert np.isfinite(value) and np.all(np.isfinite(slope))
    if isinstance(loss, Charbonnier):
        assert float(slope[0, 0]) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Quantile(1.0), "tau=1.0.*between 0 and 1"),
        (lambda: Quantile([0.5, 0.0]), r"tau=\[0.5, 0.0\].*list"),
        (lambda: Quantile([]), "between 0 and 1"),
        (lambda: Quantile([0.1, 0.9]).call(Y_TRUE[:, 0], Y_PRED), r"2 quantiles.*\(5, 3\)"),
        (lambda: Charbonnier(0.0), "epsilon=0.0.*> 0"),
        (lambda: Charbonnier().call(np.ones((5, 2)), Y_PRED), r"\(5, 2\).*\(5, 3\)"),
        (lambda: losses.get("quantile"), r"no default for tau.*losses.Quantile\(tau=...\)"),
    ],
)
def test_errors_say_what_is_accepted(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_quantiles_of_increments_cannot_cross():
    outputs = np.array([[1.0, -20.0, 2.0], [-3.0, 0.0, -1.0]], "float32")
    first = outputs[:, 0]
    second = first + np.log1p(np.exp(outputs[:, 1]))
    third = second + np.log1p(np.exp(outputs[:, 2]))
    expected = np.stack([first, second, third], -1)
    np.testing.assert_allclose(losses.noncrossing(outputs), expected, rtol=1e-6)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, losses.noncrossing(inputs))
    np.testing.assert_allclose(model.predict(outputs, verbose=0), expected, rtol=1e-6)
    again = keras.Model.from_config(model.get_config())  # its operations are Keras's own
    np.testing.assert_allclose(again.predict(outputs, verbose=0), expected, rtol=1e-6)


@pytest.mark.very_slow
def test_they_end_at_the_quantiles_of_the_labels():
    labels = np.arange(101.0, dtype="float32")[:, None] / 100
    inputs = keras.Input((1,))
    outputs = losses.noncrossing(keras.layers.Dense(3, kernel_initializer="zeros")(inputs))
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.SGD(1.0), losses.Quantile([0.25, 0.5, 0.75]))
    model.fit(np.zeros_like(labels), labels, batch_size=101, epochs=300, verbose=0)
    np.testing.assert_allclose(model(np.zeros((1, 1))), [[0.25, 0.5, 0.75]], atol=0.03)
