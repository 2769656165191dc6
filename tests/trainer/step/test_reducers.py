"""Each way to make the terms' sums global, by hand, alone and between two replicas.

sums         replica 0     replica 1     both
numerators   2, 6          4, 2          6, 8
denominators 1, 2          3, 2          4, 4        raw: 1.5, 2
"""

import numpy as np
import pytest
import tensorflow as tf

from losses import Ratio
from losses.objective.layout import Layout
from trainer.step.forward import Forward
from trainer.step.program import Placement
from trainer.step.reducers import (
    DeferredReducer,
    EarlyReducer,
    GlobalSums,
    LocalReducer,
    PrecomputedReducer,
    choose_reducer,
)

NUMERATORS = tf.constant([[2.0, 6.0], [4.0, 2.0]])
DENOMINATORS = tf.constant([[1.0, 2.0], [3.0, 2.0]])
TOTALS = [6.0, 8.0, 4.0, 4.0, 4.0, 2.0]  # with 2 examples on each replica
RAW = [1.5, 2.0]


def layout_of_two(after=None):
    """The layout of the terms a and b, each of one sum; a function follows b's division."""
    return Layout(("a", "b"), ((), ()), (None, after), (False, False))


def forward_of(replica, after=None, terms=()):
    """The forward pass of a replica, int32 []."""
    numerators, denominators = NUMERATORS[replica], DENOMINATORS[replica]
    return Forward(None, dict(terms), layout_of_two(after), numerators, denominators, ())


def sums_of(forward):
    return tf.concat([forward.numerators, forward.denominators, [2.0, 1.0]], 0)


def on_replicas(strategy, function):
    """What a function of the replica's number gives on each of two: the leaves, [2, ...]."""

    def replica():
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        return function(index)

    results = tf.function(lambda: strategy.run(replica), autograph=False)()
    return tf.nest.map_structure(
        lambda value: np.stack(strategy.experimental_local_results(value)), results
    )


def reduced(strategy, reducer, present=None, precomputed=None, **arguments):
    """The global sums and the share of the raw values on each replica."""

    def replica(index):
        forward = forward_of(index, **arguments)
        sums = reducer.global_sums(forward, sums_of(forward), present, precomputed)
        return sums, reducer.raw_share(forward, sums, tf.constant(RAW))

    return on_replicas(strategy, replica)


def test_the_sums_of_one_replica_are_the_global_ones():
    forward, reducer = forward_of(0), LocalReducer()
    sums = reducer.global_sums(forward, sums_of(forward), None, None)
    np.testing.assert_array_equal(sums.numerators, [2, 6])
    np.testing.assert_array_equal(sums.denominators, [1, 2])
    np.testing.assert_array_equal(sums.result, [2, 6, 1, 2, 2, 1])
    np.testing.assert_array_equal(reducer.raw_share(forward, sums, tf.constant([2.0, 3.0])), [2, 3])


def test_early_sums_are_global_before_the_gradients(two_replicas):
    sums, share = reduced(two_replicas, EarlyReducer(2))
    for replica in range(2):
        np.testing.assert_array_equal(sums.numerators[replica], [6, 8])
        np.testing.assert_array_equal(sums.denominators[replica], [4, 4])
        np.testing.assert_array_equal(sums.result[replica], TOTALS)
        np.testing.assert_array_equal(share[replica], [0.75, 1])  # half of the raw values


def test_deferred_sums_have_global_denominators_and_hand_on_the_replicas_own(two_replicas):
    present = tf.constant(1.0)  # not known to be: the denominators are summed
    sums, share = reduced(two_replicas, DeferredReducer(Placement(two_replicas)), present)
    for replica in range(2):
        np.testing.assert_array_equal(sums.numerators[replica], [0, 0])
        np.testing.assert_array_equal(sums.denominators[replica], [4, 4])
    np.testing.assert_array_equal(sums.result, [[2, 6, 1, 2, 2, 1], [4, 2, 3, 2, 2, 1]])
    # own numerators over global denominators; together they are the raw values
    np.testing.assert_array_equal(share, [[0.5, 1.5], [1, 0.5]])
    np.testing.assert_array_equal(share.sum(0), RAW)


