"""Terms that take no part in a step: under every balancer the others are as if alone."""

import inspect

import numpy as np
import pytest
import tensorflow as tf

from losses import balancing
from losses.balancing.balancer import Balancer, JacobianBalancer
from losses.objective.layout import Layout
from losses.objective.ratio import Ratio
from trainer.balancing.active_terms import Part, for_active, term_axes
from trainer.balancing.balanced_terms import BalancedTerms
from trainer.balancing.direction import balanced_direction

pytestmark = pytest.mark.one_in(4)

BALANCERS = [
    kind
    for _, kind in inspect.getmembers(balancing, inspect.isclass)
    if issubclass(kind, Balancer) and kind.needs and not inspect.isabstract(kind)
]
VALUES = np.array([[3.0, 1.0], [2.0, 1.5], [2.5, 0.5]], np.float32)
ROWS = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)


def layout_of(*names):
    return Layout(names, ((),) * len(names), (None,) * len(names), (False,) * len(names))


def factors_and_state(terms, values, rows, step, active):
    """One step of a balancer: its factors, its direction, and the state after it."""
    step, values = tf.constant(step, tf.int64), tf.constant(values)
    kind, direction = terms.balancer.needs, None
    statistic = tf.cast(tf.constant(rows), tf.float64)
    if kind in ("gramian", "traces"):
        statistic = tf.matmul(statistic, statistic, transpose_b=True)
    if kind == "traces":
        statistic = tf.linalg.diag_part(statistic)
    if isinstance(terms.balancer, JacobianBalancer):
        found = balanced_direction(terms, {"w": tf.constant(rows)}, values, step, active)
        factors, direction = found.factors, found.gradients["w"].numpy()
    else:
        factors = terms.factors_of(statistic, values, step, active)
    terms.remember_gradients(statistic, values, factors, step, active)
    state = {name: value.numpy() for name, value in terms.state_now().items()}
    return factors.numpy(), direction, state


@pytest.mark.parametrize("kind", BALANCERS, ids=lambda kind: kind.__name__)
def test_a_term_that_takes_no_part_leaves_the_others_as_if_it_were_not_there(kind):
    alone = BalancedTerms(kind(), layout_of("a", "b"), tf.distribute.get_strategy())
    beside = BalancedTerms(kind(), layout_of("a", "x", "b"), tf.distribute.get_strategy())
    active = beside.active(tf.ones([3]), tf.constant([0.0, 1.0, 0.0]))
    for step, (values, rows) in enumerate(zip(VALUES, ROWS, strict=True)):
        wide = np.insert(values, 1, 0.0), np.insert(rows, 1, 0.0, axis=0)
        before = {name: value.numpy() for name, value in beside.state_now().items()}
        mine, my_direction, my_state = factors_and_state(beside, *wide, step, active)
        other, direction, state = factors_and_state(alone, values, rows, step, None)
        np.testing.assert_allclose(mine[[0, 2]], other, rtol=1e-6)
        if direction is not None:
            np.testing.assert_allclose(my_direction, direction, rtol=1e-6)
        if kind.trained:
            continue  # the optimizer trains each term's number by itself
        assert mine[1] == 1.0  # as it was at first
        for name, value in my_state.items():
            kept = value[np.ix_(*[[0, 2]] * len(beside._axes[name]))]
            np.testing.assert_allclose(kept, state[name], rtol=1e-6, err_msg=name)
            if beside._axes[name]:
                np.testing.assert_array_equal(value[1], before[name][1], err_msg=name)


