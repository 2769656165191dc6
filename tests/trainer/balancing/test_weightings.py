"""Weightings that need no gradients term by term, alone: fixed weights, the last factors, factors
of values and of traces; and which weighting a balancer gets. The terms are those of `quadratics`.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from losses import balancing
from losses.balancing.balancer import ValuesBalancer
from losses.objective.layout import Layout
from losses.objective.ratio import Ratio
from tests.trainer.balancing.quadratics import (
    LAYOUT,
    ONES,
    RAW,
    STRATEGY,
    backward_of,
    balanced,
    no_probe,
    numbers,
    result_of,
    step_of,
)
from trainer.balancing.weightings import (
    JacobianWeighting,
    LastFactors,
    LayerWeighting,
    TraceWeighting,
    ValueWeighting,
    choose_weighting,
)
from trainer.step.program import Discovery
from trainer.step.weighting import FixedWeighting

WHOLE = {"w": [3.0, -1.0], "u": 3.0, "v": 4.0}  # of a + b + c


# ---- no balancing ----


def test_fixed_weights_stay_and_all_terms_are_differentiated_together():
    weighting = FixedWeighting()
    weights, decided = weighting.before(tf.constant(ONES), tf.constant(RAW), step_of(0))
    assert weights.numpy().tolist() == [1, 1, 1] and decided is None
    gradients, rows, weights, decided = weighting.differentiate(backward_of(), weights, None, None)
    assert numbers(gradients) == WHOLE and rows == {} and decided is None
    assert weighting.otherwise is None and weighting.penalties({}, None) == {}
    assert weighting.evaluation_weights(LAYOUT, weights) is weights
    result = result_of()
    assert weighting.finish(result, {}, step_of(0), no_probe) is result


# ---- the last factors ----


def test_the_last_factors_multiply_the_given_weights():
    terms = balanced(balancing.MGDA())
    terms.factors.assign([0.5, 2.0])
    weighting = LastFactors(terms)
    weights, decided = weighting.before(tf.constant([2.0, 3.0, 4.0]), None, step_of(0))
    assert weights.numpy().tolist() == [1, 6, 4] and decided is None
    gradients, rows, weights, _ = weighting.differentiate(backward_of(weights), weights, None, None)
    # 1 (-2, 0) + 6 (0, -1) + 4 (5, 0)
    assert numbers(gradients) == {"w": [18, -6], "u": 3, "v": 24} and rows == {}


def test_an_evaluation_takes_the_last_factors_of_the_terms_it_has():
    terms = balanced(balancing.MGDA())
    terms.factors.assign([0.5, 2.0])
    other = Layout(("b", "d"), ((), ()), (None, None), (False, False))
    weights = LastFactors(terms).evaluation_weights(other, tf.constant([10.0, 20.0]))
    assert weights.numpy().tolist() == [20, 20]


# ---- by values ----


class Proportional(ValuesBalancer):
    """Weighs each term by its value, and adds the values up."""

    def initial_state(self, terms):
        return {"seen": tf.zeros([terms])}

    def weights(self, values, state=None, *, step=0):
        return values

    def next_state(self, values, state, *, step=0):
        return {"seen": state["seen"] + values}


def test_factors_of_the_values_are_known_before_the_gradients():
    weighting = ValueWeighting(balanced(balancing.Fixed([2.0, 0.5])))
    weights, decided = weighting.before(tf.constant(ONES), tf.constant(RAW), step_of(0))
    assert weights.numpy().tolist() == [2, 0.5, 1]
    gradients, _, weights, _ = weighting.differentiate(backward_of(weights), weights, None, decided)
    assert numbers(gradients) == {"w": [-4 + 5, -0.5], "u": 6, "v": 2}
    weighting.finish(result_of(weights.numpy(), decided=decided), {}, step_of(0), no_probe)
    assert weighting.terms.factors_now().numpy().tolist() == [2, 0.5]


def test_the_state_follows_from_the_values_under_the_given_weights():
    weighting = ValueWeighting(balanced(Proportional()))
    weights, decided = weighting.before(tf.constant([2.0, 1.0, 1.0]), tf.constant(RAW), step_of(0))
    assert weights.numpy().tolist() == [2 * 10, 4.5, 1]  # the values 10 and 4.5 are the factors
    weighting.finish(result_of(weights.numpy(), decided=decided), {}, step_of(0), no_probe)
    assert weighting.terms.state["seen"].numpy().tolist() == [10, 4.5]


def test_a_balancer_of_values_that_pauses_keeps_its_factors_and_state():
    weighting = ValueWeighting(balanced(Proportional(every=2)))
    weighting.terms.factors.assign([3.0, 7.0])
    weights, decided = weighting.before(tf.constant(ONES), tf.constant(RAW), step_of(1))
    assert weights.numpy().tolist() == [3, 7, 1]
    weighting.finish(result_of(weights.numpy(), decided=decided), {}, step_of(1), no_probe)
    assert weighting.terms.state["seen"].numpy().tolist() == [0, 0]


def test_a_factor_of_zero_is_remembered():
    weighting = ValueWeighting(balanced(balancing.Fixed([1.0, 0.0])))
    weights, decided = weighting.before(tf.constant(ONES), tf.constant(RAW), step_of(0))
    assert weights.numpy().tolist() == [1, 0, 1]
    weighting.finish(result_of(weights.numpy(), decided=decided), {}, step_of(0), no_probe)
    assert weighting.terms.factors_now().numpy().tolist() == [1, 0]


def test_trained_weights_bring_terms_of_their_own():
    weighting = ValueWeighting(balanced(balancing.Uncertainty(initial=0.5)))
    penalties = weighting.penalties({}, None)
    assert list(penalties) == ["uncertainty/a", "uncertainty/b"]
    assert all(isinstance(p, Ratio) and float(p.value()) == 0.25 for p in penalties.values())


# ---- by traces of residuals ----


def test_traces_of_this_step_weigh_the_steps_that_follow():
    weighting = TraceWeighting(balanced(balancing.NTK()), STRATEGY)
    weights, decided = weighting.before(tf.constant(ONES), None, step_of(0))
    assert weights.numpy().tolist() == [1, 1, 1] and decided is None
    rows = {"w": tf.constant([[1.0, 0.0], [1.0, 1.0]]), "u": tf.constant([0.0, 1.0])}
    result = result_of()
    assert weighting.finish(result, {}, step_of(0), lambda: rows) is result
    # traces 1 and 3, of sum 4
    np.testing.assert_allclose(weighting.terms.factors_now(), [4, 4 / 3], rtol=1e-6)
    weights, _ = weighting.before(tf.constant(ONES), None, step_of(1))
    np.testing.assert_allclose(weights, [4, 4 / 3, 1], rtol=1e-6)


def test_traces_are_measured_on_the_steps_that_are_due_alone():
    weighting = TraceWeighting(balanced(balancing.NTK(every=3)), STRATEGY)
    weighting.finish(result_of(), {}, step_of(1), no_probe)
    assert weighting.terms.factors_now().numpy().tolist() == [1, 1]


# ---- the choice ----


def make_model():
    inputs = keras.Input((2,))
    return keras.Model(inputs, keras.layers.Dense(1, name="trunk")(inputs))


@pytest.mark.parametrize(
    "balancer, kind, reads_values, jacobian",
    [
        (balancing.Fixed(), ValueWeighting, True, False),
        (balancing.DWA(), ValueWeighting, True, False),
        (balancing.NTK(), TraceWeighting, True, False),
        (balancing.UPGrad(), JacobianWeighting, True, True),
        (balancing.UPGrad(at="trunk/*"), JacobianWeighting, True, True),
        (balancing.GradDrop(), JacobianWeighting, True, True),
        (balancing.UPGrad(at="trunk"), LayerWeighting, True, True),
    ],
    ids=repr,
)
def test_the_weighting_is_chosen_by_what_the_balancer_needs(balancer, kind, reads_values, jacobian):
    chosen = choose_weighting(balanced(balancer), make_model(), STRATEGY, Discovery(), 1)
    assert type(chosen) is kind
    assert (chosen.reads_values, chosen.jacobian) == (reads_values, jacobian)


def test_a_layer_may_be_given_itself():
    model = make_model()
    balancer = balancing.UPGrad(at=model.layers[1])
    assert type(choose_weighting(balanced(balancer), model, STRATEGY, Discovery(), 1)) is (
        LayerWeighting
    )


def test_a_balancer_of_the_whole_jacobian_takes_no_layer():
    terms = balanced(balancing.GradDrop(at="trunk"))
    with pytest.raises(ValueError, match="needs gradients by variables: at= takes a pattern"):
        choose_weighting(terms, make_model(), STRATEGY, Discovery(), 1)
