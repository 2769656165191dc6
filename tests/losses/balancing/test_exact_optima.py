"""Gramian balancers against exact optima: every support, or Newton's method, in 60 digits.

Decimal arithmetic has no trouble with rows of norms 1e-6 and 1e6, and shares no code with the
solvers. Directions are compared relative to their length, in the metric of the gradients.
"""

import decimal
import itertools
from decimal import Decimal

import numpy as np
import pytest
import tensorflow as tf

from losses.balancing.cagrad import CAGrad
from losses.balancing.fairgrad import FairGrad
from losses.balancing.mgda import MGDA
from losses.balancing.nash_mtl import NashMTL
from losses.balancing.upgrad import DualProjection, UPGrad

pytestmark = pytest.mark.one_in(3)

EXACT = 1e-6  # asked for is 1e-3


@pytest.fixture(autouse=True)
def sixty_digits():
    with decimal.localcontext(decimal.Context(prec=60)):
        yield


def draw(terms, spread, seed):
    """[m, m + 2] with row norms over `spread` powers of ten each way; half of them conflicting."""
    random = np.random.RandomState(seed)
    rows = random.randn(terms, terms + 2)
    if seed % 2:
        rows[:, 0] += 3 * random.choice([-1, 1], terms)
    powers = random.permutation(np.linspace(-spread, spread, terms))
    return rows * 10.0 ** powers[:, None]


CASES = [(terms, spread) for terms in range(2, 9) for spread in (0, 6)]


def exact(array):
    return [[Decimal(float(x)) for x in row] for row in np.atleast_2d(array)]


def dot(a, b):
    return sum((x * y for x, y in zip(a, b, strict=True)), Decimal(0))


def combine(weights, rows):
    return [dot(weights, column) for column in zip(*rows, strict=True)]


def gramian_of(rows):
    return [[dot(a, b) for b in rows] for a in rows]


def solve(matrix, right):
    """Gaussian elimination of [n, n] with several right-hand sides [n][r]."""
    rows = [[*a, *b] for a, b in zip(matrix, right, strict=True)]
    n = len(rows)
    for k in range(n):
        pivot = max(range(k, n), key=lambda i: abs(rows[i][k]))
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [x / rows[k][k] for x in rows[k]]
        for i in range(n):
            if i != k and rows[i][k]:
                rows[i] = [x - rows[i][k] * y for x, y in zip(rows[i], rows[k], strict=True)]
    return [row[n:] for row in rows]


def supports(terms):
    return (s for size in range(terms + 1) for s in itertools.combinations(range(terms), size))


def on_support(gramian, support, *vectors):
    """G_SS^-1 v_S for each vector, 0 off S."""
    sub = [[gramian[i][j] for j in support] for i in support]
    solved = solve(sub, [[v[i] for v in vectors] for i in support]) if support else []
    outs = [[Decimal(0)] * len(gramian) for _ in vectors]
    for place, row in zip(support, solved, strict=True):
        for out, x in zip(outs, row, strict=True):
            out[place] = x
    return outs


def exact_mgda(gramian):
    ones = [Decimal(1)] * len(gramian)
    for support in supports(len(gramian)):
        (v,) = on_support(gramian, support, ones)
        if support and min(v) >= 0 and min(combine(v, gramian)) >= 1 - Decimal("1e-30"):
            return [x / sum(v) for x in v]
    raise AssertionError("no support is optimal")


def exact_projection(gramian, point):
    """The weights of J^T point projected onto the cone J d >= 0."""
    along = combine(point, gramian)
    for support in supports(len(gramian)):
        (x,) = on_support(gramian, support, [-a for a in along])
        slack = [a + b for a, b in zip(along, combine(x, gramian), strict=True)]
        off = [s for i, s in enumerate(slack) if i not in support]
        if min(x) >= 0 and min(off, default=0) >= 0:
            return [p + q for p, q in zip(point, x, strict=True)]
    raise AssertionError("no support is optimal")


def exact_cagrad(gramian, c, preferred):
    """Of all supports the one whose value is least: the minimum over the simplex."""
    ones = [Decimal(1)] * len(gramian)
    along = combine(preferred, gramian)
    radius = c * dot(preferred, along).sqrt()
    best = None
    for support in supports(len(gramian)):
        if not support:
            continue
        of_ones, of_along = on_support(gramian, support, ones, along)
        # |J^T v| = 1 where G_SS v = (u - along) / radius.
        a, b = sum(of_ones), sum(of_along)
        d = dot([along[i] for i in support], [of_along[i] for i in support]) - radius**2
        if b * b - a * d < 0:
            continue
        u = (b + (b * b - a * d).sqrt()) / a
        v = [(u * x - y) / radius for x, y in zip(of_ones, of_along, strict=True)]
        if min(v) < 0:
            continue
        value = dot(v, along) / sum(v) + radius / sum(v)
        if best is None or value < best[0]:
            best = value, [p + radius * x for p, x in zip(preferred, v, strict=True)]
    return best[1]


