"""PCGrad and GradVac: gradient surgery in drawn orders; GradDrop: signs drawn per coordinate."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from losses.balancing.graddrop import GradDrop
from losses.balancing.gradvac import GradVac
from losses.balancing.numerics.draws import draw_orders, draw_uniform
from losses.balancing.pcgrad import PCGrad


def project_in_order(jacobian, i, order):
    """Algorithm 1 of the paper for one task, on the gradients themselves."""
    own = jacobian[i].copy()
    for j in order:
        product = own @ jacobian[j]
        if product < 0:
            own -= product / (jacobian[j] @ jacobian[j]) * jacobian[j]
    return own


@pytest.mark.parametrize("terms", [3, 4])
@pytest.mark.parametrize("step", range(3))
def test_pcgrad_is_the_answer_of_one_order(terms, step):
    jacobian = np.random.RandomState(step).randn(terms, 5)
    jacobian[:, 0] = [3, -3, 3, -3][:terms]
    choices = [
        [project_in_order(jacobian, i, order)
         for order in itertools.permutations([j for j in range(terms) if j != i])]
        for i in range(terms)
    ]  # fmt: skip
    admissible = [sum(combination) for combination in itertools.product(*choices)]
    direction = PCGrad(seed=1).direction(tf.constant(jacobian), step=step).numpy()
    assert min(np.abs(direction - d).max() for d in admissible) < 1e-12


def test_pcgrad_of_two_terms_by_hand():
    # p_1 = (1, 0) + (-1, 2) / 5, p_2 = (-1, 2) + (1, 0)
    direction = PCGrad().direction(tf.constant([[1.0, 0.0], [-1.0, 2.0]]))
    np.testing.assert_allclose(direction, [0.8, 2.4], rtol=1e-6)


def test_every_order_is_drawn_about_equally_often():
    orders = [tuple(row) for step in range(300) for row in draw_orders(3, 5, step).numpy()]
    counts = [orders.count(order) for order in itertools.permutations(range(3))]
    assert sum(counts) == 900
    # 150 each; the standard deviation is 11.
    assert min(counts) > 100 and max(counts) < 200


def test_draws_depend_on_seed_and_step_alone_with_xla_and_without():
    compiled = tf.function(lambda step: draw_uniform([4], 3, step), jit_compile=True)
    plain = draw_uniform([4], 3, tf.constant(5, tf.int64)).numpy()
    np.testing.assert_array_equal(compiled(tf.constant(5, tf.int64)), plain)
    np.testing.assert_array_equal(draw_uniform([4], 3, 5), plain)
    assert not np.array_equal(draw_uniform([4], 3, 6), plain)
    assert not np.array_equal(draw_uniform([4], 4, 5), plain)
    assert plain.min() >= 0 and plain.max() < 1


@pytest.mark.parametrize("make", [PCGrad, GradVac])
def test_another_step_can_give_another_direction_and_the_same_step_the_same(make):
    jacobian = np.random.RandomState(0).randn(4, 3)
    jacobian[:, 0] = [3, -3, 3, -3]
    jacobian = tf.constant(jacobian)
    directions = [make(seed=2).direction(jacobian, step=s).numpy() for s in (0, 0, 1, 2, 3)]
    np.testing.assert_array_equal(directions[0], directions[1])
    assert any(not np.allclose(directions[0], d) for d in directions[2:])


def test_two_replicas_draw_what_one_draws(two_replicas):
    jacobian = np.random.RandomState(0).randn(4, 3)

    @tf.function
    def directions():
        return two_replicas.run(lambda: PCGrad(seed=2).direction(tf.constant(jacobian), step=9))

    first, second = two_replicas.experimental_local_results(directions())
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, PCGrad(seed=2).direction(tf.constant(jacobian), step=9))


def test_gradvac_at_the_start_is_pcgrad_in_the_same_order():
    gramian = tf.constant(np.cov(np.random.RandomState(4).randn(4, 3)))
    np.testing.assert_allclose(
        GradVac(seed=6).weights(gramian, step=2), PCGrad(seed=6).weights(gramian, step=2)
    )


def test_gradvac_turns_a_gradient_until_its_cosine_is_the_target():
    # Orthogonal unit gradients, target 0.6 for the first towards the second only:
    # p_1 = g_1 + 0.75 g_2, whose cosine with g_2 is 0.75 / 1.25.
    state = {"targets": tf.constant([[0.0, 0.6], [0.0, 0.0]], tf.float64)}
    weights = GradVac().weights(tf.eye(2), state)
    np.testing.assert_allclose(weights, [1.0, 1.75], rtol=1e-6)


def test_the_targets_of_gradvac_follow_the_cosines_at_the_rate_beta():
    balancer = GradVac(beta=0.25)
    gramian = tf.constant([[4.0, 1.0], [1.0, 1.0]])  # cosine 0.5
    state = balancer.initial_state(2)
    for expected in (0.125, 0.21875):
        state = balancer.next_state(gramian, state)
        np.testing.assert_allclose(state["targets"], [[0, expected], [expected, 0]])
    np.testing.assert_array_equal(balancer.reset(state)["targets"], np.zeros((2, 2)))


def test_gradvac_leaves_a_pair_with_a_zero_row_alone():
    balancer = GradVac()
    state = {"targets": tf.constant([[0.0, 0.5], [0.5, 0.0]], tf.float64)}
    gramian = tf.constant([[1.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(balancer.weights(gramian, state), [1, 1])
    np.testing.assert_allclose(balancer.next_state(gramian, state)["targets"], state["targets"])


def test_gradvac_stays_bounded_when_the_target_has_become_one():
    state = {"targets": tf.ones([2, 2], tf.float64)}
    weights = GradVac().weights(tf.constant([[1.0, -0.5], [-0.5, 1.0]]), state).numpy()
    assert np.isfinite(weights).all() and weights.max() < 2e3


def test_graddrop_keeps_gradients_of_one_sign_in_each_coordinate():
    jacobian = np.random.RandomState(0).randn(3, 200)
    direction = GradDrop(seed=1).direction(tf.constant(jacobian), step=4).numpy()
    ups, downs = np.maximum(jacobian, 0).sum(0), np.minimum(jacobian, 0).sum(0)
    up, down = np.isclose(direction, ups), np.isclose(direction, downs)
    assert (up | down).all() and up.any() and down.any()


def test_graddrop_keeps_a_sign_as_often_as_its_share_of_the_sum():
    # P = 3 / 4 in every coordinate.
    jacobian = tf.stack([tf.fill([20000], 3.0), tf.fill([20000], -1.0)])
    kept = np.mean(GradDrop().direction(jacobian).numpy() == 3.0)
    assert kept == pytest.approx(0.75, abs=0.015)  # five standard deviations


def test_graddrop_without_conflict_is_the_sum_and_one_term_its_gradient():
    jacobian = np.abs(np.random.RandomState(0).randn(3, 50)) * np.sign(np.arange(50) - 20)
    np.testing.assert_allclose(GradDrop().direction(tf.constant(jacobian)), jacobian.sum(0))
    np.testing.assert_array_equal(GradDrop().direction(tf.constant(jacobian[:1])), jacobian[0])


def test_a_full_leak_gives_the_sum():
    jacobian = np.random.RandomState(0).randn(2, 10)
    np.testing.assert_allclose(
        GradDrop(leak=[1.0, 1.0]).direction(tf.constant(jacobian)), jacobian.sum(0)
    )


def test_graddrop_is_the_same_under_xla_and_safe_on_zeros():
    jacobian = np.random.RandomState(0).randn(3, 7).astype(np.float32)
    jacobian[:, 3] = 0
    balancer = GradDrop(leak=[0.0, 0.5, 0.0], seed=3)
    plain = balancer.direction(tf.constant(jacobian), step=2).numpy()
    compiled = tf.function(lambda j, s: balancer.direction(j, step=s), jit_compile=True)
    np.testing.assert_allclose(compiled(tf.constant(jacobian), tf.constant(2)), plain, rtol=1e-6)
    assert plain[3] == 0 and plain.dtype == np.float32


@pytest.mark.parametrize("leak", [[0.5, 1.5], [0.5]])
def test_graddrop_refuses_a_leak_that_does_not_fit(leak):
    with pytest.raises(ValueError, match=r"leak"):
        GradDrop(leak=leak).direction(tf.zeros([2, 3]))


def test_graddrop_has_no_preference():
    with pytest.raises(ValueError, match="has no preference"):
        GradDrop(preference=[1.0])
