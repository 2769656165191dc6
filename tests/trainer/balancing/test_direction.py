"""From the summed rows of two terms' gradients to one direction, by hand."""

import numpy as np
import tensorflow as tf

from losses import balancing
from losses.balancing.balancer import Balancer, JacobianBalancer
from losses.objective.layout import Layout
from trainer.balancing.balanced_terms import BalancedTerms
from trainer.balancing.direction import added_to, balanced_direction, dense, local, mirrored

LAYOUT = Layout(("a", "b"), ((), ()), (None, None), (False, False))
# two terms' gradients of a kernel [1, 2] and of a bias []: (-2, 0, 0) and (0, -1, 0)
ROWS = {"kernel": tf.constant([[[-2.0, 0.0]], [[0.0, -1.0]]]), "bias": tf.constant([0.0, 0.0])}
VALUES = tf.constant([1.0, 1.0])
STEP = tf.constant(0, tf.int64)


def direction_of(balancer, rows=None):
    terms = BalancedTerms(balancer, LAYOUT, tf.distribute.get_strategy())
    return balanced_direction(terms, rows or ROWS, VALUES, STEP)


def test_weights_of_the_gramian_give_the_weighted_sum_of_the_rows():
    direction = direction_of(balancing.MGDA())
    np.testing.assert_array_equal(direction.statistic, [[4, 0], [0, 1]])
    np.testing.assert_allclose(direction.factors, [0.2, 0.8], rtol=1e-6)
    np.testing.assert_allclose(direction.gradients["kernel"], [[-0.4, -0.8]], rtol=1e-6)
    assert float(direction.gradients["bias"]) == 0


class Widest(Balancer):
    """Weights by the largest entry of each gradient."""

    needs = "jacobian"

    def weights(self, jacobian, state=None, *, values=None, step=0):
        return tf.reduce_max(tf.abs(jacobian), axis=1)


def test_weights_of_the_whole_jacobian_give_the_weighted_sum_too():
    direction = direction_of(Widest())
    np.testing.assert_array_equal(direction.statistic, [[-2, 0, 0], [0, -1, 0]])
    np.testing.assert_array_equal(direction.factors, [2, 1])
    np.testing.assert_array_equal(direction.gradients["kernel"], [[-4, -1]])


class Largest(JacobianBalancer):
    """Of each coordinate the larger gradient, whoever's it is."""

    def direction(self, jacobian, state=None, *, values=None, step=0):
        first, second = tf.unstack(jacobian)
        return tf.where(tf.abs(first) > tf.abs(second), first, second)


def test_a_direction_of_the_jacobian_comes_back_in_the_variables_shapes():
    rows = {
        "kernel": tf.constant([[[1.0, 2.0]], [[3.0, 1.0]]]),
        "bias": tf.constant([4.0, -5.0], tf.float16),
    }
    direction = direction_of(Largest(), rows)
    np.testing.assert_array_equal(direction.statistic, [[1, 2, 4], [3, 1, -5]])
    np.testing.assert_array_equal(direction.gradients["kernel"], [[3, 2]])
    bias = direction.gradients["bias"]
    assert bias.shape == () and bias.dtype == tf.float16 and float(bias) == -5


def test_the_factors_of_such_a_direction_are_the_nearest_there_are():
    # (-2, -1, 0) is both rows together
    np.testing.assert_allclose(direction_of(Largest()).factors, [1, 1], rtol=1e-6)
    # of rows (3, 0) and (1, 1) the direction (3, 1) is 2/3 of the first and all of the second
    rows = {"w": tf.constant([[3.0, 0.0], [1.0, 1.0]])}
    np.testing.assert_allclose(direction_of(Largest(), rows).factors, [2 / 3, 1], rtol=1e-6)


def test_a_direction_is_added_to_what_is_there_under_the_loss_scales():
    gradients = {"w": tf.constant([5.0, 0.0]), "u": tf.constant(3.0)}
    direction = {"w": tf.constant([-0.5, -1.0]), "v": tf.constant(2.0)}
    whole = added_to(gradients, direction, {"w": tf.constant(8.0), "v": tf.constant(4.0)})
    np.testing.assert_array_equal(whole["w"], [5 - 4, -8])
    assert float(whole["u"]) == 3 and float(whole["v"]) == 8
    np.testing.assert_array_equal(gradients["w"], [5, 0])  # as it was


def test_a_direction_is_added_to_a_sparse_gradient():
    rows = tf.IndexedSlices(tf.constant([[1.0]]), tf.constant([2]), tf.constant([3, 1]))
    whole = added_to({"table": rows}, {"table": tf.ones([3, 1])}, {})
    np.testing.assert_array_equal(whole["table"], [[1], [1], [2]])


def test_a_dense_gradient_has_one_form():
    rows = tf.IndexedSlices(tf.constant([[1.0]]), tf.constant([2]), tf.constant([3, 1]))
    found = dense(tf.distribute.get_strategy(), {"table": rows, "bias": tf.constant(2.0)})
    np.testing.assert_array_equal(found["table"], [[0], [0], [1]])
    assert float(found["bias"]) == 2


def test_on_one_replica_a_gradient_stands_where_it_is_needed():
    gradients = {"w": tf.constant(1.0)}
    assert mirrored(tf.distribute.get_strategy(), {}, gradients) is gradients


def test_a_gradient_goes_to_every_device_of_its_variable(two_replicas):
    with two_replicas.scope():
        inside = tf.Variable([0.0, 0.0])
    outside = tf.Variable(0.0)

    @tf.function(autograph=False)
    def copies():
        gradients = {"inside": tf.constant([1.0, 2.0]), "outside": tf.constant(3.0)}
        found = mirrored(two_replicas, {"inside": inside, "outside": outside}, gradients)
        first = local(two_replicas, found)
        return two_replicas.experimental_local_results(found["inside"]), first

    on_devices, first = copies()
    assert [part.numpy().tolist() for part in on_devices] == [[1, 2], [1, 2]]
    assert first["inside"].numpy().tolist() == [1, 2] and float(first["outside"]) == 3
