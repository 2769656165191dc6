"""The examples of all replicas, for the losses that compare an example with all the others."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import Any

import tensorflow as tf

# None, or float [] of this replica: 0 where its examples are not its own
_alive: ContextVar = ContextVar("alive", default=None)

# what all_gather does not take goes as another dtype
CARRIERS = {tf.bfloat16: tf.float32, **dict.fromkeys((tf.bool, tf.int8, tf.uint8), tf.int32)}
CARRIERS |= dict.fromkeys((tf.int16, tf.uint16), tf.int32)


def gather_examples(values) -> tuple[Any, tf.Tensor]:
    """The replicas' examples one after another, with gradient.

    With one replica, or outside a replica, the values themselves. The gradient that reaches the
    gathered values is summed over replicas and goes back to the replica that owns them: with a
    loss that sums over its own examples and reads the gathered ones, the replicas' gradients add
    up to that of one replica that holds them all.

    Args:
      values: a nest of tensors, [examples, ...] each; the number of examples may differ between
        replicas and may be 0.
    Returns:
      The nest, [examples of all replicas, ...] each, and int32 [], where this replica's begin.
    Raises:
      RuntimeError: inside a function compiled by XLA on several replicas.

    On several hosts the rounds of one loop must have one shape: let their data end in no short
    batch (`drop_remainder=True`), or run one step per call.

    Example:
      >>> gathered, offset = gather_examples(tf.constant([1.0, 2.0]))
      >>> int(tf.size(gathered)), int(offset)
      (2, 0)
    """
    values = tf.nest.map_structure(tf.convert_to_tensor, values)
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return values, tf.constant(0)
    flat = tf.nest.flatten(values)
    if _alive.get() is not None:
        own = tf.shape(flat[0])[0] * tf.cast(_alive.get() > 0, tf.int32)
        flat = [value[:own] for value in flat]
    strategy = tf.distribute.get_strategy()
    several_hosts = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    concatenate, add = (_over_hosts if several_hosts else _over_devices)(replica)
    try:
        counts = concatenate(tf.shape(flat[0])[:1])
        offset = tf.reduce_sum(counts[: replica.replica_id_in_sync_group])
        flat = [_with_gradient(value, concatenate, add, offset) for value in flat]
    except RuntimeError as error:
        raise RuntimeError(
            "This loss compares the examples of all replicas, and what gathers them cannot stand "
            f"inside a compiled or nested function of {replica.num_replicas_in_sync} replicas. "
            "Pass jit_compile=False, or train on one replica."
        ) from error
    return tf.nest.pack_sequence_as(values, flat), offset


@contextlib.contextmanager
def own_examples(alive):
    """While it is open, `gather_examples` leaves out this replica's examples where `alive` is 0.

    For a loop that lends an example to a replica without any, so that nothing sees an empty batch:
    what is lent must not be compared with the others a second time.

    Args:
      alive: None (they are its own), or floating [], 0 where the replica's examples are lent.
    """
    token = _alive.set(alive)
    try:
        yield
    finally:
        _alive.reset(token)


def owned(sums):
    """Sums over this replica's examples; 0 where its examples are lent (see `own_examples`)."""
    return sums if _alive.get() is None else sums * tf.cast(_alive.get(), sums.dtype)


def _with_gradient(value, concatenate, add, offset):
    @tf.custom_gradient
    def gathered(own):
        def gradient(upstream):
            total = add(tf.convert_to_tensor(upstream))
            return total[offset : offset + tf.shape(own)[0]]

        return concatenate(own), gradient

    return gathered(value)


def _over_devices(replica):
    """Concatenation and sum of the replicas' tensors, as copies between devices of one process.

    Not `all_gather`: a collective that runs in a loop must have one shape in all its rounds, so a
    short last batch would be an error.
    """

    def over_replicas(function):
        def merge(strategy, values):
            return function(strategy.experimental_local_results(values))

        return lambda value: replica.merge_call(merge, args=(value,))

    return over_replicas(lambda values: tf.concat(values, axis=0)), over_replicas(tf.add_n)


def _over_hosts(replica):
    """Concatenation and sum of the replicas' tensors, as collectives between processes."""
    devices = tf.distribute.get_strategy().extended.worker_devices

    def concatenate(value):
        sent = tf.cast(value, CARRIERS.get(value.dtype, value.dtype))
        if len(devices) == 1:  # all_gather asks the value of a host's only device where it is
            with tf.device(devices[0]):
                sent = tf.identity(sent)
        return tf.cast(replica.all_gather(sent, axis=0), value.dtype)

    return concatenate, lambda value: replica.all_reduce(tf.distribute.ReduceOp.SUM, value)
