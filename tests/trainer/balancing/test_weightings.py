"""Each way to weigh the terms, alone: two quadratic terms whose gradients fit on paper.

    a = |w - (2, 0)|^2 / 2 + 3 u      at w = 0, u = 1, v = 1:   a = 5    by w (-2, 0)   by u 3
    b = |w - (0, 1)|^2 / 2 + 4 v                                b = 4.5  by w (0, -1)   by v 4
    c = 5 w0, which no balancer here weighs                     c = 0    by w (5, 0)

MGDA's weights of the Gramian diag(4, 1) are (1, 4) / 5, and its direction is (-0.4, -0.8).
"""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from losses import balancing
from losses.balancing.balancer import GramianBalancer, ValuesBalancer
from losses.objective.layout import Layout
from losses.objective.ratio import Ratio
from trainer.balancing.balanced_terms import BalancedTerms
from trainer.balancing.weightings import (
    JacobianWeighting,
    LastFactors,
    LayerWeighting,
    TraceWeighting,
    ValueWeighting,
    choose_weighting,
)
from trainer.step.gradients import Backward, ObjectiveShare
from trainer.step.outputs import ReplicaResult
from trainer.step.program import Discovery
from trainer.step.trainable import TrainableVariables
from trainer.step.weighting import FixedWeighting

NAMES = ("a", "b", "c")
LAYOUT = Layout(NAMES, ((), (), ()), (None,) * 3, (False,) * 3)
ONES, RAW = (1.0, 1.0, 1.0), (5.0, 4.5, 0.0)
STRATEGY = tf.distribute.get_strategy()


def balanced(balancer):
    """The terms a and b under a balancer."""
    balancer.terms = ("a", "b")
    return BalancedTerms(balancer, LAYOUT, STRATEGY)


def step_of(number):
    return tf.constant(number, tf.int64)


def backward_of(weights=ONES, *, step=0, scale=None, counts=None, outputs=None):
    """The backward pass of the three terms under given weights.

    Args:
      scale: the loss scale.
      counts: [3], what each term of an accumulated step counts.
      outputs: w -> the output of a layer that a and b read instead of w.
    """
    values = {"w": [0.0, 0.0], "u": 1.0, "v": 1.0}
    variables = {name: losses.Parameter(name, value) for name, value in values.items()}
    with tf.GradientTape(persistent=True) as tape:
        w, u, v = (tf.convert_to_tensor(variable) for variable in variables.values())
        read = w if outputs is None else outputs(w)
        terms = [
            tf.reduce_sum(tf.square(read - [2.0, 0.0])) / 2 + 3 * u,
            tf.reduce_sum(tf.square(read - [0.0, 1.0])) / 2 + 4 * v,
            5 * w[0],
        ]
        parts = [weight * term for weight, term in zip(weights, terms, strict=True)]
        share = ObjectiveShare(
            LAYOUT,
            tf.stack(parts),
            tf.zeros([3]),
            None if scale is None else tf.constant(scale),
            None if counts is None else tf.constant(counts),
            tuple(parts),
        )
    return Backward(
        tape=tape,
        share=share,
        trainables=TrainableVariables(variables, {}, dict.fromkeys(variables, "model")),
        passes={((True, True, True), counts is not None): list(variables)},
        scales=None if scale is None else tf.constant([scale]),
        scale_index={"model": 0},
        tapped=() if outputs is None else (read,),
        step=step_of(step),
        sum_over_replicas=lambda tensor: tensor,
    )


def result_of(weights=ONES, raw=RAW, decided=None, gradients=None, jacobian=None):
    """What a step left after the sum over the replicas."""
    weights, raw = tf.constant(weights), tf.constant(raw)
    return ReplicaResult(gradients or {}, {}, None, raw, weights, jacobian or {}, decided)


def no_probe():
    raise AssertionError("no residual was asked for")


def numbers(gradients):
    return {path: np.asarray(value).tolist() for path, value in gradients.items()}


WHOLE = {"w": [3.0, -1.0], "u": 3.0, "v": 4.0}  # of a + b + c


# ---- no balancing ----


def test_fixed_weights_stay_and_all_terms_are_differentiated_together():
    weighting = FixedWeighting()
    weights, decided = weighting.before(tf.constant(ONES), tf.constant(RAW), step_of(0))
    assert weights.numpy().tolist() == [1, 1, 1] and decided is None
    gradients, rows, weights, decided = weighting.differentiate(backward_of(), weights, None, None)
    assert numbers(gradients) == WHOLE and rows == {} and decided is None
    assert weighting.otherwise is None and weighting.penalties() == {}
    assert weighting.evaluation_weights(LAYOUT, weights) is weights
    result = result_of()
    assert weighting.finish(result, None, step_of(0), no_probe) is result


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
    weighting.finish(result_of(weights.numpy(), decided=decided), None, step_of(0), no_probe)
    assert weighting.terms.factors_now().numpy().tolist() == [2, 0.5]


