"""Barron's robust loss: the limits of its shape, its normalizer, and noise of known shape."""

from itertools import pairwise

import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate

from losses import AdaptiveRobust, GeneralRobust
from losses.catalog.robust import log_partition, rho

pytestmark = pytest.mark.one_in(2)

SHAPES = [-np.inf, -1e6, -50, -2, -1e-3, -1e-7, 0, 1e-7, 1e-3, 0.5, 1, 1.5, 1.999, 1.9999999]
SHAPES += [2, 2.0000002, 2.001, 3, 4, 10, 1e6, np.inf]


def reference(squared, alpha):
    """rho from the paper's formula, in extended precision."""
    s = np.asarray(squared, np.longdouble)
    alpha = np.longdouble(np.float32(alpha))
    if alpha == 2:
        return s / 2
    if alpha == 0:
        return np.log1p(s / 2)
    if np.isinf(alpha):
        return np.expm1(s / 2) if alpha > 0 else -np.expm1(-s / 2)
    b = abs(alpha - 2)
    return b / alpha * np.expm1(alpha / 2 * np.log1p(s / b))


def reference_slope(squared, alpha):
    """d rho / d s."""
    s, alpha = np.asarray(squared, np.longdouble), np.longdouble(np.float32(alpha))
    if alpha == 2:
        return np.full(s.shape, 0.5)
    if np.isinf(alpha):
        return np.exp(s / 2) / 2 if alpha > 0 else np.exp(-s / 2) / 2
    return 0.5 * np.exp((alpha / 2 - 1) * np.log1p(s / abs(alpha - 2)))


def test_by_hand():
    # s = 9: alpha 2: 4.5; 1: sqrt(10) - 1; 0: log(5.5); -2: 2 * 9 / (9 + 4); -inf: 1 - e^-4.5
    by_hand = {2: 4.5, 1: np.sqrt(10) - 1, 0: np.log(5.5), -2: 18 / 13, -np.inf: 1 - np.exp(-4.5)}
    for alpha, expected in by_hand.items():
        value = GeneralRobust(alpha, scale=2.0)([[0.0]], [[6.0]])
        np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("alpha", SHAPES)
def test_every_shape_is_right_to_the_last_digits_of_float32(alpha, jit_compile):
    squared = np.concatenate([[0.0], np.logspace(-10, 8 if alpha <= 2 else 1.5, 50)])
    squared = squared.astype("float32")

    def value_and_gradients(squared, shape):
        with tf.GradientTape() as tape:
            tape.watch([squared, shape])
            value = rho(squared, shape)
        return value, *tape.gradient(value, [squared, shape])

    shape = tf.fill(squared.shape, np.float32(alpha))
    value, slope, shape_slope = tf.function(value_and_gradients, jit_compile=jit_compile)(
        tf.constant(squared), shape
    )
    np.testing.assert_allclose(value, reference(squared, alpha).astype(float), rtol=5e-6)
    expected = reference_slope(squared, alpha).astype(float)
    np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-30)
    assert np.all(np.isfinite(shape_slope))


def test_a_shape_near_a_limit_is_near_the_limit():
    squared = tf.constant(np.logspace(-6, 1, 30), tf.float32)
    for limit, near in ((0, 1e-6), (0, -1e-6), (2, 1.999999), (2, 2.000001), (-np.inf, -1e7)):
        np.testing.assert_allclose(rho(squared, near), rho(squared, limit), rtol=3e-5)


