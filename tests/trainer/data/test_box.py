"""Points of a box: where they lie, how evenly, and that a seed fixes them."""

import numpy as np
import pytest

from losses.errors import TermwiseError
from trainer import Box

BOX = Box((0, 1), (-1, 3))
METHODS = ["uniform", "latin_hypercube", "halton"]


@pytest.mark.parametrize("method", METHODS)
def test_interior_points_lie_inside_and_are_those_of_their_seed(method):
    points = BOX.interior(200, seed=3, method=method)
    assert points.shape == (200, 2) and points.dtype == np.float64
    assert np.all(points >= [0, -1]) and np.all(points < [1, 3])
    np.testing.assert_array_equal(points, BOX.interior(200, seed=3, method=method))
    assert not np.array_equal(points, BOX.interior(200, seed=4, method=method))


def test_a_latin_hypercube_has_one_point_in_each_slice():
    slices = np.floor((BOX.interior(50) - BOX.low) / (BOX.high - BOX.low) * 50)
    np.testing.assert_array_equal(np.sort(slices, 0), np.arange(50)[:, None].repeat(2, 1))


def test_halton_points_are_the_mirrored_digits_shifted_together():
    points = Box((0, 1), (0, 1)).interior(4, method="halton")
    expected = np.array([[1 / 2, 1 / 3], [1 / 4, 2 / 3], [3 / 4, 1 / 9], [1 / 8, 4 / 9]])
    np.testing.assert_allclose((points - points[0]) % 1, (expected - expected[0]) % 1, atol=1e-12)


def test_faces_hold_one_coordinate():
    assert set(BOX.face(0, "low", 9)[:, 0]) == {0.0}
    assert set(BOX.face(1, "high", 9)[:, 1]) == {3.0}
    walls = BOX.boundary(7)
    assert list(walls[:, 1]) == [-1.0] * 4 + [3.0] * 3
    assert len(BOX.boundary(8, axes=(0, 1))) == 8


def test_points_are_drawn_where_a_function_is_large():
    points = BOX.where_large(lambda p: p[:, 0] > 0.9, 100, floor=0.0)
    assert np.all(points[:, 0] > 0.9) and len(np.unique(points, axis=0)) == 100
    both = BOX.where_large(lambda p: p[:, 0] > 0.9, 1000, floor=1.0, candidates=100_000)
    # density 10 + 1 on a tenth, 1 elsewhere: 1.1 of 2
    assert abs(np.mean(both[:, 0] > 0.9) - 0.55) < 4 * np.sqrt(0.55 * 0.45 / 1000)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (Box, r"give \(low, high\) of each coordinate"),
        (lambda: Box((1, 0)), r"\(1, 0\) is no interval"),
        (lambda: BOX.interior(0), "0 points. Give a whole number"),
        (lambda: BOX.interior(5, method="sobol"), "accepted are 'uniform', 'latin_hypercube'"),
        (lambda: BOX.face(2, "low", 5), "give a coordinate of 0 to 1"),
        (lambda: BOX.boundary(1), "there are 2 faces"),
        (lambda: BOX.where_large(lambda p: p[:, 0] * np.nan, 5), "not finite"),
    ],
    ids=["none", "turned", "no points", "method", "face", "boundary", "nan"],
)
def test_what_cannot_be_is_said(call, said):
    with pytest.raises(TermwiseError, match=said):
        call()
