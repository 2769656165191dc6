"""The methods by themselves, on functions whose minimum is known, and against SciPy."""

import itertools

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from losses.errors import TermwiseError
from trainer import BFGS, LBFGS, GaussNewton
from trainer.second_order.line_search import Wolfe, search
from trainer.second_order.method import Function, LeastSquares, Point

pytestmark = pytest.mark.one_in(4)

DESCENTS = {
    "lbfgs": LBFGS(),
    "lbfgs of 3 pairs": LBFGS(pairs=3),
    "broyden": BFGS(),
    "self-scaled": BFGS(update="self_scaled_bfgs"),
    "bfgs": BFGS(update="bfgs"),
}
METHODS = {**DESCENTS, "gauss-newton": GaussNewton()}


def rosenbrock(x):
    """The residuals of the chained Rosenbrock function, whose minimum 0 is at ones."""
    return tf.concat([10 * (x[1:] - x[:-1] ** 2), 1 - x[:-1]], 0)


def function_of(residuals):
    def at(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(tf.square(residuals(x)))
        return Point(x, value, tape.gradient(value, x))

    def squares(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            r = residuals(x)
        return LeastSquares(r, tape.jacobian(r, x))

    return Function(at, squares)


def minimise(method, residuals, start, iterations):
    """The points that a method goes through, and the passes over the data that it takes."""
    function = function_of(residuals)
    step = tf.function(lambda m, p: method.iterate(m, p, function), autograph=False)
    point, passes = function.at(tf.constant(start)), 0.0
    memory, points = method.start(len(start), tf.float64), []
    for _ in range(iterations):
        point, memory = step(memory, point)
        points.append(point)
        passes += float(memory["evaluations"])
        if memory["stalled"]:
            break
    return points, passes, memory


START = np.array([-1.2, 1.0] * 3)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_finds_the_minimum_of_rosenbrocks_function(name):
    points, _, _ = minimise(METHODS[name], rosenbrock, START, 150)
    assert float(points[-1].value) < 1e-20
    np.testing.assert_allclose(points[-1].theta, np.ones(6), rtol=1e-9)
    values = [float(point.value) for point in points]
    assert all(after <= before for before, after in itertools.pairwise(values))


@pytest.mark.parametrize("name", DESCENTS)
def test_as_many_passes_lead_as_far_as_scipys(name):
    def value_and_gradient(x):
        point = function_of(rosenbrock).at(tf.constant(x))
        return float(point.value), point.gradient.numpy()

    found = scipy.optimize.minimize(
        value_and_gradient, START, jac=True, method="BFGS", options={"gtol": 1e-9}
    )
    points, _, _ = minimise(DESCENTS[name], rosenbrock, START, 150)
    enough = next(k for k, point in enumerate(points, 1) if float(point.value) < 1e-16)
    assert found.fun < 1e-16 and enough <= 2 * found.nit


@pytest.mark.parametrize("shape", [(20, 4), (3, 8)])
def test_gauss_newton_solves_linear_least_squares_in_one_step(shape):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=shape), rng.normal(size=shape[0])
    method = GaussNewton(damping=1e-12)
    points, _, _ = minimise(method, lambda x: tf.linalg.matvec(a, x) - b, np.zeros(shape[1]), 1)
    expected = np.linalg.lstsq(a, b, rcond=None)[0]  # of least norm where there are several
    np.testing.assert_allclose(points[0].theta, expected, atol=1e-9)


def test_the_damping_falls_where_the_model_holds_and_rises_where_a_step_fails():
    _, _, memory = minimise(GaussNewton(damping=1e-2), lambda x: x - 1.0, np.zeros(3), 1)
    np.testing.assert_allclose(memory["damping"], 1e-2 / 3)
    # x^2 + 1 -> the step from 0.01 of the undamped model goes far beyond the start
    points, passes, memory = minimise(
        GaussNewton(damping=1e-6, tries=20), lambda x: x**2 + 1.0, np.array([0.01]), 1
    )
    assert passes > 1 and float(memory["damping"]) > 1e-6
    assert abs(float(points[0].theta[0])) < 0.01


@pytest.mark.parametrize("update", ["self_scaled_broyden", "self_scaled_bfgs", "bfgs"])
def test_the_inverse_hessian_maps_the_last_change_to_the_last_step(update):
    function, method = function_of(rosenbrock), BFGS(update=update)
    points, _, memory = minimise(method, rosenbrock, START, 12)
    before, after = points[-2], function.at(points[-1].theta)
    change, step = after.gradient - before.gradient, after.theta - before.theta
    np.testing.assert_allclose(
        tf.linalg.matvec(memory["inverse"], change), step, rtol=1e-6, atol=1e-12
    )
    assert np.all(np.linalg.eigvalsh(memory["inverse"]) > 0)


def test_with_all_pairs_the_limited_memory_is_that_of_bfgs_by_hand():
    """Two updates of the dense formula, begun with the scaled identity of the last pair."""
    method = LBFGS(pairs=2)
    points, _, memory = minimise(method, rosenbrock, START, 4)
    steps, changes = memory["steps"].numpy(), memory["changes"].numpy()
    inverse = np.eye(6) * (steps[-1] @ changes[-1]) / (changes[-1] @ changes[-1])
    for s, y in zip(steps, changes, strict=True):
        left = np.eye(6) - np.outer(s, y) / (s @ y)
        inverse = left @ inverse @ left.T + np.outer(s, s) / (s @ y)
    gradient = points[-1].gradient
    expected = inverse @ gradient.numpy()
    np.testing.assert_allclose(method.preconditioned(memory, gradient), expected, rtol=1e-10)


@pytest.mark.parametrize("first", [1e-6, 1.0, 1e4])
def test_a_search_ends_where_the_strong_wolfe_conditions_hold(first):
    at = function_of(rosenbrock).at
    start = at(tf.constant(START))
    direction, wolfe = -start.gradient, Wolfe(1e-4, 0.1, 60)
    found = search(at, start, direction, tf.constant(first, tf.float64), wolfe)
    slope = float(tf.tensordot(start.gradient, direction, 1))
    after = float(tf.tensordot(found.point.gradient, direction, 1))
    length = float(found.length)
    assert float(found.point.value) <= float(start.value) + 1e-4 * length * slope
    assert abs(after) <= 0.1 * abs(slope)
    np.testing.assert_allclose(found.point.theta, start.theta + length * direction, rtol=1e-14)


def test_a_search_comes_back_from_where_there_is_no_value():
    def at(x):  # log(x) - x has no value below 0
        return Point(x, tf.reduce_sum(x - tf.math.log(x)), 1 - 1 / x)

    start = at(tf.constant([4.0], tf.float64))
    found = search(at, start, -start.gradient, tf.constant(1e3, tf.float64), Wolfe(1e-4, 0.5, 40))
    assert 0 < float(found.point.theta[0]) < 4 and float(found.point.value) < float(start.value)


def test_where_nothing_lowers_the_total_a_method_stands_still_and_says_so():
    points, _, memory = minimise(LBFGS(), lambda x: x * 0.0 + 1.0, np.ones(2), 3)
    np.testing.assert_array_equal(points[-1].theta, np.ones(2))
    assert bool(memory["stalled"]) and float(memory["step_length"]) == 0.0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LBFGS(pairs=0), r"LBFGS\(pairs=0\): give a whole number of at least 1"),
        (lambda: BFGS(update="dfp"), r"BFGS\(update='dfp'\): accepted are 'self_scaled_broyden'"),
        (lambda: BFGS(slope=1.5), r"BFGS\(slope=1.5\): give a number above 0.0001 and below 1"),
        (lambda: GaussNewton(damping=0), r"GaussNewton\(damping=0\): give a number above 0"),
    ],
    ids=["pairs", "update", "slope", "damping"],
)
def test_what_cannot_be_a_method_is_said(make, said):
    with pytest.raises(TermwiseError, match=said):
        make()