@pytest.mark.parametrize("alpha", [-1.5, 0.0, 1e-4, 0.3, 1.0, 1.9, 2.1, 3.0])
def test_the_gradient_in_the_shape_is_that_of_central_differences(alpha):
    squared = tf.constant([1e-3, 0.5, 3.0, 40.0], tf.float64)
    shape = tf.fill([4], tf.constant(alpha, tf.float64))
    with tf.GradientTape() as tape:
        tape.watch(shape)
        value = rho(squared, shape)
    numeric = (rho(squared, alpha + 1e-5) - rho(squared, alpha - 1e-5)) / 2e-5
    np.testing.assert_allclose(tape.gradient(value, shape), numeric, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("alpha", [-np.inf, -2, 0, 1, 2, 4, np.inf])
def test_a_gross_outlier_stays_finite(alpha):
    y_pred = tf.constant([[0.0, 30.0, -1e4, 1e9]])
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        value = GeneralRobust(alpha, 1.0)(tf.zeros([1, 4]), y_pred)
    assert np.isfinite(value) and np.all(np.isfinite(tape.gradient(value, y_pred)))


@pytest.mark.parametrize("factor", [1e-3, 5.0])
def test_scale_law(factor):
    y_true, y_pred = np.random.default_rng(0).normal(size=(2, 4, 3))
    value = GeneralRobust(0.5, 0.7)(y_true, y_pred)
    scaled = GeneralRobust(0.5, 0.7 * factor)(factor * y_true, factor * y_pred)
    np.testing.assert_allclose(scaled, value, rtol=1e-5)


def quadrature(alpha):
    """log of the integral of exp(-rho), by scipy, in x = sinh(y)."""

    def integrand(y):
        return np.cosh(y) * np.exp(-float(reference(np.sinh(y) ** 2, alpha)))

    ends = [0, 1e-3, 0.1, 1, 3, 10, 45]
    parts = [
        integrate.quad(integrand, low, high, epsabs=1e-14, epsrel=1e-12, limit=200)[0]
        for low, high in pairwise(ends)
    ]
    return np.log(2 * sum(parts))


ALPHAS = np.float32([0, 1e-7, 1e-3, 0.01, 0.1, 0.5, 1, 1.5, 1.9, 1.99, 1.999, 1.999999])
ALPHAS = np.concatenate([ALPHAS, np.float32([2, 2.000001, 2.001, 2.1, 2.5, 3, 3.5, 3.999, 4])])


def test_the_partition_function_is_that_of_quadrature():
    expected = np.array([quadrature(alpha) for alpha in ALPHAS])
    wide = log_partition(tf.constant(ALPHAS, tf.float64))
    np.testing.assert_allclose(wide, expected, rtol=0, atol=5e-9)
    for jit_compile in (False, True):
        narrow = tf.function(log_partition, jit_compile=jit_compile)(tf.constant(ALPHAS))
        np.testing.assert_allclose(narrow, expected, rtol=0, atol=2e-7)


def test_the_partition_function_in_closed_form():
    # 0: Cauchy of width sqrt(2); 1: pseudo-Huber, 2 e K_1(1); 2: normal
    expected = np.log([np.pi * np.sqrt(2), 2 * np.e * 0.6019072301972346, np.sqrt(2 * np.pi)])
    found = log_partition(tf.constant([0.0, 1.0, 2.0], tf.float64))
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-9)


