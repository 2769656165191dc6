"""Programs of more terms than all subsets are tried of, beside scipy and beside all subsets."""

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.balancing import MGDA, CAGrad, DualProjection, FairGrad, NashMTL, UPGrad
from losses.balancing.numerics.pivoting import find_subsets, solve_on
from losses.balancing.numerics.quadratic_program import solve_complementarity

LEAST = 1e-12


def unit_rows(seed, terms, width):
    rows = np.random.RandomState(seed).randn(terms, width)
    return rows / np.linalg.norm(rows, axis=1)[:, None]


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10**6), st.integers(2, 8))
def test_they_find_what_all_subsets_do(seed, terms):
    rows = unit_rows(seed, terms, 2 * terms)
    matrix = tf.constant(rows @ rows.T)
    offsets = np.random.RandomState(seed + 1).randn(terms, 3)
    expected = solve_complementarity(matrix, tf.constant(offsets), LEAST)
    members = find_subsets(matrix, tf.constant(offsets.T))
    found = tf.transpose(solve_on(members, matrix, -offsets.T))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 10**6), st.sampled_from([13, 16, 40]), st.sampled_from([1.2, 3.0]))
def test_they_find_what_scipy_does(seed, terms, wide):
    """min y.(M y) / 2 + q.y, y >= 0, is min |R y - b|^2 with M = R^T R and q = -R^T b."""
    rows = unit_rows(seed, terms, int(wide * terms))
    right = np.random.RandomState(seed + 1).randn(rows.shape[1])
    expected, _ = scipy.optimize.nnls(rows.T, right)
    offsets = tf.constant(-(rows @ right)[:, None])
    found = solve_complementarity(tf.constant(rows @ rows.T), offsets, LEAST)[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-7)


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_the_conditions_hold_for_singular_programs_too(seed, rank):
    matrix = unit_rows(seed, 16, rank)
    matrix = matrix @ matrix.T
    offsets = matrix @ np.random.RandomState(seed + 1).randn(16, 2)  # the minimum exists
    y = solve_complementarity(tf.constant(matrix), tf.constant(offsets), LEAST).numpy()
    slack, size = offsets + matrix @ y, np.abs(offsets).max()
    assert y.min() >= 0 and slack.min() >= -1e-6 * size
    assert np.abs(y * slack).max() <= 1e-6 * size * max(size, y.max())


def conflicting(terms, width, seed=0):
    """Gradients of very different lengths, of which many pull against each other."""
    random = np.random.RandomState(seed)
    return random.randn(terms, width) * 10.0 ** random.uniform(-3, 3, (terms, 1))


@pytest.mark.one_in(3)
@pytest.mark.parametrize("jit", [None, True])
@pytest.mark.parametrize("terms", [13, 32])
@pytest.mark.parametrize("kind", [UPGrad, DualProjection])
def test_projections_of_many_gradients_harm_none(kind, terms, jit):
    jacobian = conflicting(terms, 2 * terms)
    gramian = tf.constant(jacobian @ jacobian.T)
    weights = tf.function(kind().weights, jit_compile=jit)(gramian).numpy()
    direction = weights @ jacobian
    assert (jacobian @ direction / np.linalg.norm(jacobian, axis=1)).min() >= -1e-9
    assert (weights >= 1 / terms - 1e-12).all()


def test_upgrad_of_sixteen_is_the_mean_of_their_projections():
    jacobian = unit_rows(3, 16, 20)
    expected = []
    for row in jacobian:  # the projection on {d: J d >= 0} is x + J^T y, y >= 0 of least length
        y, _ = scipy.optimize.nnls(jacobian.T, -row)
        expected.append(row + jacobian.T @ y)
    found = UPGrad().weights(tf.constant(jacobian @ jacobian.T)).numpy() @ jacobian
    np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("width", "zero"), [(64, 0), (64, 2), (6, 0)])
def test_mgda_of_many_terms_is_the_shortest_point(width, zero):
    jacobian = conflicting(24, width, seed=1)
    jacobian[:zero] = 0
    weights = MGDA().weights(tf.constant(jacobian @ jacobian.T)).numpy()
    direction = weights @ jacobian
    assert weights.min() >= 0 and weights.sum() == pytest.approx(1.0)
    lengths = np.linalg.norm(jacobian, axis=1)
    if zero or width < 24:  # the point 0 is among them
        assert np.linalg.norm(direction) <= 1e-6 * lengths.max()
    else:
        assert (jacobian @ direction).min() >= direction @ direction * (1 - 1e-7)


@pytest.mark.parametrize("balancer", [NashMTL(), FairGrad()])
def test_what_tries_no_subsets_takes_as_many_terms(balancer):
    jacobian = unit_rows(5, 20, 30)
    direction = balancer.weights(tf.constant(jacobian @ jacobian.T)).numpy() @ jacobian
    assert (jacobian @ direction).min() > 0


def test_what_tries_all_subsets_says_how_many_it_takes():
    with pytest.raises(ValueError, match=r"CAGrad\(.*\) was given 13 terms.* at most 12"):
        CAGrad(0.5).weights(tf.eye(13))
