"""The share of the total by hand, its gradients by passes of the tape, and those of a line."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from losses.objective.layout import Layout
from trainer.step.gradients import Backward, ObjectiveShare, times
from trainer.step.replica import train_replica
from trainer.step.trainable import TrainableVariables

# term a has one sum, term b two
LAYOUT = Layout(("a", "b"), ((), (2,)), (None, tf.reduce_max), (False, False))


def share(parts=(), **fields):
    """Numerator parts 1 of a, 2 + 4 of b; weight parts 10 and 20."""
    numerators, weights = tf.constant([1.0, 2.0, 4.0]), tf.constant([10.0, 20.0])
    return ObjectiveShare(LAYOUT, numerators, weights, parts=parts, **fields)


BY_TERM = (tf.constant(1.0), tf.constant(6.0))


def test_the_total_is_the_sum_of_all_parts():
    assert float(share().total()) == 1 + 2 + 4 + 10 + 20
    assert float(share().total((True, True))) == 37


@pytest.mark.parametrize("parts", [(), BY_TERM], ids=["together", "one by one"])
def test_the_total_of_some_terms_leaves_the_others_out(parts):
    assert float(share(parts).total((True, False))) == 1 + 10
    assert float(share(parts).total((False, True))) == 2 + 4 + 20


def test_a_factor_multiplies_all_sums_of_its_term():
    doubled = share(BY_TERM).times(tf.constant([2.0, 3.0]))
    np.testing.assert_array_equal(doubled.numerator_part, [2, 6, 12])
    np.testing.assert_array_equal(doubled.weight_part, [20, 60])
    np.testing.assert_array_equal(tf.stack(doubled.parts), [2, 18])
    assert float(doubled.total()) == 2 * 11 + 3 * 26


def test_the_loss_scale_multiplies_the_total_and_outlasts_a_factor():
    scaled = share(loss_scale=tf.constant(8.0))
    assert float(scaled.total()) == 8 * 37
    assert float(scaled.times(tf.constant([1.0, 0.0])).total()) == 8 * 11
    assert float(scaled.total((False, True))) == 8 * 26


def test_an_accumulated_step_counts_each_term_by_its_share():
    counted = share(BY_TERM, accumulation=tf.constant([0.5, 2.0]))
    assert float(counted.total()) == 37  # of an optimizer that does not accumulate
    assert float(counted.accumulated().total()) == 0.5 * 11 + 2 * 26
    plain = share()
    assert plain.accumulated() is plain


# a = w^2 + 3 u and b = w v, at w = 3, u = 1, v = 5; weights 2 and 3
#     by w: 2 * 2w = 12 of a, 3 v = 15 of b;   by u: 6 of a;   by v: 3 w = 9 of b
NAMES = Layout(("a", "b"), ((), ()), (None, None), (False, False))
ALL = (True, True)


def backward(passes=None, owners=None, *, maximize=(), scales=None, accumulation=None, parts=True):
    values = {"w": 3.0, "u": 1.0, "v": 5.0, "idle": 0.0}
    variables = {n: losses.Parameter(n, v, maximize=n in maximize) for n, v in values.items()}
    with tf.GradientTape(persistent=True) as tape:
        w, u, v, _ = (tf.convert_to_tensor(variable) for variable in variables.values())
        by_term = [2 * (w**2 + 3 * u), 3 * w * v]
        whole = ObjectiveShare(
            NAMES,
            tf.stack(by_term),
            tf.zeros([2]),
            None if scales is None else tf.constant(scales[0]),
            None if accumulation is None else tf.constant(accumulation),
            tuple(by_term) if parts else (),
        )
    return Backward(
        tape,
        whole,
        TrainableVariables(variables, owners={n: "model" for n in variables} | (owners or {})),
        passes or {(ALL, False): list(variables)},
        None if scales is None else tf.constant(scales),
        {"model": 0, "other": 1},
        (),
        tf.constant(0, tf.int64),
        lambda tensor: tensor,
    )


def numbers(gradients):
    return {path: float(gradient) for path, gradient in gradients.items()}


def test_gradients_are_those_of_the_weighted_sum_and_what_no_term_reaches_has_none():
    assert numbers(backward().gradients()) == {"w": 27, "u": 6, "v": 9}


def test_only_the_wanted_paths_and_terms_are_differentiated():
    assert numbers(backward().gradients(only={"w", "v"})) == {"w": 27, "v": 9}
    assert numbers(backward().gradients(terms=[True, False])) == {"w": 12, "u": 6}
    assert numbers(backward().gradients(only={"w"}, terms=[False, True])) == {"w": 15}
    assert backward().gradients(terms=[False, False]) == {}


def test_another_share_can_be_differentiated():
    whole = backward()
    with whole.tape:
        weighed = whole.share.times(tf.constant([10.0, 0.0]))
    assert numbers(whole.gradients(weighed, only={"w"})) == {"w": 120}


@pytest.mark.parametrize("parts", [True, False], ids=["one by one", "together"])
def test_each_group_takes_the_terms_of_its_mask(parts):
    passes = {((True, False), False): ["w"], ((False, True), False): ["v"]}
    assert numbers(backward(passes, parts=parts).gradients()) == {"w": 12, "v": 9}


def test_terms_apart_tell_what_a_masked_term_does_not_reach():
    passes = {((False, True), False): ["w", "u"]}
    assert numbers(backward(passes).gradients()) == {"w": 15}  # b does not reach u


def test_what_is_to_grow_has_a_negative_gradient():
    found = numbers(backward(maximize={"v"}).gradients())
    assert found == {"w": 27, "u": 6, "v": -9}


def test_each_optimizer_takes_gradients_under_its_own_loss_scale():
    found = numbers(backward(owners={"v": "other"}, scales=[8.0, 2.0]).gradients())
    assert found == {"w": 8 * 27, "u": 8 * 6, "v": 2 * 9}


def test_a_group_that_accumulates_takes_what_the_step_counts():
    passes = {(ALL, True): ["w"], (ALL, False): ["v"]}
    found = numbers(backward(passes, accumulation=[0.5, 2.0]).gradients())
    assert found == {"w": 0.5 * 12 + 2 * 15, "v": 9}


def test_the_sources_are_the_variables_that_train():
    whole = backward(owners={})
    assert list(whole.sources) == ["w", "u", "v", "idle"]
    assert all(isinstance(v, tf.Variable) for v in whole.sources.values())


def test_a_sparse_gradient_stays_sparse_when_it_is_multiplied():
    rows = tf.IndexedSlices(tf.constant([[1.0], [2.0]]), tf.constant([3, 0]), tf.constant([4, 1]))
    product = times(rows, -2.0)
    np.testing.assert_array_equal(product.values, [[-2], [-4]])
    np.testing.assert_array_equal(product.indices, [3, 0])
    half = times(tf.constant([4.0], tf.float16), tf.constant(0.5))
    assert half.dtype == tf.float16 and float(half[0]) == 2


def test_the_gradient_of_a_line_is_the_one_on_paper(make_program, batch):
    program = make_program()
    result = train_replica(program, program.weighting, batch, None, None, None, None)
    assert sorted(result.gradients) == ["line/bias", "line/kernel"]
    np.testing.assert_allclose(result.gradients["line/kernel"], [[9], [2.5]], rtol=1e-6)
    np.testing.assert_allclose(result.gradients["line/bias"], [8], rtol=1e-6)
    np.testing.assert_allclose(result.raw, [3.75, 2])
    np.testing.assert_array_equal(result.weights, [2, 3])
    np.testing.assert_array_equal(result.sums, [15, 8, 4, 4, 4, 1])


def test_under_a_loss_scale_and_accumulation_they_are_multiplied(make_program, batch):
    program = make_program(optimizer=keras.optimizers.SGD(gradient_accumulation_steps=2))
    scales = tf.constant([4.0])
    means = tf.constant([8.0, 2.0])  # this step has 4 examples: half of a mean step, and twice one
    result = train_replica(program, program.weighting, batch, None, scales, None, means)
    by_hand = 4 * (0.5 * np.array([6.0, 1.0, 5.0]) + 2 * np.array([3.0, 1.5, 3.0]))
    np.testing.assert_allclose(result.gradients["line/kernel"][:, 0], by_hand[:2], rtol=1e-6)
    np.testing.assert_allclose(result.gradients["line/bias"], by_hand[2:], rtol=1e-6)


@pytest.mark.parametrize("examples", [4, 3], ids=["equal shares", "unequal shares"])
def test_the_shares_of_two_replicas_add_up_to_the_gradient_of_one(
    examples, make_program, batch, two_replicas
):
    batch = tuple(part[:examples] for part in batch)
    one, two = make_program(), make_program(two_replicas)
    alone = train_replica(one, one.weighting, batch, None, None, None, None)

    @tf.function(autograph=False)
    def both():
        def replica(batch):
            part, present = two.placement.shard(batch)
            return train_replica(two, two.weighting, part, present, None, None, None)

        return two_replicas.run(replica, args=(batch,))

    result = both()
    for path, whole in alone.gradients.items():
        shares = two_replicas.experimental_local_results(result.gradients[path])
        np.testing.assert_allclose(tf.add_n(shares), whole, rtol=1e-6, err_msg=path)
    sums = two_replicas.experimental_local_results(result.sums)
    np.testing.assert_array_equal(tf.add_n(sums)[:5], alone.sums[:5])


def test_a_gradient_that_overflows_under_another_scale_is_whole_under_its_own():
    found = numbers(backward(owners={"v": "other"}, scales=[3e38, 2.0]).gradients())
    assert np.isinf(found["w"]) and found["v"] == 2 * 9