def test_the_gradient_of_the_partition_function_is_smooth():
    alpha = tf.constant([1e-3, 0.2, 0.7, 1.3, 1.9, 1.99, 2.01, 2.2, 3.0, 3.9], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(alpha)
        value = log_partition(alpha)
    gradient = tape.gradient(value, alpha)
    numeric = (log_partition(alpha + 1e-6) - log_partition(alpha - 1e-6)) / 2e-6
    np.testing.assert_allclose(gradient, numeric, rtol=1e-6)
    narrow = tf.constant([*alpha.numpy(), 0.0, 2.0, 4.0], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(narrow)
        value = log_partition(narrow)
    slope = tape.gradient(value, narrow)
    np.testing.assert_allclose(slope[: len(alpha)], gradient, rtol=1e-5)
    assert np.all(np.isfinite(slope))


def test_adaptive_is_the_negative_log_likelihood():
    rng = np.random.default_rng(1)
    y_true, y_pred = rng.normal(size=(2, 4, 2))
    loss = AdaptiveRobust(2, alpha_range=(0.0, 3.0), alpha_init=1.2, scale_init=0.6)
    each = reference((y_true - y_pred) ** 2 / 0.6**2, 1.2) + np.log(0.6) + quadrature(1.2)
    np.testing.assert_allclose(loss.call(y_true, y_pred), each.mean(-1).astype(float), rtol=1e-5)


def test_each_channel_has_its_own_shape_and_scale():
    loss = AdaptiveRobust(2, alpha_range=(0.0, 3.0))
    loss.alpha_logit.assign([-1.0, 1.0])
    loss.log_scale.assign([0.5, -0.5])
    y_true, y_pred = np.zeros((1, 2)), np.array([[1.0, 2.0]])
    alpha = 3 / (1 + np.exp([1.0, -1.0]))
    scale = 1e-5 + (1 - 1e-5) * np.exp([0.5, -0.5])
    np.testing.assert_allclose(loss.alpha, alpha, rtol=1e-6)
    np.testing.assert_allclose(loss.scale, scale, rtol=1e-6)
    each = [
        float(reference((x / c) ** 2, a)) + np.log(c) + quadrature(a)
        for x, a, c in zip(y_pred[0], alpha, scale, strict=True)
    ]
    np.testing.assert_allclose(loss.call(y_true, y_pred), [np.mean(each)], rtol=1e-5)


def test_it_starts_where_it_is_told_and_fixes_what_has_no_room():
    loss = AdaptiveRobust(3, alpha_range=(0.5, 1.5), alpha_init=0.7, scale_init=0.3)
    np.testing.assert_allclose(loss.alpha, [0.7] * 3, rtol=1e-6)
    assert np.all(loss.scale.numpy() == np.float32(0.3))
    np.testing.assert_allclose(AdaptiveRobust(1).alpha, [1.0], rtol=1e-6)
    fixed = AdaptiveRobust(1, alpha_range=(1.0, 1.0), scale_lo=0.5, scale_init=0.5)
    assert not [v for v in vars(fixed).values() if isinstance(v, tf.Variable)]
    assert not hasattr(fixed, "alpha_logit") and not hasattr(fixed, "log_scale")
    assert np.isfinite(fixed([[0.0]], [[1.0]]))


def draw(alpha, scale, size, rng):
    """From the density exp(-rho) / Z, by the inverse of its distribution on a fine grid."""
    y = np.linspace(-14, 14, 200001)
    x = np.sinh(y)
    mass = np.cosh(y) * np.exp(-reference(x**2, alpha).astype(float))
    distribution = np.cumsum(mass) / mass.sum()
    return (scale * np.interp(rng.uniform(size=size), distribution, x)).astype("float32")


def test_adaptive_recovers_the_shape_and_scale_of_the_noise():
    rng = np.random.default_rng(3)
    true = {"alpha": [0.8, 1.6], "scale": [0.5, 2.0]}
    noise = np.stack([draw(a, c, 20000, rng) for a, c in zip(*true.values(), strict=True)], axis=-1)
    loss = AdaptiveRobust(2)
    parameters = [loss.alpha_logit.value, loss.log_scale.value]
    momentum, average = ([tf.Variable(tf.zeros_like(p)) for p in parameters] for _ in "mv")

    @tf.function(jit_compile=True)
    def gradients():
        with tf.GradientTape() as tape:
            value = loss(noise, tf.zeros_like(noise))
        return tape.gradient(value, parameters)

    for step in range(1, 401):  # Adam, by hand
        for p, g, m, v in zip(parameters, gradients(), momentum, average, strict=True):
            m.assign(0.9 * m + 0.1 * g)
            v.assign(0.99 * v + 0.01 * g**2)
            p.assign_sub(0.05 * m / (1 - 0.9**step) / (tf.sqrt(v / (1 - 0.99**step)) + 1e-8))
    np.testing.assert_allclose(loss.alpha, true["alpha"], atol=0.06)
    np.testing.assert_allclose(loss.scale, true["scale"], rtol=0.03)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GeneralRobust(float("nan"), 1.0), "alpha=nan.*inf"),
        (lambda: GeneralRobust(1.0, 0.0), "scale=0.0.*> 0"),
        (lambda: AdaptiveRobust(0), "num_channels=0.*> 0"),
        (lambda: AdaptiveRobust(1, alpha_range=(-1, 2)), r"alpha_range=\(-1, 2\).*0 <= lo"),
        (lambda: AdaptiveRobust(1, alpha_range=(1, 5)), "hi <= 4"),
        (lambda: AdaptiveRobust(1, alpha_init=1.999), "alpha_init=1.999.*between"),
        (lambda: AdaptiveRobust(1, scale_init=0.0), "scale_init=0.0.*scale_lo <= scale_init"),
        (lambda: AdaptiveRobust(2)(np.ones((4, 3)), np.ones((4, 3))), "Give num_channels=3"),
    ],
)
def test_errors_say_what_is_accepted(make, message):
    with pytest.raises(ValueError, match=message):
        make()
