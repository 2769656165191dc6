"""Sums over replicas: exact, sparse where they were, in few reductions."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import trainer.distributed.reduce
from benchmarks.replica_cases import CASES, differences, train
from trainer.distributed.reduce import packs, shares_memory, sum_all, sum_in_replica

LIMIT = 100


@pytest.fixture(params=["in memory", "by collectives"])
def way(request, monkeypatch):
    """Both ways of adding up, on the same two logical CPU devices."""
    if request.param == "by collectives":
        monkeypatch.setattr(trainer.distributed.reduce, "shares_memory", lambda strategy: False)
    return request.param


def summed(strategy, of_replica, count):
    """What `sum_all` makes of the tensors that replica i passes, of_replica(i)."""

    @tf.function(autograph=False)
    def run():
        def replica():
            index = tf.distribute.get_replica_context().replica_id_in_sync_group
            return of_replica(index)

        values = list(strategy.run(replica))
        assert len(values) == count
        found = sum_all(strategy, values, values)
        return [strategy.experimental_local_results(value)[0] for value in found]

    return run()


def test_tensors_of_several_dtypes_and_shapes_are_summed(two_replicas, way):
    # replica 0 passes x, replica 1 passes x * 3
    given_values = [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.array(0.1, np.float64),
        np.array([1.5, -2.0], np.float16),
        np.zeros([0, 2], np.float32),
        np.array([7.0], np.float32),
    ]

    def of_replica(index):
        return [tf.constant(x) * tf.cast(1 + 2 * index, x.dtype) for x in given_values]

    for found, x in zip(summed(two_replicas, of_replica, 5), given_values, strict=True):
        assert found.dtype == x.dtype
        np.testing.assert_array_equal(found, x + x * x.dtype.type(3))


def test_sparse_gradients_stay_sparse(two_replicas, way):
    def of_replica(index):
        rows = tf.stack([2 * index, 3])  # 0 and 3; 2 and 3
        values = tf.constant([[1.0, 2.0], [3.0, 4.0]]) * tf.cast(index + 1, tf.float32)
        return [tf.IndexedSlices(values, rows, tf.constant([4, 2])), tf.ones([2])]

    sparse, dense = summed(two_replicas, of_replica, 2)
    assert isinstance(sparse, tf.IndexedSlices)
    expected = [[1, 2], [0, 0], [2, 4], [9, 12]]
    np.testing.assert_array_equal(tf.convert_to_tensor(sparse), expected)
    np.testing.assert_array_equal(dense, [2, 2])


def test_every_replica_gets_the_same_sum(two_replicas, way):
    @tf.function(autograph=False)
    def run():
        def replica():
            index = tf.distribute.get_replica_context().replica_id_in_sync_group
            return sum_in_replica(tf.constant([0.1, 0.2]) + tf.cast(index, tf.float32))

        return two_replicas.experimental_local_results(two_replicas.run(replica))

    one, other = run()
    expected = np.float32([0.1, 0.2]) + (np.float32([0.1, 0.2]) + np.float32(1))
    np.testing.assert_array_equal(one, expected)
    np.testing.assert_array_equal(other, expected)


def test_one_replica_has_its_own_sum():
    value = tf.constant([1.0])
    assert sum_in_replica(value) is value


def test_logical_cpu_devices_share_a_memory(two_replicas):
    assert shares_memory(two_replicas)


# ---- packs


def specs(*given):
    return [tf.TensorSpec(shape, dtype) for shape, dtype in given]


def test_small_tensors_share_a_pack_and_large_ones_are_alone():
    values = specs(
        ([10], tf.float32), ([26], tf.float32), ([], tf.float32), ([2], tf.float64), ([4], tf.half)
    )
    # bytes 40, 104, 4, 16, 8: the second is beyond the limit
    assert packs(values, LIMIT) == [[4], [3], [2, 0], [1]]


def test_a_tensor_of_unknown_size_is_alone():
    assert packs(specs(([], tf.float32), ([None], tf.float32)), LIMIT) == [[1], [0]]


def test_a_full_pack_is_closed():
    values = specs(*[([12], tf.float32)] * 5)  # 48 bytes each, two in a pack
    assert packs(values, LIMIT) == [[4, 3], [2, 1], [0]]


shapes = st.lists(st.one_of(st.none(), st.integers(0, 30)), max_size=2)
dtypes = st.sampled_from([tf.float16, tf.float32, tf.float64])


@given(st.lists(st.tuples(shapes, dtypes), max_size=12))
@settings(deadline=None, max_examples=60)
def test_packs_hold_each_tensor_once_in_one_dtype_within_the_limit(given_specs):
    values = specs(*given_specs)
    found = packs(values, LIMIT)
    assert sorted(i for pack in found for i in pack) == list(range(len(values)))
    for pack in found:
        assert len({values[i].dtype for i in pack}) == 1
        if len(pack) > 1:
            sizes = [values[i].shape.num_elements() * values[i].dtype.size for i in pack]
            assert sum(sizes) <= LIMIT


# ---- whole runs


@pytest.mark.parametrize("name", ["a mask", "an inf on one replica", "accumulation"])
def test_collectives_give_the_weights_of_one_replica(name, two_replicas, monkeypatch):
    # what several hosts or GPUs do, on two devices of this one
    monkeypatch.setattr(trainer.distributed.reduce, "shares_memory", lambda strategy: False)
    ledger, weights = differences(
        train(CASES[name], "one_device"), train(CASES[name], two_replicas)
    )
    assert ledger <= 1e-6
    assert weights <= 5e-6