def test_the_state_follows_from_the_values_under_the_given_weights():
    weighting = ValueWeighting(balanced(Proportional()))
    weights, decided = weighting.before(tf.constant([2.0, 1.0, 1.0]), tf.constant(RAW), step_of(0))
    assert weights.numpy().tolist() == [2 * 10, 4.5, 1]  # the values 10 and 4.5 are the factors
    weighting.finish(result_of(weights.numpy(), decided=decided), None, step_of(0), no_probe)
    assert weighting.terms.state["seen"].numpy().tolist() == [10, 4.5]


def test_a_balancer_of_values_that_pauses_keeps_its_factors_and_state():
    weighting = ValueWeighting(balanced(Proportional(every=2)))
    weighting.terms.factors.assign([3.0, 7.0])
    weights, decided = weighting.before(tf.constant(ONES), tf.constant(RAW), step_of(1))
    assert weights.numpy().tolist() == [3, 7, 1]
    weighting.finish(result_of(weights.numpy(), decided=decided), None, step_of(1), no_probe)
    assert weighting.terms.state["seen"].numpy().tolist() == [0, 0]


def test_a_factor_of_zero_is_remembered():
    weighting = ValueWeighting(balanced(balancing.Fixed([1.0, 0.0])))
    weights, decided = weighting.before(tf.constant(ONES), tf.constant(RAW), step_of(0))
    assert weights.numpy().tolist() == [1, 0, 1]
    weighting.finish(result_of(weights.numpy(), decided=decided), None, step_of(0), no_probe)
    assert weighting.terms.factors_now().numpy().tolist() == [1, 0]


def test_trained_weights_bring_terms_of_their_own():
    weighting = ValueWeighting(balanced(balancing.Uncertainty(initial=0.5)))
    penalties = weighting.penalties()
    assert list(penalties) == ["uncertainty/a", "uncertainty/b"]
    assert all(isinstance(p, Ratio) and float(p.value()) == 0.25 for p in penalties.values())


# ---- by traces of residuals ----


def test_traces_of_this_step_weigh_the_steps_that_follow():
    weighting = TraceWeighting(balanced(balancing.NTK()), STRATEGY)
    weights, decided = weighting.before(tf.constant(ONES), None, step_of(0))
    assert weights.numpy().tolist() == [1, 1, 1] and decided is None
    rows = {"w": tf.constant([[1.0, 0.0], [1.0, 1.0]]), "u": tf.constant([0.0, 1.0])}
    result = result_of()
    assert weighting.finish(result, None, step_of(0), lambda: rows) is result
    # traces 1 and 3, of sum 4
    np.testing.assert_allclose(weighting.terms.factors_now(), [4, 4 / 3], rtol=1e-6)
    weights, _ = weighting.before(tf.constant(ONES), None, step_of(1))
    np.testing.assert_allclose(weights, [4, 4 / 3, 1], rtol=1e-6)


def test_traces_are_measured_on_the_steps_that_are_due_alone():
    weighting = TraceWeighting(balanced(balancing.NTK(every=3)), STRATEGY)
    weighting.finish(result_of(), None, step_of(1), no_probe)
    assert weighting.terms.factors_now().numpy().tolist() == [1, 1]


# ---- by gradients of variables ----


def jacobian_weighting(balancer, accumulation=1):
    return JacobianWeighting(balanced(balancer), STRATEGY, Discovery(), accumulation)


def test_the_balanced_terms_of_shared_variables_are_differentiated_one_by_one():
    weighting = jacobian_weighting(balancing.MGDA())
    gradients, rows, weights, decided = weighting.differentiate(
        backward_of(), tf.constant(ONES), None, None
    )
    assert numbers(rows) == {"w": [[-2, 0], [0, -1]]}
    # of w what c gives; u and v are reached by one term each
    assert numbers(gradients) == {"w": [5, 0], "u": 3, "v": 4}
    assert weights.numpy().tolist() == [1, 1, 1] and decided is None


