"""The quadratic programs, eigenvectors and norms and cosines under the Gramian balancers."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.balancing.numerics.eigen import eigen
from losses.balancing.numerics.gramian import split_gramian
from losses.balancing.numerics.quadratic_program import solve_all_bases, solve_complementarity

LEAST = 1e-12


def test_a_program_of_two_terms_by_hand():
    # M = [[2, 1], [1, 2]], q = (-3, 0): y = (1.5, 0) has slack 1.5 at the second.
    matrix = tf.constant([[2.0, 1.0], [1.0, 2.0]], tf.float64)
    y = solve_complementarity(matrix, tf.constant([[-3.0], [0.0]], tf.float64), LEAST)
    np.testing.assert_allclose(y[:, 0], [1.5, 0.0], atol=1e-11)


def test_every_basis_holds_the_solution_on_its_subset_and_the_slack_off_it():
    matrix = tf.constant([[2.0, 1.0], [1.0, 2.0]], tf.float64)
    bases = solve_all_bases(matrix, tf.constant([[-3.0], [-3.0]], tf.float64), LEAST)
    found = {
        tuple(members): tuple(np.round(solution, 9))
        for members, solution in zip(
            bases.members.numpy(), bases.solutions[..., 0].numpy(), strict=True
        )
    }
    assert found == {
        (False, False): (-3.0, -3.0),
        (True, False): (1.5, -1.5),
        (False, True): (-1.5, 1.5),
        (True, True): (1.0, 1.0),
    }


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_the_conditions_hold_for_singular_programs_too(seed, rank):
    random = np.random.RandomState(seed)
    rows = random.randn(5, rank)
    rows /= np.linalg.norm(rows, axis=1)[:, None]
    matrix = rows @ rows.T
    offsets = matrix @ random.randn(5, 2)  # in the range: the minimum exists
    y = solve_complementarity(tf.constant(matrix), tf.constant(offsets), LEAST).numpy()
    slack = offsets + matrix @ y
    size = np.abs(offsets).max()
    assert y.min() >= 0
    assert slack.min() >= -1e-6 * size
    assert np.abs(y * slack).max() <= 1e-6 * size * max(size, y.max())


def test_parallel_rows_share_the_shortest_solution():
    matrix = tf.ones([2, 2], tf.float64)
    y = solve_complementarity(matrix, -tf.ones([2, 1], tf.float64), LEAST)
    np.testing.assert_allclose(y[:, 0], [0.5, 0.5], atol=1e-3)
    assert float(tf.reduce_sum(y)) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("jit", [False, True])
def test_eigenvectors_are_those_of_numpy_under_xla_too(jit):
    random = np.random.RandomState(0)
    rows = random.randn(6, 4)  # rank 4: two eigenvalues are 0
    matrix = rows @ rows.T
    values, vectors = tf.function(eigen, jit_compile=jit)(tf.constant(matrix))
    np.testing.assert_allclose(np.sort(values), np.linalg.eigvalsh(matrix), atol=1e-13)
    np.testing.assert_allclose(matrix @ vectors, vectors * values, atol=1e-13)
    np.testing.assert_allclose(tf.transpose(vectors) @ vectors, np.eye(6), atol=1e-13)


def test_norms_and_cosines_make_the_gramian_again():
    rows = np.random.RandomState(0).randn(3, 4) * [[1e-6], [1.0], [1e6]]
    gramian = rows @ rows.T
    split = split_gramian(gramian)
    again = split.trace * split.norms[:, None] * split.cosines * split.norms[None, :]
    np.testing.assert_allclose(again, gramian, rtol=1e-12)
    np.testing.assert_allclose(np.diag(split.cosines), 1)


def test_a_zero_row_is_not_alive_and_stands_alone():
    split = split_gramian(tf.constant([[0.0, 0.0], [0.0, 4.0]]))
    np.testing.assert_array_equal(split.alive, [False, True])
    np.testing.assert_array_equal(split.cosines, np.eye(2))
    np.testing.assert_array_equal(split.inverse_norms, [0, 1])


def test_the_least_pivot_is_negative_exactly_where_the_matrix_is_indefinite():
    offsets = tf.zeros([3, 1], tf.float64)
    rows = np.array([[1.0, 0.0], [0.6, 0.8], [-0.6, 0.8]])  # rank 2: one eigenvalue is 0
    singular = rows @ rows.T
    assert float(solve_all_bases(tf.constant(singular), offsets, LEAST).least) > LEAST / 2
    values, vectors = np.linalg.eigh(singular)
    below = singular - 1e-9 * np.outer(vectors[:, 0], vectors[:, 0])
    assert values[0] == pytest.approx(0.0, abs=1e-15)
    assert float(solve_all_bases(tf.constant(below), offsets, LEAST).least) < 0


@pytest.mark.parametrize("jit", [None, True])
def test_rounding_that_leaves_no_minimum_is_taken_back(jit):
    # Opposite rows, their cosine rounded beyond -1 in float32: M = [[1, -c], [-c, 1]], c > 1, falls
    # without end along (1, 1). The nearest semidefinite matrix has c = 1, and with q = (-1, 1)
    # min (y0 - y1)^2 / 2 - (y0 - y1) is reached where y0 - y1 = 1; shortest: (1, 0).
    cosine = 1 + 1e-7
    matrix = tf.constant([[1.0, -cosine], [-cosine, 1.0]], tf.float64)
    solve = tf.function(
        lambda: solve_complementarity(matrix, tf.constant([[-1.0], [1.0]], tf.float64), LEAST),
        jit_compile=jit,
        autograph=False,
    )
    y = solve().numpy()[:, 0]
    assert y[0] - y[1] == pytest.approx(1.0, abs=1e-6)
    assert y.max() <= 1.001