def test_denominators_that_the_shapes_tell_take_no_sum(two_replicas):
    """Of equal shares of one batch each replica counts alike: called outside the replicas, where
    no sum is possible, the reducer still knows the global denominators."""
    terms = {"a": Ratio(tf.constant(2.0), 8), "b": Ratio(tf.constant(6.0), 16)}
    reducer, forward = DeferredReducer(Placement(two_replicas)), forward_of(0, terms=terms)
    sums = reducer.global_sums(forward, sums_of(forward), None, None)
    np.testing.assert_array_equal(sums.denominators, [16, 32])


@pytest.mark.parametrize("per_host, present", [(True, None), (False, 1.0)])
def test_shapes_tell_nothing_of_shares_that_may_differ(per_host, present, two_replicas):
    terms = {"a": Ratio(tf.constant(2.0), 8), "b": Ratio(tf.constant(6.0), 16)}
    reducer = DeferredReducer(Placement(two_replicas, per_host))
    present = None if present is None else tf.constant(present)
    sums, _ = reduced(two_replicas, reducer, present, terms=terms)
    np.testing.assert_array_equal(sums.denominators, [[4, 4], [4, 4]])


def test_precomputed_sums_are_taken_as_they_are(two_replicas):
    sums, share = reduced(two_replicas, PrecomputedReducer(2), precomputed=tf.constant(TOTALS))
    np.testing.assert_array_equal(sums.numerators, [[6, 8]] * 2)
    np.testing.assert_array_equal(sums.denominators, [[4, 4]] * 2)
    np.testing.assert_array_equal(sums.result, [[2, 6, 1, 2, 2, 1], [4, 2, 3, 2, 2, 1]])
    np.testing.assert_array_equal(share, [[0.5, 1.5], [1, 0.5]])


def test_precomputed_raw_values_that_are_not_linear_are_shared_out_equally(two_replicas):
    _, share = reduced(
        two_replicas, PrecomputedReducer(2), precomputed=tf.constant(TOTALS), after=tf.sqrt
    )
    np.testing.assert_array_equal(share, [[0.75, 1], [0.75, 1]])


def test_a_sum_that_is_divided_by_nothing_is_shared_out_as_it_stands():
    layout = Layout(("a", "b"), ((), ()), (None, None), (True, False))
    forward = forward_of(0)._replace(layout=layout, denominators=tf.constant([0.0, 2.0]))
    sums = GlobalSums(tf.zeros([2]), tf.constant([0.0, 4.0]), None)
    share = DeferredReducer(Placement(None)).raw_share(forward, sums, None)
    np.testing.assert_array_equal(share, [2, 1.5])


@pytest.mark.parametrize(
    "replicas, xla, after, reads_values, kind",
    [
        (1, False, None, False, LocalReducer),
        (1, True, tf.sqrt, True, LocalReducer),
        (2, False, None, False, DeferredReducer),
        (2, False, None, True, EarlyReducer),
        (2, False, tf.sqrt, False, EarlyReducer),
        (2, True, None, False, PrecomputedReducer),
        (2, True, tf.sqrt, True, PrecomputedReducer),
    ],
)
def test_the_reducer_is_chosen_by_where_the_step_runs_and_what_it_reads(
    replicas, xla, after, reads_values, kind, two_replicas
):
    strategy = two_replicas if replicas == 2 else tf.distribute.get_strategy()
    reducer = choose_reducer(Placement(strategy, xla=xla), layout_of_two(after), reads_values)
    assert type(reducer) is kind
    assert reducer.deferred is (kind in (DeferredReducer, PrecomputedReducer))