def test_the_direction_of_the_summed_rows_takes_their_place():
    weighting = jacobian_weighting(balancing.MGDA())
    backward, weights = backward_of(), tf.constant(ONES)
    gradients, rows, *_ = weighting.differentiate(backward, weights, None, None)
    result = result_of(gradients=gradients, jacobian=rows)
    finished = weighting.finish(result, None, step_of(0), no_probe)
    np.testing.assert_allclose(finished.gradients["w"], [5 - 0.4, -0.8], rtol=1e-6)
    assert numbers({p: finished.gradients[p] for p in "uv"}) == {"u": 3, "v": 4}
    np.testing.assert_allclose(finished.weights, [0.2, 0.8, 1], rtol=1e-6)
    np.testing.assert_allclose(weighting.terms.factors_now(), [0.2, 0.8], rtol=1e-6)
    assert finished.jacobian == {}


def test_factors_are_those_of_the_gradients_under_given_weights():
    weighting = jacobian_weighting(balancing.MGDA())
    given = (2.0, 1.0, 1.0)
    _, rows, *_ = weighting.differentiate(backward_of(given), tf.constant(given), None, None)
    result = weighting.finish(result_of(given, jacobian=rows), None, step_of(0), no_probe)
    # rows (-4, 0) and (0, -1): factors (1, 16) / 17
    np.testing.assert_allclose(result.weights, [2 / 17, 16 / 17, 1], rtol=1e-6)
    np.testing.assert_allclose(result.gradients["w"], [-4 / 17, -16 / 17], rtol=1e-6)


def test_rows_under_a_loss_scale_are_balanced_without_it():
    weighting = jacobian_weighting(balancing.MGDA())
    weights, scales = tf.constant(ONES), tf.constant([8.0])
    gradients, rows, *_ = weighting.differentiate(backward_of(scale=8.0), weights, None, None)
    assert numbers(rows) == {"w": [[-16, 0], [0, -8]]}
    result = result_of(gradients=gradients, jacobian=rows)
    finished = weighting.finish(result, scales, step_of(0), no_probe)
    np.testing.assert_allclose(finished.gradients["w"], [8 * (5 - 0.4), 8 * -0.8], rtol=1e-6)
    np.testing.assert_allclose(weighting.terms.factors_now(), [0.2, 0.8], rtol=1e-6)


def test_where_no_variable_is_shared_nothing_is_balanced():
    weighting = jacobian_weighting(balancing.MGDA())
    result = result_of(gradients={"u": tf.constant(3.0)})
    finished = weighting.finish(result, None, step_of(0), no_probe)
    assert numbers(finished.gradients) == {"u": 3}
    assert finished.weights.numpy().tolist() == [1, 1, 1]


def test_the_steps_between_two_balancings_take_the_last_factors():
    weighting = jacobian_weighting(balancing.MGDA(every=3))
    assert type(weighting.otherwise) is LastFactors
    assert [bool(weighting.due(step_of(n))) for n in range(4)] == [True, False, False, True]
    assert jacobian_weighting(balancing.MGDA()).otherwise is None
    # accumulated rows need those of every step
    assert jacobian_weighting(balancing.MGDA(every=3), accumulation=2).otherwise is None


def test_a_pass_that_is_looked_at_alone_takes_no_rows():
    weighting = jacobian_weighting(balancing.MGDA())
    alone = weighting.in_one_pass
    assert type(alone) is LastFactors and not alone.jacobian and weighting.jacobian


def test_accumulated_rows_are_balanced_at_the_last_of_their_steps():
    weighting = jacobian_weighting(balancing.MGDA(), accumulation=2)
    made = weighting.make_accumulated({"w": tf.TensorSpec([2, 2], tf.float32)})
    assert numbers(made) == {"w": [[0, 0], [0, 0]]} and made is weighting.accumulated

    def finish(rows, step):
        result = result_of(gradients={"w": tf.constant([5.0, 0.0])}, jacobian={"w": rows})
        return weighting.finish(result, None, step_of(step), no_probe)

    first = finish(tf.constant([[-4.0, 0.0], [0.0, 0.0]]), 0)
    assert numbers(first.gradients) == {"w": [5, 0]}  # nothing of the rows yet
    assert first.weights.numpy().tolist() == [1, 1, 1]
    assert numbers(weighting.accumulated) == {"w": [[-2, 0], [0, 0]]}
    # with these the means are (-2, 0) and (0, -1); an optimizer takes the mean of two steps
    last = finish(tf.constant([[0.0, 0.0], [0.0, -2.0]]), 1)
    np.testing.assert_allclose(last.gradients["w"], [5 - 2 * 0.4, -2 * 0.8], rtol=1e-6)
    np.testing.assert_allclose(last.weights, [0.2, 0.8, 1], rtol=1e-6)
    assert numbers(weighting.accumulated) == {"w": [[0, 0], [0, 0]]}


