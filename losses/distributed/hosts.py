"""Sums over hosts: every tensor that leaves a process goes through here, in a fixed shape."""

from __future__ import annotations

import tensorflow as tf

CHUNK = 16384  # elements of one round of `sum_of_any_shape`


def host_count(strategy) -> int:
    """How many processes train together; 1 unless the strategy spans hosts."""
    return strategy.num_replicas_in_sync // local_replicas(strategy)


def local_replicas(strategy) -> int:
    """How many of the replicas are this process's."""
    if strategy.num_replicas_in_sync == 1:
        return 1  # TensorFlow's default strategy knows no devices
    return len(strategy.extended.worker_devices)


def host_index(strategy) -> int:
    """This process among the hosts, from 0; its replicas follow those of the hosts before."""
    if host_count(strategy) == 1:
        return 0
    resolver = strategy.cluster_resolver
    chiefs = len(resolver.cluster_spec().as_dict().get("chief", []))
    return int(resolver.task_id) + (0 if resolver.task_type == "chief" else chiefs)


def sum_over_hosts(strategy, value) -> tf.Tensor:
    """The sum of every host's `value`, in cross-replica context, eagerly or in a graph.

    Inside a loop its shape must be the same in all rounds, as for every TensorFlow collective.

    Args:
      strategy: the run's strategy.
      value: float32, float64, int32 or int64 tensor, of one shape on all hosts.
    """
    if host_count(strategy) == 1:
        return value
    first = iter([value])
    parts = strategy.experimental_distribute_values_from_function(
        lambda _: next(first, tf.zeros_like(value))  # the host's first replica brings its value
    )
    return strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None)


def sum_of_any_shape(strategy, value) -> tf.Tensor:
    """`sum_over_hosts` for a shape that may change between the rounds of a loop.

    The value goes in rounds of `CHUNK` elements, so that each collective has one shape.
    """
    if host_count(strategy) == 1:
        return value
    flat = tf.reshape(value, [-1])
    rounds = -(-tf.size(flat) // CHUNK)
    padded = tf.pad(flat, [[0, rounds * CHUNK - tf.size(flat)]])

    def body(index, total):
        part = tf.ensure_shape(padded[index * CHUNK : (index + 1) * CHUNK], [CHUNK])
        summed = sum_over_hosts(strategy, part)
        return index + 1, tf.tensor_scatter_nd_update(total, [[index]], [summed])

    _, total = tf.while_loop(
        lambda index, _: index < rounds,
        body,
        (0, tf.zeros([rounds, CHUNK], value.dtype)),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, CHUNK])),
        parallel_iterations=1,
    )
    total = tf.reshape(total, [-1])[: tf.size(flat)]
    total = tf.reshape(total, tf.shape(value))
    total.set_shape(value.shape)
    return total