@pytest.mark.parametrize(
    "balancer",
    [
        balancing.Fixed([1.0, 2.0, 3.0]),
        balancing.STCH(ideal=[0.1, 0.2, 0.3], preference=[1.0, 2.0, 3.0]),
        balancing.UPGrad(preference=[1.0, 2.0, 3.0]),
        balancing.LearningRateAnnealing(reference=2),
    ],
    ids=repr,
)
def test_what_was_given_for_each_term_stays_with_its_term(balancer):
    config = balancer.get_config()
    two = {
        key: (value[0], value[2]) if isinstance(value, tuple) else value
        for key, value in config.items()
    }
    two.update({"reference": 1} if "reference" in config else {})
    alone = BalancedTerms(type(balancer)(**two), layout_of("a", "b"), tf.distribute.get_strategy())
    beside = BalancedTerms(balancer, layout_of("a", "x", "b"), tf.distribute.get_strategy())
    active = tf.constant([True, False, True])
    wide = np.insert(VALUES[0], 1, 0.0), np.insert(ROWS[0], 1, 0.0, axis=0)
    mine, _, _ = factors_and_state(beside, *wide, 0, active)
    other, _, _ = factors_and_state(alone, VALUES[0], ROWS[0], 0, None)
    np.testing.assert_allclose(mine[[0, 2]], other, rtol=1e-6)


def test_where_no_term_takes_part_all_stays():
    terms = BalancedTerms(balancing.FAMO(), layout_of("a", "b"), tf.distribute.get_strategy())
    terms.factors.assign([0.25, 0.75])
    nothing = tf.constant([False, False])
    factors, _, state = factors_and_state(terms, VALUES[0], ROWS[0], 0, nothing)
    assert factors.tolist() == [0.25, 0.75] and state["started"].tolist() == [0, 0]


def test_the_branches_are_compiled_by_xla_too():
    @tf.function(jit_compile=True)
    def double(active, values):
        def answer(part: Part):
            return part.into(values, 2 * part.of(values, (0,)), (0,))

        return for_active(active, answer, lambda: values)

    values = tf.constant([1.0, 2.0, 3.0])
    assert double(tf.constant([True, False, True]), values).numpy().tolist() == [2, 2, 6]
    assert double(tf.constant([False] * 3), values).numpy().tolist() == [1, 2, 3]


def test_the_axes_over_the_terms_are_those_that_grow_with_them():
    assert term_axes(balancing.GradVac().initial_state, 2) == {"targets": (0, 1)}
    shapes = term_axes(lambda m: {"a": tf.zeros([2, m]), "at": tf.constant(0)}, 2)
    assert shapes == {"a": (1,), "at": ()}


def test_a_weight_of_zero_and_a_term_that_is_only_looked_at_are_no_tasks():
    strategy, layout = tf.distribute.get_strategy(), layout_of("a", "b", "c", "d")
    given = {"a": 1.0, "b": 0.0, "c": None, "d": 1.0}
    terms = BalancedTerms(balancing.MGDA(), layout, strategy, given, watched={"d"})
    assert terms.names == ("a", "c")
    assert terms.active(tf.constant([1.0, 0, 0, 1]), None).numpy().tolist() == [True, False]
    always = BalancedTerms(balancing.MGDA(), layout, strategy, {"a": 0.0})
    assert always.active(tf.ones([4]), None) is None  # nothing is to be found out in the step


def test_what_a_trained_weight_adds_is_absent_with_its_term():
    strategy, layout = tf.distribute.get_strategy(), layout_of("a", "b")
    terms = BalancedTerms(balancing.Uncertainty(initial=0.5), layout, strategy)
    beside = {"a": Ratio(tf.constant(0.0), tf.Variable(0.0)), "b": Ratio.once(tf.constant(1.0))}
    penalties = terms.penalties(beside, None)
    assert {name: float(ratio.value()) for name, ratio in penalties.items()} == {
        "uncertainty/a": 0.0,
        "uncertainty/b": 0.25,
    }
    assert penalties["uncertainty/b"].present is True
    varying = BalancedTerms(balancing.Uncertainty(initial=0.5), layout, strategy, {"b": None})
    weighed = varying.penalties({"b": beside["b"]}, lambda names: tf.constant([1.0, 0.0]))
    assert float(weighed["uncertainty/b"].value()) == 0.0
