"""The terms that a balancer weighs: which they are, their factors, and what it remembers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from losses import balancing
from losses.balancing.balancer import ValuesBalancer
from losses.objective.layout import Layout
from losses.objective.objective import Described
from trainer.balancing.balanced_terms import BalancedTerms, check_balancer

NAMES = ("regularization/kernel", "a", "add_loss/layer", "b", "uncertainty/a")
LAYOUT = Layout(NAMES, ((),) * 5, (None,) * 5, (False,) * 5)


class Memory(ValuesBalancer):
    """Its state is the last values and the step they were of."""

    def initial_state(self, terms):
        return {"values": tf.zeros([terms]), "at": tf.constant(-1, tf.int64)}

    def weights(self, values, state=None, *, step=0):
        return 10 * values

    def next_state(self, values, state, *, step=0):
        return {"values": values, "at": step}


def terms_of(balancer, layout=LAYOUT):
    return BalancedTerms(balancer, layout, tf.distribute.get_strategy())


def step_of(number):
    return tf.constant(number, tf.int64)


def test_the_models_own_terms_and_those_of_weights_are_not_balanced():
    terms = terms_of(Memory())
    assert terms.names == ("a", "b")
    assert terms.positions.tolist() == [1, 3]
    assert terms.factors_now().numpy().tolist() == [1, 1]


@pytest.mark.parametrize(
    "patterns, names",
    [
        ("b", ("b",)),
        (["b", "a"], ("a", "b")),  # in the ledger's order
        (["regularization/*", "a"], ("regularization/kernel", "a")),
    ],
)
def test_terms_that_are_named_are_balanced_and_no_others(patterns, names):
    assert terms_of(Memory(terms=patterns)).names == names


def test_a_pattern_that_names_no_term_is_an_error_that_lists_them():
    with pytest.raises(ValueError, match="terms= names 'c'; the terms are 'regularization/kernel'"):
        terms_of(Memory(terms=["a", "c"]))


def test_where_there_is_nothing_to_balance_it_is_an_error():
    layout = Layout(("regularization/kernel",), ((),), (None,), (False,))
    with pytest.raises(ValueError, match=r"has no term to balance\. Name some by terms="):
        terms_of(Memory(), layout)


def test_values_are_weighted_and_of_the_balanced_terms_alone():
    weights, raw = tf.constant([9.0, 2.0, 9.0, 3.0, 9.0]), tf.constant([7.0, 5.0, 7.0, 4.0, 7.0])
    assert terms_of(Memory()).values(weights, raw).numpy().tolist() == [10, 12]


def test_factors_multiply_the_weights_of_the_balanced_terms_alone():
    weights = tf.constant([9.0, 2.0, 9.0, 3.0, 9.0])
    product = terms_of(Memory()).times(weights, tf.constant([0.5, 2.0], tf.float64))
    assert product.numpy().tolist() == [9, 1, 9, 6, 9]


def test_another_layouts_weights_are_multiplied_by_name():
    terms = terms_of(Memory())
    terms.factors.assign([0.5, 2.0])
    other = Layout(("b", "new"), ((), ()), (None, None), (False, False))
    assert terms.times_in(other, tf.constant([10.0, 10.0])).numpy().tolist() == [20, 10]


def test_a_balancer_is_due_on_every_so_many_steps():
    every = terms_of(Memory(every=3))
    assert [bool(every.due(step_of(n))) for n in range(5)] == [True, False, False, True, False]
    every.factors.assign([5.0, 6.0])
    fresh = tf.constant([1.0, 2.0])
    assert every.when_due(step_of(3), lambda: fresh).numpy().tolist() == [1, 2]
    assert every.when_due(step_of(4), lambda: fresh).numpy().tolist() == [5, 6]


def test_factors_come_from_the_statistic_in_single_precision():
    terms = terms_of(balancing.MGDA())
    factors = terms.factors_of(tf.constant([[4.0, 0], [0, 1]], tf.float64), None, step_of(0))
    assert factors.dtype == tf.float32
    np.testing.assert_allclose(factors, [0.2, 0.8], rtol=1e-6)


def remembered(terms, values, factors, step=0):
    terms.remember_values(tf.constant(values), tf.constant(factors), step_of(step))
    state = terms.state_now()
    seen = state["values"].numpy().tolist(), int(state["at"])
    return seen, terms.factors_now().numpy().tolist()


def test_a_step_takes_the_state_further():
    assert remembered(terms_of(Memory()), [3.0, 4.0], [5.0, 6.0], 7) == (([3, 4], 7), [5, 6])


@pytest.mark.parametrize(
    "values, factors", [([np.nan, 4.0], [5.0, 6.0]), ([3.0, 4.0], [np.inf, 6.0])]
)
def test_a_step_that_is_not_finite_is_forgotten(values, factors):
    assert remembered(terms_of(Memory()), values, factors) == (([0, 0], -1), [1, 1])


def test_a_step_that_is_not_due_is_not_remembered():
    assert remembered(terms_of(Memory(every=2)), [3.0, 4.0], [5.0, 6.0], 1) == (
        ([0, 0], -1),
        [1, 1],
    )


def test_gradnorm_remembers_the_first_values_of_its_terms():
    terms = terms_of(balancing.GradNorm())
    inner = tf.eye(2, dtype=tf.float64)
    for values in ([3.0, 4.0], [1.0, 1.0]):
        terms.remember_gradients(inner, tf.constant(values), tf.constant([1.0, 1.0]), step_of(0))
    assert terms.state_now()["first"].numpy().tolist() == [3, 4]


def test_a_checkpoint_holds_the_state_and_the_factors():
    terms = terms_of(Memory())
    assert [v.name.split(":")[0] for v in terms.variables] == ["values", "at", "factors"]


def test_trained_state_is_among_the_loss_parameters_and_changes_by_its_optimizer_alone():
    terms = terms_of(balancing.Uncertainty(initial=0.5))
    assert terms.state["log_variance"].trainable
    assert [v.name.split(":")[0] for v in terms.variables] == ["factors"]
    terms.remember_values(tf.constant([3.0, 4.0]), tf.constant([5.0, 6.0]), step_of(0))
    assert terms.state_now()["log_variance"].numpy().tolist() == [0.5, 0.5]
    assert terms.factors_now().numpy().tolist() == [5, 6]


def test_trained_weights_add_a_penalty_for_each_term():
    penalties = terms_of(balancing.Uncertainty(initial=0.5)).penalties({}, None)
    assert {name: float(p.value()) for name, p in penalties.items()} == {
        "uncertainty/a": 0.25,
        "uncertainty/b": 0.25,
    }
    assert terms_of(Memory()).penalties({}, None) == {}


def test_the_table_says_what_the_balancer_does_to_each_weight():
    def described(balancer):
        lines = [Described("a", "term", "1"), Described("b", "term", "2"), Described("c", "x", "3")]
        return {line.name: line.weight for line in terms_of(balancer).describe(lines)}

    assert described(balancing.MGDA()) == {"a": "MGDA", "b": "2 * MGDA", "c": "3"}
    assert described(balancing.GradDrop())["a"] == "GradDrop (effective)"
    assert described(balancing.UPGrad(every=20, at="features"))["a"] == (
        "UPGrad (every=20, at='features')"
    )
    at = [keras.Variable([1.0, 2.0], name="w"), "features/*"]
    assert described(balancing.MGDA(at=at))["a"] == "MGDA (at='w', 'features/*')"
    assert described(balancing.MGDA(terms="b")) == {
        "a": "1",
        "b": "2 * MGDA (of one term: nothing to balance)",
        "c": "3",
    }
    assert described(balancing.Uncertainty()) == {
        "a": "Uncertainty",
        "b": "2 * Uncertainty",
        "c": "3",
        "uncertainty/a": "1",
        "uncertainty/b": "1",
    }


def test_what_is_no_balancer_is_refused():
    check_balancer(None)
    check_balancer(balancing.MGDA())
    with pytest.raises(TypeError, match="balancer='MGDA': give an object of losses"):
        check_balancer("MGDA")
