"""Norm balls: the steepest step, the projection and the random point against their definitions."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import optimize, stats

from losses.example_random import example_keys
from losses.terms.norm_ball import check_norm, project, random_point, steepest

ORDERS = {"l2": 2, "infinity": np.inf, "l1": 1}
every_norm = pytest.mark.parametrize("norm", ORDERS)


def lengths(rows, norm):
    return np.linalg.norm(np.asarray(rows, "float64"), ORDERS[norm], axis=1)


def rows(n=6, features=5):
    return np.random.default_rng(2).normal(size=(n, features)).astype("float32")


def test_the_steepest_steps_by_hand():
    g = tf.constant([[3.0, -4.0, 0.0], [2.0, -2.0, 1.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(steepest(g, "l2")[0], [0.6, -0.8, 0.0], rtol=1e-6)
    np.testing.assert_array_equal(steepest(g, "infinity")[:2], [[1, -1, 0], [1, -1, 1]])
    np.testing.assert_array_equal(steepest(g, "l1")[:2], [[0, -1, 0], [0.5, -0.5, 0]])
    for norm in ORDERS:
        np.testing.assert_array_equal(steepest(g, norm)[2], [0, 0, 0])


@every_norm
@pytest.mark.parametrize("scale", [1e-35, 1.0, 1e30])
def test_the_steepest_step_has_norm_one_at_every_scale(norm, scale):
    found = steepest(rows() * np.float32(scale), norm)
    np.testing.assert_allclose(lengths(found, norm), 1.0, rtol=1e-5)
    np.testing.assert_allclose(found, steepest(rows(), norm), rtol=1e-5)


@every_norm
def test_no_direction_of_norm_one_rises_more(norm):
    g = rows()
    best = np.sum(g * steepest(g, norm).numpy(), axis=1)
    others = np.random.default_rng(3).normal(size=(500, *g.shape))
    others /= np.linalg.norm(others, ORDERS[norm], axis=2)[..., None]
    assert np.all(np.sum(g * others, axis=2) <= best + 1e-6)


@every_norm
def test_a_projection_is_the_nearest_point_of_the_ball(norm):
    vectors, radius = rows(), 0.9
    found = project(vectors, norm, radius).numpy()
    assert np.all(lengths(found, norm) <= radius * (1 + 1e-6))
    for vector, point in zip(vectors, found, strict=True):
        nearest = optimize.minimize(
            lambda p, v=vector: np.sum((p - v) ** 2),
            np.zeros(5),
            constraints={"type": "ineq", "fun": lambda p: radius - np.linalg.norm(p, ORDERS[norm])},
        ).fun
        assert np.sum((point - vector) ** 2) <= nearest + 1e-3


@every_norm
def test_a_projection_leaves_what_is_inside(norm):
    vectors = np.concatenate([0.1 * rows(), np.zeros((1, 5), "float32")])
    np.testing.assert_array_equal(project(vectors, norm, 2.0), vectors)


@every_norm
def test_random_points_fill_the_ball_evenly(norm):
    keys = example_keys(np.arange(3000.0, dtype="float32"), 0, 0)
    points = random_point(keys, 3, norm, 2.0).numpy()
    depth = lengths(points, norm) / 2.0
    # the part of a ball within the radius r is r^3
    assert stats.kstest(depth**3, "uniform").pvalue > 1e-3
    np.testing.assert_allclose(points.mean(0), 0.0, atol=0.06)
    # all orthants and all axes alike
    assert np.std([np.mean(np.all(np.sign(points) == s, 1)) for s in np.ndindex(2, 2, 2)]) < 0.1
    spread = np.mean(points**2, axis=0)
    np.testing.assert_allclose(spread, spread.mean(), rtol=0.1)


def test_an_unknown_norm_is_an_error():
    with pytest.raises(ValueError, match="accepted are 'l2', 'infinity' and 'l1'"):
        check_norm("Attack", "linf")
