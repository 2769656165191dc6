"""What every Gramian balancer must do: safe cases, symmetries, XLA, and what their papers prove."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.balancing.aligned_mtl import AlignedMTL
from losses.balancing.cagrad import CAGrad
from losses.balancing.fairgrad import FairGrad
from losses.balancing.gradvac import GradVac
from losses.balancing.imtl_g import IMTLG
from losses.balancing.mgda import MGDA
from losses.balancing.nash_mtl import NashMTL
from losses.balancing.pcgrad import PCGrad
from losses.balancing.upgrad import DualProjection, UPGrad

pytestmark = pytest.mark.one_in(3)

# One object for each: its traces are shared by the examples of the property tests.
DETERMINISTIC = {
    "MGDA": MGDA(),
    "CAGrad(0.5)": CAGrad(0.5),
    "CAGrad(1)": CAGrad(1.0),
    "CAGrad(3)": CAGrad(3.0),
    "UPGrad": UPGrad(),
    "DualProjection": DualProjection(),
    "NashMTL": NashMTL(),
    "FairGrad(0.5)": FairGrad(0.5),
    "FairGrad(2)": FairGrad(2.0),
    "IMTLG": IMTLG(),
    "AlignedMTL(min)": AlignedMTL("min"),
    "AlignedMTL(median)": AlignedMTL("median"),
    "AlignedMTL(rmse)": AlignedMTL("rmse"),
}
ALL = {**DETERMINISTIC, "PCGrad": PCGrad(), "GradVac": GradVac()}
TRACED = {name: tf.function(balancer.weights) for name, balancer in ALL.items()}
# Proved: d in the dual cone (projections), KKT of the min-norm point, G w > 0 by their
# equation, and d = 0 being allowed where the worst gain is maximised over |d - g0| <= c |g0|.
CONFLICT_AVERSE = [
    "MGDA", "UPGrad", "DualProjection", "NashMTL", "FairGrad(0.5)", "FairGrad(2)", "CAGrad(1)",
    "CAGrad(3)",
]  # fmt: skip

entries = st.floats(-2, 2).map(lambda x: round(x, 2))  # coarse: equal and dependent rows occur


@st.composite
def jacobians(draw, most=4):
    terms = draw(st.integers(2, most))
    rows = draw(st.lists(st.lists(entries, min_size=5, max_size=5), min_size=terms, max_size=terms))
    powers = draw(st.lists(st.integers(-6, 6), min_size=terms, max_size=terms))
    return np.array(rows) * 10.0 ** np.array(powers)[:, None]


def weights_of(name, jacobian):
    return TRACED[name](tf.constant(jacobian @ jacobian.T)).numpy()


def sizes(jacobian):
    return np.linalg.norm(jacobian, axis=1)


@pytest.mark.parametrize("name", CONFLICT_AVERSE)
@settings(deadline=None, max_examples=40)
@given(jacobian=jacobians())
def test_no_term_gets_worse(name, jacobian):
    weights = weights_of(name, jacobian)
    gains = jacobian @ (weights @ jacobian)
    scale = sizes(jacobian) * max(np.abs(weights * sizes(jacobian)).max(), 1e-300)
    assert np.all(gains >= -2e-6 * scale), gains / scale


@pytest.mark.parametrize("name", ALL)
@settings(deadline=None, max_examples=25)
@given(jacobian=jacobians())
def test_the_weights_are_finite(name, jacobian):
    assert np.isfinite(weights_of(name, jacobian)).all()


@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("spread", [0, 3])
def test_permuted_terms_get_permuted_weights(name, spread):
    random = np.random.RandomState(7)
    jacobian = random.randn(5, 8) * 10.0 ** random.uniform(-spread, spread, (5, 1))
    order = random.permutation(5)
    weights = weights_of(name, jacobian)
    # AlignedMTL computes with the Gramian itself, whose condition is 1e12 at this spread.
    tolerance = 1e-3 if spread and name.startswith("AlignedMTL") else 1e-9
    np.testing.assert_allclose(weights_of(name, jacobian[order]), weights[order], rtol=tolerance)


@pytest.mark.parametrize("name", ALL)
def test_one_term_gives_its_own_gradient(name):
    gradient = tf.constant([[3.0, -4.0, 12.0]])
    np.testing.assert_allclose(ALL[name].direction(gradient), gradient[0], rtol=1e-6)
    assert ALL[name].weights(tf.constant([[169.0]])).numpy() == pytest.approx([1.0])


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    "jacobian",
    [
        [[0.0, 0.0], [0.0, 0.0]],
        [[0.0, 0.0], [1.0, 2.0]],
        [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]],
        [[1.0, 2.0], [-1.0, -2.0]],
        [[1.0, 2.0], [-3.0, -6.0]],
        [[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]],
        [[1e-6, 0.0], [-1e6, 1e6]],
        [[1e-6, 0.0], [0.0, 0.0], [-1e6, 1e-6], [1e6, 0.0]],
    ],
    ids=["zero", "a zero row", "equal", "opposite", "opposite 3", "star", "scaled", "all of it"],
)
def test_degenerate_gradients_give_bounded_directions(name, jacobian):
    jacobian = np.array(jacobian)
    state = ALL[name].initial_state(len(jacobian)) or None
    direction = ALL[name].direction(tf.constant(jacobian), state).numpy()
    assert np.isfinite(direction).all()
    # FairGrad's own scale: |d| is |g|^((1 - alpha) / (1 + alpha)) in size; the shortest row counts.
    limit = 10 * len(jacobian) * max(sizes(jacobian).max(), 1.0)
    assert np.linalg.norm(direction) <= limit
    single = ALL[name].direction(tf.constant(jacobian, tf.float32), state).numpy()
    assert np.isfinite(single).all()


@pytest.mark.parametrize("name", [*CONFLICT_AVERSE, "CAGrad(0.5)", "PCGrad", "AlignedMTL(min)"])
def test_opposite_gradients_of_one_length_cancel(name):
    jacobian = tf.constant([[1.0, 2.0], [-1.0, -2.0]], tf.float64)
    np.testing.assert_allclose(ALL[name].direction(jacobian), [0, 0], atol=1e-5)


@pytest.mark.parametrize("name", ["UPGrad", "DualProjection"])
def test_without_conflict_the_projections_give_the_mean(name):
    jacobian = np.array([[1.0, 0.0, 2.0], [1.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
    np.testing.assert_allclose(weights_of(name, jacobian), np.full(3, 1 / 3), rtol=1e-12)


@pytest.mark.parametrize("name", ["PCGrad", "GradVac"])
def test_without_conflict_the_surgeons_give_the_sum(name):
    jacobian = np.array([[1.0, 0.0, 2.0], [1.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
    np.testing.assert_allclose(weights_of(name, jacobian), np.ones(3), rtol=1e-12)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", ALL)
def test_xla_and_a_plain_graph_give_the_weights_of_eager_code(name):
    jacobian = np.random.RandomState(3).randn(3, 5)
    jacobian[2] = jacobian[0] - jacobian[1]  # dependent: pseudo-inverses are used
    gramian = tf.constant(jacobian @ jacobian.T)
    eager = ALL[name].weights(gramian, step=tf.constant(4)).numpy()
    for jit in (False, True):
        traced = tf.function(lambda g, s: ALL[name].weights(g, step=s), jit_compile=jit)
        weights = traced(gramian, tf.constant(4)).numpy()
        np.testing.assert_allclose(weights @ jacobian, eager @ jacobian, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_weights_have_the_dtype_of_the_gramian_and_agree_in_float32(name):
    gramian = np.array([[4.0, -1.0, 0.5], [-1.0, 2.0, -1.0], [0.5, -1.0, 3.0]])
    single = ALL[name].weights(tf.constant(gramian, tf.float32))
    assert single.dtype == tf.float32
    np.testing.assert_allclose(single, ALL[name].weights(tf.constant(gramian)), rtol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_a_balancer_is_made_again_from_its_configuration(name):
    again = type(ALL[name]).from_config(ALL[name].get_config())
    assert again.get_config() == ALL[name].get_config()


@pytest.mark.parametrize("kind", [PCGrad, GradVac, MGDA, IMTLG, NashMTL, FairGrad])
def test_a_preference_is_refused_where_the_method_has_none(kind):
    with pytest.raises(ValueError, match=f"{kind.__name__}.*has no preference"):
        kind(preference=[1.0, 2.0])


@pytest.mark.parametrize("balancer", [UPGrad, DualProjection, CAGrad, AlignedMTL])
def test_a_preference_must_fit_the_terms(balancer):
    with pytest.raises(ValueError, match="holds 2 numbers, but there are 3"):
        balancer(preference=[1.0, 2.0]).weights(tf.eye(3))


def test_a_preference_moves_the_mean_of_cagrad():
    # Without a ball there is nothing but the preferred mean.
    weights = CAGrad(0.0, preference=[0.25, 0.75]).weights(tf.eye(2))
    np.testing.assert_allclose(weights, [0.25, 0.75])


@pytest.mark.parametrize(
    "kind,value",
    [(CAGrad, -1.0), (FairGrad, float("nan")), (NashMTL, -0.1), (AlignedMTL, "mean"), (GradVac, 2)],
)
def test_an_argument_out_of_range_is_named_with_its_value(kind, value):
    with pytest.raises(ValueError, match=rf"{kind.__name__}\(\w+={value!r}\): give "):
        kind(value)


@pytest.mark.parametrize("shape", [[2, 3], [4]])
def test_what_is_no_gramian_is_refused(shape):
    with pytest.raises(ValueError, match="Gramian"):
        MGDA().weights(tf.zeros(shape))


@pytest.mark.parametrize("name", ["MGDA", "NashMTL", "CAGrad(0.5)", "PCGrad"])
def test_twelve_terms_are_accepted(name):
    jacobian = np.random.RandomState(1).randn(12, 20)
    direction = weights_of(name, jacobian) @ jacobian
    assert np.isfinite(direction).all()
    if name == "MGDA":
        assert (jacobian @ direction).min() >= direction @ direction * (1 - 1e-9)


def test_imtl_g_advances_equally_along_gradients_of_any_length():
    jacobian = np.random.RandomState(2).randn(4, 6) * [[1e-6], [1e-2], [1e2], [1e6]]
    weights = weights_of("IMTLG", jacobian)
    assert weights.sum() == pytest.approx(1.0)
    projections = jacobian @ (weights @ jacobian) / sizes(jacobian)
    np.testing.assert_allclose(projections, projections[0], rtol=1e-9)


def test_aligned_mtl_takes_the_lower_median_and_the_mean_of_the_eigenvalues():
    # Orthogonal rows of squared norms 1, 4, 9, 16: w = sqrt(scale / square) / 4.
    squares = np.array([1.0, 4.0, 9.0, 16.0])
    for scale, value in (("min", 1.0), ("median", 4.0), ("rmse", 7.5)):
        weights = AlignedMTL(scale).weights(tf.constant(np.diag(squares)))
        np.testing.assert_allclose(weights, np.sqrt(value / squares) / 4, rtol=1e-12)


def test_nash_mtl_bounds_the_direction_only_from_above():
    jacobian = np.array([[2.0, 1.0, 0.0], [-1.0, 1.0, 1.0]])
    free = NashMTL(max_norm=0).direction(tf.constant(jacobian)).numpy()
    assert np.linalg.norm(free) == pytest.approx(2**0.5)  # w.(G w) = m
    bounded = NashMTL(max_norm=0.5).direction(tf.constant(jacobian)).numpy()
    np.testing.assert_allclose(bounded, free / np.linalg.norm(free) / 2)
    np.testing.assert_allclose(NashMTL(max_norm=2.0).direction(tf.constant(jacobian)), free)


def test_fairgrad_of_alpha_0_is_the_mean():
    np.testing.assert_allclose(FairGrad(0.0).weights(tf.eye(4)), np.full(4, 0.25))


def test_mgda_gives_a_zero_row_all_the_weight():
    np.testing.assert_array_equal(MGDA().weights(tf.constant(np.diag([4.0, 0.0]))), [0, 1])


def test_cagrad_and_the_bargainers_go_on_beside_a_zero_row():
    gramian = tf.constant(np.diag([4.0, 0.0, 1.0]))
    np.testing.assert_allclose(FairGrad(1.0).weights(gramian), [0.5, 0, 1])
    np.testing.assert_allclose(NashMTL(0).weights(gramian), [0.5, 0, 1])
    assert np.all(CAGrad(0.5).weights(gramian).numpy()[[0, 2]] > 1 / 4)


@pytest.mark.parametrize("name", ["MGDA", "UPGrad", "DualProjection", "CAGrad(1)", "NashMTL"])
def test_the_rounding_of_a_float32_gramian_does_no_harm(name):
    # Such a Gramian of dependent rows has eigenvalues below 0, by some 1e-7 of the largest.
    random = np.random.RandomState(0)
    for _ in range(20):
        rows = random.randn(5, 3).astype(np.float32)
        rows[4] = -rows[:4].sum(axis=0)
        for dtype in (tf.float32, tf.float64):
            weights = TRACED[name](tf.cast(rows @ rows.T, dtype)).numpy()
            gains = rows @ (weights @ rows) / sizes(rows)
            assert gains.min() >= -2e-5 * np.abs(weights * sizes(rows)).max()
