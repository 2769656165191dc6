"""The examples of all replicas, for the losses that compare an example with all the others."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import Any

import tensorflow as tf

from losses.distributed.hosts import (
    host_count,
    host_index,
    local_replicas,
    sum_of_any_shape,
    sum_over_hosts,
)
from losses.errors import TermwiseError, TermwiseRuntimeError

# None, or float [] of this replica: 0 where it has padding in place of examples
_present: ContextVar = ContextVar("present", default=None)

# the steps whose gradients are added up for one update
_accumulated: ContextVar = ContextVar("accumulated", default=1)

# a dtype that the sum over hosts does not take -> the one in which its values travel
CARRIERS = {
    **dict.fromkeys((tf.bfloat16, tf.float16), tf.float32),
    **dict.fromkeys((tf.bool, tf.int8, tf.uint8, tf.int16, tf.uint16), tf.int32),
    **dict.fromkeys((tf.uint32, tf.uint64), tf.int64),
}


def gather_examples(values) -> tuple[Any, tf.Tensor]:
    """The replicas' examples one after another, with gradient.

    With one replica, or outside a replica, these are the values themselves. The gradient that
    reaches the gathered values is summed over the replicas and goes back to the replica they came
    from: where each replica's loss sums over its examples and reads the gathered ones, the
    replicas' gradients add up to that of one replica with all the examples.

    Args:
      values: a nest of tensors, [examples, ...] each; the number of examples may differ between
        replicas and may be 0.
    Returns:
      The nest, [examples of all replicas, ...] each, and int32 [], where this replica's begin.
    Raises:
      RuntimeError: inside a function compiled by XLA on several replicas.
      ValueError: where gradients are accumulated, as of `sees_whole_batch`.

    Example:
      >>> gathered, offset = gather_examples(tf.constant([1.0, 2.0]))
      >>> int(tf.size(gathered)), int(offset)
      (2, 0)
    """
    sees_whole_batch()
    values = tf.nest.map_structure(tf.convert_to_tensor, values)
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return values, tf.constant(0)
    flat = tf.nest.flatten(values)
    if _present.get() is not None:
        count = tf.shape(flat[0])[0] * tf.cast(_present.get() > 0, tf.int32)
        flat = [value[:count] for value in flat]
    try:
        counts = _counts(replica, tf.shape(flat[0])[0])
        offset = tf.reduce_sum(counts[: replica.replica_id_in_sync_group])
        flat = [_with_gradient(value, replica, counts, offset) for value in flat]
    except RuntimeError as error:
        raise TermwiseRuntimeError(
            "This loss compares the examples of all replicas, and what gathers them cannot stand "
            f"inside a compiled or nested function of {replica.num_replicas_in_sync} replicas. "
            "Pass jit_compile=False, or train on one replica."
        ) from error
    return tf.nest.pack_sequence_as(values, flat), offset


def sees_whole_batch() -> None:
    """Called by a loss that compares the examples of a batch with each other.

    Raises:
      ValueError: the loop adds up the gradients of several steps: their batches are to count as
        one, and a loss sees those of one step alone.
    """
    if _accumulated.get() > 1:
        raise TermwiseError(
            "This loss compares the examples of a batch with each other; under "
            f"gradient_accumulation_steps={_accumulated.get()} it would compare those of one step "
            "alone, and the update be another than that of one large batch. Leave accumulation "
            "out and give the whole batch at once (more replicas, mixed precision or "
            "keras.RematScope make room), or use a loss of each example by itself."
        )


@contextlib.contextmanager
def own_examples(present, accumulated: int | None = None):
    """While it is open, `gather_examples` leaves out this replica's examples if they are padding.

    For a loop that gives a replica without examples an example of another replica, so that nothing
    sees an empty batch: this padding must not be compared with the others a second time.

    Args:
      present: None (the examples are the replica's), or floating [], 0 where they are padding.
      accumulated: the steps whose gradients the loop adds up for one update; None: as around it.
    """
    accumulated = _accumulated.get() if accumulated is None else accumulated
    tokens = _present.set(present), _accumulated.set(accumulated)
    try:
        yield
    finally:
        _present.reset(tokens[0])
        _accumulated.reset(tokens[1])


def owned(sums):
    """Sums over this replica's examples; 0 where these are padding (see `own_examples`)."""
    return sums if _present.get() is None else sums * tf.cast(_present.get(), sums.dtype)


def _with_gradient(value, replica, counts, offset):
    @tf.custom_gradient
    def gathered(value):
        def gradient(upstream):
            total = _added(replica, tf.convert_to_tensor(upstream))
            return total[offset : offset + tf.shape(value)[0]]

        return _concatenated(replica, value, counts), gradient

    return gathered(value)


# Not `all_gather`: a collective that runs in a loop must have one shape in all its rounds, so a
# short last batch would be an error. Within a process these are copies between devices; between
# hosts, sums in rounds of a fixed size.


def _counts(replica, count):
    """int32 [replicas], how many examples each has."""

    def merge(strategy, value):
        local = tf.stack(strategy.experimental_local_results(value))
        before = host_index(strategy) * local_replicas(strategy)
        after = strategy.num_replicas_in_sync - before - local_replicas(strategy)
        return sum_over_hosts(strategy, tf.pad(local, [[before, after]]))

    return replica.merge_call(merge, args=(count,))


def _concatenated(replica, value, counts):
    """The replicas' values one after another, [examples of all replicas, ...]."""

    def merge(strategy, value, counts):
        local = tf.concat(strategy.experimental_local_results(value), axis=0)
        if host_count(strategy) == 1:
            return local
        counts = strategy.experimental_local_results(counts)[0]
        before = tf.reduce_sum(counts[: host_index(strategy) * local_replicas(strategy)])
        after = tf.reduce_sum(counts) - before - tf.shape(local)[0]
        sent = tf.cast(local, CARRIERS.get(local.dtype, local.dtype))
        edges = [[before, after], *([[0, 0]] * (local.shape.rank - 1))]
        whole = sum_of_any_shape(strategy, tf.pad(sent, edges))
        return tf.cast(whole, value_dtype)

    value_dtype = value.dtype
    return replica.merge_call(merge, args=(value, counts))


def _added(replica, value):
    """The sum of the replicas' values."""

    def merge(strategy, value):
        total = tf.add_n(strategy.experimental_local_results(value))
        sent = tf.cast(total, CARRIERS.get(total.dtype, total.dtype))
        return tf.cast(sum_of_any_shape(strategy, sent), total.dtype)

    return replica.merge_call(merge, args=(value,))