def test_rows_of_accumulated_steps_count_each_term_by_its_share():
    weighting = jacobian_weighting(balancing.MGDA(), accumulation=2)
    backward = backward_of(counts=[0.5, 2.0, 1.0])
    gradients, rows, *_ = weighting.differentiate(backward, tf.constant(ONES), None, None)
    assert numbers(rows) == {"w": [[-1, 0], [0, -2]]}
    assert numbers(gradients) == {"w": [5, 0], "u": 1.5, "v": 8}


def test_without_accumulation_no_rows_are_kept():
    spec = {"w": tf.TensorSpec([2, 2], tf.float32)}
    assert jacobian_weighting(balancing.MGDA()).make_accumulated(spec) == {}


# ---- by gradients of a layer's output ----


def layer_weighting(balancer, accumulation=1):
    layer = keras.layers.Dense(2, name="trunk")
    return LayerWeighting(balanced(balancer), STRATEGY, Discovery(), accumulation, layer)


def doubled(w):
    """The output h = 2 w: the terms' gradients by h are (-2, 0) and (0, -1), by w twice these."""
    return 2 * w


def test_gradients_of_the_output_weigh_what_comes_before_the_layer_alone():
    weighting = layer_weighting(balancing.MGDA())
    gradients, rows, weights, decided = weighting.differentiate(
        backward_of(outputs=doubled), tf.constant(ONES), tf.constant(RAW), None
    )
    np.testing.assert_allclose(gradients["w"], [0.2 * -4 + 5, 0.8 * -2], rtol=1e-6)
    assert numbers({p: gradients[p] for p in "uv"}) == {"u": 3, "v": 4}  # behind the layer
    assert rows == {}
    np.testing.assert_allclose(weights, [0.2, 0.8, 1], rtol=1e-6)
    factors, inner = decided[:2]
    np.testing.assert_allclose(factors, [0.2, 0.8], rtol=1e-6)
    np.testing.assert_allclose(inner, [[4, 0], [0, 1]], rtol=1e-6)


def test_the_replicas_gramians_add_up():
    weighting = layer_weighting(balancing.MGDA())
    backward = dataclasses.replace(
        backward_of(outputs=doubled),
        sum_over_replicas=lambda inner: tf.add(inner, [[12.0, 0.0], [0.0, 0.0]]),
    )
    *_, weights, decided = weighting.differentiate(
        backward, tf.constant(ONES), tf.constant(RAW), None
    )
    np.testing.assert_allclose(decided[1], [[16, 0], [0, 1]], rtol=1e-6)
    np.testing.assert_allclose(weights, [1 / 17, 16 / 17, 1], rtol=1e-6)


class Values(GramianBalancer):
    """Gives the factors 2 and 3, and adds up the values it is told."""

    def initial_state(self, terms):
        return {"seen": tf.zeros([terms])}

    def weights(self, gramian, state=None, *, values=None, step=0):
        return tf.constant([2.0, 3.0])

    def next_state(self, gramian, state, *, values=None, step=0):
        return {"seen": state["seen"] + values}


@pytest.mark.parametrize("at_layer", [True, False], ids=["at a layer", "at variables"])
def test_the_state_of_gradients_follows_from_the_values_under_the_given_weights(at_layer):
    make = layer_weighting if at_layer else jacobian_weighting
    weighting, given = make(Values()), (10.0, 1.0, 1.0)
    backward = backward_of(given, outputs=doubled if at_layer else None)
    gradients, rows, weights, decided = weighting.differentiate(
        backward, tf.constant(given), tf.constant(RAW), None
    )
    result = result_of(weights.numpy(), decided=decided, gradients=gradients, jacobian=rows)
    finished = weighting.finish(result, None, step_of(0), no_probe)
    assert finished.weights.numpy().tolist() == [20, 3, 1]
    assert weighting.terms.state["seen"].numpy().tolist() == [10 * 5, 4.5]
    assert weighting.terms.factors_now().numpy().tolist() == [2, 3]


def test_between_two_balancings_at_a_layer_the_last_factors_count():
    weighting = layer_weighting(balancing.MGDA(every=2), accumulation=2)
    weighting.terms.factors.assign([3.0, 7.0])
    backward = backward_of(step=1, outputs=doubled)
    gradients, _, weights, _ = weighting.differentiate(
        backward, tf.constant(ONES), tf.constant(RAW), None
    )
    assert numbers(gradients)["w"] == [3 * -4 + 5, 7 * -2]
    assert weights.numpy().tolist() == [3, 7, 1]


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