def exact_root(gramian, alpha, start):
    """The root of G w = w^(-1/alpha) near `start`; there is only one, as G is positive definite."""
    w, power = start, -1 / Decimal(alpha)
    terms = range(len(w))
    for _ in range(60):
        gaps = [a - x**power for a, x in zip(combine(w, gramian), w, strict=True)]
        # In the unknowns log w.
        slope = [
            [gramian[i][j] * w[j] - (power * w[i] ** power if i == j else 0) for j in terms]
            for i in terms
        ]
        change = [row[0] for row in solve(slope, [[-gap] for gap in gaps])]
        w = [x * min(max(y, Decimal(-1)), Decimal(1)).exp() for x, y in zip(w, change, strict=True)]
        if max(map(abs, change)) < Decimal("1e-25"):
            return w
    raise AssertionError("Newton's method did not end")


def error(weights, expected, rows):
    """|J^T (w - w*)| / |J^T w*|."""
    ours = [Decimal(float(w)) for w in weights]
    d = combine(expected, rows)
    gap = combine([a - b for a, b in zip(ours, expected, strict=True)], rows)
    return float((dot(gap, gap) / dot(d, d)).sqrt())


def weights_of(balancer, jacobian):
    """Of the Gramian in float64, rounded as a caller would have it."""
    return balancer.weights(tf.constant(jacobian @ jacobian.T)).numpy()


@pytest.mark.parametrize("terms,spread", CASES)
def test_mgda_is_the_min_norm_point(terms, spread):
    jacobian = draw(terms, spread, 10 + terms)
    rows = exact(jacobian)
    expected = exact_mgda(gramian_of(rows))
    weights = weights_of(MGDA(), jacobian)
    assert error(weights, expected, rows) < EXACT
    np.testing.assert_allclose(weights, np.array(expected, float), rtol=0, atol=EXACT)


@pytest.mark.parametrize("c", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("terms,spread", CASES)
def test_cagrad_helps_the_worst_term_most(terms, spread, c):
    jacobian = draw(terms, spread, 20 + terms)
    rows = exact(jacobian)
    preferred = [Decimal(1) / terms] * terms
    expected = exact_cagrad(gramian_of(rows), Decimal(c), preferred)
    assert error(weights_of(CAGrad(c), jacobian), expected, rows) < EXACT


@pytest.mark.parametrize("terms,spread", CASES)
def test_projections_onto_the_dual_cone_are_the_nearest_points(terms, spread):
    jacobian = draw(terms, spread, 30 + terms)
    rows = exact(jacobian)
    gramian = gramian_of(rows)
    preference = [Decimal(i + 1) for i in range(terms)]
    expected = exact_projection(gramian, preference)
    weights = weights_of(DualProjection(preference=preference), jacobian)
    assert error(weights, expected, rows) < EXACT
    each = [
        exact_projection(gramian, [p if i == j else Decimal(0) for j in range(terms)])
        for i, p in enumerate(preference)
    ]
    expected = [sum(column) for column in zip(*each, strict=True)]
    assert error(weights_of(UPGrad(preference=preference), jacobian), expected, rows) < EXACT


@pytest.mark.parametrize("terms,spread", CASES)
def test_nash_mtl_solves_its_equation(terms, spread):
    jacobian = draw(terms, spread, 40 + terms)
    rows = exact(jacobian)
    weights = weights_of(NashMTL(max_norm=0), jacobian)
    expected = exact_root(gramian_of(rows), 1, [Decimal(float(w)) for w in weights])
    np.testing.assert_allclose(weights, np.array(expected, float), rtol=EXACT)
    assert error(weights, expected, rows) < EXACT


@pytest.mark.parametrize("alpha", [0.25, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("terms,spread", CASES)
def test_fairgrad_solves_its_equation_in_its_own_scale(terms, spread, alpha):
    jacobian = draw(terms, spread, 50 + terms)
    rows = exact(jacobian)
    weights = weights_of(FairGrad(alpha), jacobian)
    expected = exact_root(gramian_of(rows), alpha, [Decimal(float(w)) for w in weights])
    np.testing.assert_allclose(weights, np.array(expected, float), rtol=EXACT)
    assert error(weights, expected, rows) < EXACT
