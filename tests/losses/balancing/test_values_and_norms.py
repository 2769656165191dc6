"""What holds for each balancer from values or norms: order of terms, sums, XLA, extremes, state."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.balancing.dwa import DWA
from losses.balancing.famo import FAMO
from losses.balancing.fixed import Fixed
from losses.balancing.geometric_mean import GeometricMean
from losses.balancing.gradnorm import GradNorm
from losses.balancing.learning_rate_annealing import LearningRateAnnealing
from losses.balancing.ntk import NTK
from losses.balancing.random_weights import RandomWeights
from losses.balancing.relobralo import ReLoBRaLo
from losses.balancing.softadapt import SoftAdapt
from losses.balancing.stch import STCH
from losses.balancing.uncertainty import IMTLL, Uncertainty

pytestmark = pytest.mark.one_in(2)

BALANCERS = [
    Fixed(),
    RandomWeights(),
    RandomWeights("dirichlet"),
    GeometricMean(),
    DWA(period=2),
    SoftAdapt(),
    SoftAdapt(loss_weighted=True, normalized=True),
    ReLoBRaLo(0.9, 0.5),
    Uncertainty(),
    IMTLL(),
    STCH(),
    FAMO(),
    FAMO(optimizer="sgd"),
    GradNorm(),
    GradNorm(relative=False),
    LearningRateAnnealing(),
    NTK(),
]


def described(balancer):
    if not hasattr(balancer, "get_config"):
        return None
    settings = ",".join(str(setting) for setting in balancer.get_config().values())
    return f"{type(balancer).__name__}({settings})"


each = pytest.mark.parametrize("balancer", BALANCERS, ids=described)
deterministic = pytest.mark.parametrize(
    "balancer", [b for b in BALANCERS if not isinstance(b, RandomWeights)], ids=described
)


def losses(step):
    return np.array(
        [
            2 * 0.9**step + 0.1,
            50 * 0.97**step * (1 + 0.2 * math.sin(step)),
            0.01 * (1 + 0.3 * math.cos(2 * step)),
            1.0,
        ]
    )


def rows_of(values):
    """[m, 6], gradients whose sizes are those of the values."""
    places = np.arange(6)
    return np.sqrt(np.abs(values))[:, None] * (np.cos(places + np.abs(values)[:, None] % 7) + 1.5)


def one_step(balancer, values, rows, state, step):
    """The weights of a step and the state after it."""
    if balancer.needs == "values":
        given, more = values, {}
    elif balancer.needs == "gramian":
        given, more = tf.matmul(rows, rows, transpose_b=True), {"values": values}
    elif balancer.needs == "traces":
        given, more = tf.reduce_sum(rows**2, axis=-1), {}
    else:
        given, more = rows, {}
    weights = balancer.weights(given, state, step=step, **more)
    return weights, balancer.next_state(given, state, step=step, **more)


def run(balancer, sequence, dtype=tf.float64, jit=False):
    """The weights of each step, [steps, m], and the last state."""
    function = one_step
    if jit:

        def function(balancer, *tensors):
            return compiled(*tensors)

        compiled = tf.function(
            lambda *tensors: one_step(balancer, *tensors), jit_compile=True, autograph=False
        )
    state, weights = balancer.initial_state(len(sequence[0])), []
    for step, values in enumerate(sequence):
        values = np.asarray(values, np.float64)
        tensors = tf.constant(values, dtype), tf.constant(rows_of(values), dtype)
        row, state = function(balancer, *tensors, state, tf.constant(step))
        weights.append(row.numpy())
    return np.array(weights), state


@each
def test_compiled_by_xla_the_weights_are_the_same(balancer):
    sequence = [losses(step) for step in range(6)]
    weights, state = run(balancer, sequence)
    compiled, compiled_state = run(balancer, sequence, jit=True)
    np.testing.assert_allclose(compiled, weights, rtol=1e-9)
    for name in state:
        np.testing.assert_allclose(compiled_state[name], state[name], rtol=1e-6, atol=1e-9)


@deterministic
def test_terms_in_another_order_have_their_weights_in_that_order(balancer):
    order = [2, 0, 3, 1]
    if isinstance(balancer, LearningRateAnnealing):
        other = LearningRateAnnealing(reference=1)  # where the first term is in that order
    else:
        other = balancer
    sequence = [losses(step) for step in range(8)]
    weights, _ = run(balancer, sequence)
    reordered, _ = run(other, [values[order] for values in sequence])
    np.testing.assert_allclose(reordered, weights[:, order], rtol=1e-7)


@pytest.mark.parametrize(
    "balancer, total",
    [
        (RandomWeights(), 1),
        (RandomWeights("dirichlet"), 1),
        (DWA(period=2), 4),
        (SoftAdapt(), 1),
        (SoftAdapt(loss_weighted=True), 1),
        (ReLoBRaLo(0.9, 0.5), 4),
        (STCH(), 1 / 4),
        (FAMO(), 1),
        (GradNorm(), 4),
    ],
    ids=described,
)
def test_the_weights_sum_to_what_the_paper_says(balancer, total):
    weights, _ = run(balancer, [losses(step) for step in range(20)])
    np.testing.assert_allclose(weights.sum(1), total, rtol=1e-9)
    assert (weights >= 0).all()


@each
def test_one_term_alone_keeps_a_weight_of_one(balancer):
    weights, _ = run(balancer, [[3.0], [2.0], [0.5]])
    if isinstance(balancer, Uncertainty):
        assert weights[0] == 0.5  # the half of the regression's likelihood
    elif isinstance(balancer, IMTLL):
        assert weights[0] == 1
    elif isinstance(balancer, LearningRateAnnealing):
        assert (weights == 1).all()
    else:
        np.testing.assert_allclose(weights, np.ones([3, 1]), rtol=1e-12)


@each
@settings(deadline=None, max_examples=15)
@given(
    sequence=st.integers(1, 4).flatmap(
        lambda terms: st.lists(
            st.lists(
                st.sampled_from([0.0, -0.0, 1e-38, -1e-38, 1.0, -1.0, 3e38, -3e38, 1e-7, 12.5])
                | st.floats(-1e6, 1e6, width=32),
                min_size=terms,
                max_size=terms,
            ),
            min_size=3,
            max_size=3,
        )
    )
)
def test_extreme_values_never_give_nan_or_infinity(balancer, sequence):
    weights, state = run(balancer, sequence, tf.float32)
    assert weights.dtype == np.float32
    assert np.isfinite(weights).all()
    for name, entry in state.items():
        assert np.isfinite(entry).all(), name


@each
def test_the_state_keeps_its_names_shapes_and_dtypes(balancer):
    start = balancer.initial_state(4)
    _, state = run(balancer, [losses(0), losses(1)], tf.float32)
    assert {n: (e.shape, e.dtype) for n, e in state.items()} == {
        n: (e.shape, e.dtype) for n, e in start.items()
    }
    assert all(entry.shape == [4] for entry in start.values())


@each
def test_a_loop_may_keep_the_state_in_variables(balancer):
    variables = {name: tf.Variable(entry) for name, entry in balancer.initial_state(4).items()}

    @tf.function
    def step_of_a_loop(values, rows, step):
        weights, state = one_step(balancer, values, rows, variables, step)
        for name, variable in variables.items():
            variable.assign(state[name])
        return weights

    sequence = [losses(step) for step in range(4)]
    expected, _ = run(balancer, sequence)
    for step, values in enumerate(sequence):
        weights = step_of_a_loop(
            tf.constant(values), tf.constant(rows_of(values)), tf.constant(step)
        )
        np.testing.assert_allclose(weights, expected[step], rtol=1e-9)


@each
def test_reset_gives_the_state_of_a_start(balancer):
    _, state = run(balancer, [losses(0), losses(1)])
    start, again = balancer.initial_state(4), balancer.reset(state)
    assert start.keys() == again.keys()
    for name in start:
        np.testing.assert_array_equal(start[name], again[name])


@each
def test_no_state_is_the_initial_one(balancer):
    rows = tf.constant(rows_of(losses(0)))
    values = tf.constant(losses(0))
    without, _ = one_step(balancer, values, rows, balancer.initial_state(4), 0)
    given = {
        "values": values,
        "gramian": tf.matmul(rows, rows, transpose_b=True),
        "traces": tf.reduce_sum(rows**2, axis=-1),
        "jacobian": rows,
    }[balancer.needs]
    np.testing.assert_array_equal(balancer.weights(given), without)


@each
def test_it_can_be_made_again_from_its_configuration(balancer):
    again = type(balancer).from_config(balancer.get_config())
    assert again.get_config() == balancer.get_config()
    assert repr(again) == repr(balancer)


@pytest.mark.parametrize("kind", sorted({type(b) for b in BALANCERS}, key=str))
def test_every_is_kept(kind):
    argument = "update_every" if kind is LearningRateAnnealing else "every"
    assert kind.from_config(kind(**{argument: 5}).get_config()).every == 5


@each
def test_no_gradient_flows_through_the_values(balancer):
    values, rows = tf.constant(losses(1)), tf.constant(rows_of(losses(1)))
    state = balancer.initial_state(4)
    with tf.GradientTape() as tape:
        tape.watch([values, rows])
        weights, _ = one_step(balancer, values, rows, state, 0)
    assert tape.gradient(weights, [values, rows]) == [None, None]
