"""Weightings by the terms' gradients one by one, alone: of variables, after the sum over the
replicas; and of a layer's output, under the tape. The terms are those of `quadratics`.
"""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from losses import balancing
from losses.balancing.balancer import GramianBalancer
from tests.trainer.balancing.quadratics import (
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
from trainer.balancing.weightings import JacobianWeighting, LastFactors, LayerWeighting
from trainer.step.program import Discovery

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
    finished = weighting.finish(result, {}, step_of(0), no_probe)
    np.testing.assert_allclose(finished.gradients["w"], [5 - 0.4, -0.8], rtol=1e-6)
    assert numbers({p: finished.gradients[p] for p in "uv"}) == {"u": 3, "v": 4}
    np.testing.assert_allclose(finished.weights, [0.2, 0.8, 1], rtol=1e-6)
    np.testing.assert_allclose(weighting.terms.factors_now(), [0.2, 0.8], rtol=1e-6)
    assert finished.jacobian == {}


def test_factors_are_those_of_the_gradients_under_given_weights():
    weighting = jacobian_weighting(balancing.MGDA())
    given = (2.0, 1.0, 1.0)
    _, rows, *_ = weighting.differentiate(backward_of(given), tf.constant(given), None, None)
    result = weighting.finish(result_of(given, jacobian=rows), {}, step_of(0), no_probe)
    # rows (-4, 0) and (0, -1): factors (1, 16) / 17
    np.testing.assert_allclose(result.weights, [2 / 17, 16 / 17, 1], rtol=1e-6)
    np.testing.assert_allclose(result.gradients["w"], [-4 / 17, -16 / 17], rtol=1e-6)


def test_rows_under_a_loss_scale_are_balanced_without_it():
    weighting = jacobian_weighting(balancing.MGDA())
    weights, scales = tf.constant(ONES), {"w": tf.constant(8.0)}
    gradients, rows, *_ = weighting.differentiate(backward_of(scale=8.0), weights, None, None)
    assert numbers(rows) == {"w": [[-16, 0], [0, -8]]}
    result = result_of(gradients=gradients, jacobian=rows)
    finished = weighting.finish(result, scales, step_of(0), no_probe)
    np.testing.assert_allclose(finished.gradients["w"], [8 * (5 - 0.4), 8 * -0.8], rtol=1e-6)
    np.testing.assert_allclose(weighting.terms.factors_now(), [0.2, 0.8], rtol=1e-6)


def test_where_no_variable_is_shared_nothing_is_balanced():
    weighting = jacobian_weighting(balancing.MGDA())
    result = result_of(gradients={"u": tf.constant(3.0)})
    finished = weighting.finish(result, {}, step_of(0), no_probe)
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
        return weighting.finish(result, {}, step_of(step), no_probe)

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
    finished = weighting.finish(result, {}, step_of(0), no_probe)
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
