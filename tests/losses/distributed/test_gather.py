"""The examples of all replicas: one after another, and the gradient back to their owner."""

import numpy as np
import pytest
import tensorflow as tf

from losses.distributed.gather import gather_examples, own_examples

SPLITS = [(3, 3), (5, 1), (1, 5), (6, 0), (0, 6)]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 4)).astype("float32")
KERNEL = RNG.normal(size=(4, 3)).astype("float32")
WEIGHTS = RNG.normal(size=(6, 6)).astype("float32")  # of every pair, so that the order counts


def shards(strategy, split):
    parts = [X[: split[0]], X[split[0] :]]
    return strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(parts[context.replica_id_in_sync_group])
    )


def pair_sum(embeddings, everyone, offset):
    """A sum over this replica's anchors of a function of anchor and key."""
    own = tf.gather(WEIGHTS, tf.range(tf.shape(embeddings)[0]) + offset)
    return tf.reduce_sum(own * tf.sin(tf.matmul(embeddings, everyone, transpose_b=True)))


def test_outside_replicas_it_gives_the_values_themselves():
    values = {"a": tf.constant([1.0, 2.0]), "b": tf.constant([[1], [2]])}
    gathered, offset = gather_examples(values)
    assert gathered["a"] is values["a"] and gathered["b"] is values["b"] and int(offset) == 0


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_values_come_in_the_replicas_order_with_where_ones_own_begin(two_replicas, split):
    @tf.function
    def gather(x):
        def replica(x):
            (everyone, firsts), offset = gather_examples((x, x[:, 0] > 0))
            return everyone, firsts, offset

        return two_replicas.run(replica, args=(x,))

    everyone, firsts, offset = gather(shards(two_replicas, split))
    for found in two_replicas.experimental_local_results(everyone):
        np.testing.assert_array_equal(found, X)
    for found in two_replicas.experimental_local_results(firsts):
        np.testing.assert_array_equal(found, X[:, 0] > 0)
    assert [int(o) for o in two_replicas.experimental_local_results(offset)] == [0, split[0]]


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_the_replicas_gradients_add_up_to_that_of_one(two_replicas, split):
    kernel = tf.constant(KERNEL)
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        embeddings = tf.tanh(X @ kernel)
        value = pair_sum(embeddings, *gather_examples(embeddings))
    expected = tape.gradient(value, kernel)
    with two_replicas.scope():
        variable = tf.Variable(KERNEL)

    @tf.function
    def step(x):
        def replica(x):
            with tf.GradientTape() as tape:
                embeddings = tf.tanh(tf.matmul(x, variable))
                value = pair_sum(embeddings, *gather_examples(embeddings))
            return value, tape.gradient(value, variable)

        return two_replicas.run(replica, args=(x,))

    values, gradients = map(
        two_replicas.experimental_local_results, step(shards(two_replicas, split))
    )
    np.testing.assert_allclose(sum(v.numpy() for v in values), value, rtol=1e-6)
    np.testing.assert_allclose(sum(g.numpy() for g in gradients), expected, rtol=1e-5, atol=1e-6)


def test_the_rounds_of_a_loop_may_differ_in_size(two_replicas):
    @tf.function
    def loop(sizes):
        totals = tf.zeros([0])
        for size in sizes:
            tf.autograph.experimental.set_loop_options(
                shape_invariants=[(totals, tf.TensorShape([None]))]
            )

            def replica(size=size):
                first = tf.distribute.get_replica_context().replica_id_in_sync_group
                own = tf.cast(tf.range(size) + 10 * first, tf.float32)
                return tf.reduce_sum(gather_examples(own)[0])

            total = two_replicas.experimental_local_results(two_replicas.run(replica))
            totals = tf.concat([totals, tf.stack(total)], 0)
        return totals

    # of 0 1 2 3 10 11 12 13, of 0 10, of 0 1 10 11
    np.testing.assert_array_equal(loop(tf.constant([4, 1, 2])), [52, 52, 10, 10, 22, 22])


@pytest.mark.parametrize("lent", [0, 1])
def test_a_lent_example_is_not_gathered(two_replicas, lent):
    split = (0, 1) if lent == 0 else (1, 0)

    @tf.function
    def gather():
        def replica():
            mine = tf.distribute.get_replica_context().replica_id_in_sync_group
            alive = tf.cast(tf.constant(split)[mine], tf.float32)
            with own_examples(alive):
                return gather_examples(tf.constant(X[:1]))[0]

        return two_replicas.run(replica)

    for found in two_replicas.experimental_local_results(gather()):
        np.testing.assert_array_equal(found, X[:1])


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "bfloat16", "float16", "float64"])
def test_every_dtype_is_gathered(two_replicas, dtype):
    @tf.function
    def gather():
        return two_replicas.run(lambda: gather_examples(tf.cast([0, 1], dtype))[0])

    for one in two_replicas.experimental_local_results(gather()):
        assert one.dtype == dtype
        np.testing.assert_array_equal(tf.cast(one, tf.int32), [0, 1, 0, 1])


def test_inside_a_compiled_replica_function_it_says_what_to_do(two_replicas):
    compiled = tf.function(lambda: gather_examples(tf.constant(X))[0], jit_compile=True)

    @tf.function
    def step():
        return two_replicas.run(lambda: compiled())

    with pytest.raises(RuntimeError, match=r"2 replicas. Pass jit_compile=False"):
        step()
