"""From the replicas' gradients to the run's: one sum of everything, then one mean of what moved.

Replicas that share a memory hand each other their tensors, and one device adds them up. Others
reduce flat packs of one dtype: each reduction waits for all devices, so there are few of them.
"""

from __future__ import annotations

import tensorflow as tf

from losses.distributed.hosts import host_count
from trainer.distributed.devices import BYTES_PER_PACK
from trainer.model.variables import tensor_variable

SUM = tf.distribute.ReduceOp.SUM
# About where copying into a pack and out of it costs what one more reduction does: between 256 KiB
# and 1 MiB, as measured between two processes on CPUs; on GPUs, which copy faster, what is usual.
PACK_BYTES = {"CPU": 2**19, "GPU": BYTES_PER_PACK}


def shares_memory(strategy) -> bool:
    """Whether all replicas are logical CPU devices of this process."""
    return _kinds(strategy) == {"CPU"} and host_count(strategy) == 1


def sum_in_replica(value) -> tf.Tensor:
    """The sum of a dense tensor over all replicas, in replica context; the same on each."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return value
    if not shares_memory(context.strategy):
        return context.all_reduce(SUM, value)

    def parts(strategy, value):
        return strategy.experimental_local_results(value)

    # each replica adds them up itself, in one order: no result has to come back
    return tf.add_n(context.merge_call(parts, args=(value,)))


def sum_all(strategy, values: list, destinations: list) -> list:
    """The replicas' tensors summed, in cross-replica context.

    Args:
      values: what `strategy.run` returned, of the same shape on every replica; or
        `tf.IndexedSlices`, which stay sparse.
      destinations: for each, the mirrored variable whose devices need the sum, or the value.
    Returns:
      One tensor (`tf.IndexedSlices`) for each on the first device where the replicas share a
      memory, else mirrored.
    """
    if shares_memory(strategy):
        return [_added(strategy, value) for value in values]
    first = [strategy.experimental_local_results(value)[0] for value in values]
    limit = PACK_BYTES["GPU" if "GPU" in _kinds(strategy) else "CPU"]
    sums: list = [None] * len(values)
    for pack in packs(first, limit):
        pairs = [(values[i], destinations[i]) for i in pack]
        summed = strategy.extended.batch_reduce_to(SUM, pairs)  # as one flat buffer
        for i, value in zip(pack, summed, strict=True):
            sums[i] = value
    return sums


def packs(values: list, limit: int) -> list[list[int]]:
    """Which tensors are reduced as one flat buffer: their positions, each once.

    A pack has one dtype and at most `limit` bytes. What is larger, or has no static size, is
    alone. The last tensors come first: a backward pass finds their gradients first.
    """
    result: list[list[int]] = []
    unfilled: dict = {}  # dtype -> positions, bytes
    for i, value in reversed(list(enumerate(values))):
        size = None if isinstance(value, tf.IndexedSlices) else value.shape.num_elements()
        size = limit + 1 if size is None else size * value.dtype.size
        pack, filled = unfilled.get(value.dtype, (None, 0))
        if pack is None or filled + size > limit:
            pack, filled = [], 0
            result.append(pack)
        pack.append(i)
        if size <= limit:
            unfilled[value.dtype] = pack, filled + size
    return result


def sum_by_path(strategy, variables: dict, values: dict) -> dict:
    """path -> the replicas' tensors summed, in cross-replica context.

    Args:
      variables: path -> the variable on whose devices the sum is needed.
      values: path -> what `strategy.run` returned.
    """
    values = on_devices(strategy, values)
    tensors = list(values.values())
    targets = destinations(strategy, tensors, [variables[path] for path in values])
    return dict(zip(values, sum_all(strategy, tensors, targets), strict=True))


def on_devices(strategy, values):
    """The tensors of a nest on the replicas' devices.

    Results of a traced function have lost their devices: without them there is no efficient sum.
    """
    return strategy.run(_identities, args=(values,))


def _kinds(strategy) -> set:
    devices = strategy.extended.worker_devices
    return {tf.DeviceSpec.from_string(device).device_type for device in devices}


def destinations(strategy, values, variables):
    """Where the sums go: to the variables' devices; of one that is not mirrored, the values'."""
    inside = strategy.extended.variable_created_in_scope
    tensors = [tensor_variable(variable) for variable in variables]
    return [t if inside(t) else value for value, t in zip(values, tensors, strict=True)]


def _added(strategy, value):
    parts = strategy.experimental_local_results(value)
    with tf.device(strategy.extended.worker_devices[0]):
        if not isinstance(parts[0], tf.IndexedSlices):
            return tf.add_n(parts)
        rows = tf.concat([part.values for part in parts], 0)
        indices = tf.concat([part.indices for part in parts], 0)
        return tf.IndexedSlices(rows, indices, parts[0].dense_shape)


def _identities(values):
    return tf.nest.map_structure(tf.identity, values, expand_composites=True)
