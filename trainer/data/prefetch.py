"""Batches that are ready before the step asks: on the host, and on the GPU where there is one."""

from __future__ import annotations

import math
from collections.abc import Iterator

import tensorflow as tf

_TUNED = ("_num_parallel_calls", "_buffer_size", "_buffer_output_elements")
BATCHES_ON_DEVICE = 2  # one is read while the next is copied
READY_BYTES, MOST_READY = 2**24, 64  # what waits where nothing is tuned


def prefetched(
    dataset: tf.data.Dataset, device: str | None = None, tuned: bool = True
) -> tf.data.Dataset:
    """A dataset whose next elements are ready; the last transformation before its iterator.

    Args:
      dataset: on the host.
      device: name of the device that reads it, as `only_gpu` gives it; None leaves the batches
        on the host, where several replicas take their shares of them.
      tuned: whether TensorFlow tunes it while it is read. A pipeline that `has_work` does not find
        anything to tune in is better off without: an iterator that is dropped waits for its tuner,
        which may sleep for up to a minute longer (TensorFlow 2.21 wakes it before it counts as
        cancelled).
    Returns:
      `tf.data.Dataset` of the same elements in the same order.

    Example:
      >>> [int(i) for i in prefetched(tf.data.Dataset.range(3), "/cpu:0")]
      [0, 1, 2]
    """
    if tuned:
        dataset = dataset.prefetch(tf.data.AUTOTUNE)
    else:
        options = tf.data.Options()
        options.autotune.enabled = False
        dataset = dataset.prefetch(_ready_batches(dataset.element_spec)).with_options(options)
    if device is None or not _can_move(dataset.element_spec):
        return dataset
    return dataset.apply(tf.data.experimental.prefetch_to_device(device, BATCHES_ON_DEVICE))


def has_work(dataset: tf.data.Dataset) -> bool:
    """Whether a pipeline calls functions or leaves a number to TensorFlow: it may be tuned.

    Example:
      >>> numbers = tf.data.Dataset.range(3)
      >>> has_work(numbers.batch(2)), has_work(numbers.map(lambda n: n + 1))
      (False, True)
    """
    for part in parts_of_pipeline(dataset):
        numbers = [getattr(part, name, None) for name in _TUNED]
        if part._functions() or any(n is not None and int(n) == tf.data.AUTOTUNE for n in numbers):
            return True
    return False


def parts_of_pipeline(dataset: tf.data.Dataset) -> Iterator[tf.data.Dataset]:
    """A pipeline's datasets, the first transformation first."""
    for earlier in dataset._inputs():
        yield from parts_of_pipeline(earlier)
    yield dataset


def _ready_batches(element_spec) -> int:
    """How many batches wait: what `READY_BYTES` hold, at least two."""
    specs = [spec for spec in tf.nest.flatten(element_spec) if isinstance(spec, tf.TensorSpec)]
    # an axis that is not known is taken for one of 256
    sizes = [
        math.prod(size or 256 for size in spec.shape) * max(spec.dtype.size, 1)
        for spec in specs
        if spec.shape.rank is not None
    ]
    return max(BATCHES_ON_DEVICE, min(MOST_READY, READY_BYTES // max(sum(sizes), 1)))


def _can_move(element_spec) -> bool:
    """Whether elements can wait on a GPU: strings live on the host, ragged batches are several."""
    return all(
        isinstance(spec, tf.TensorSpec) and spec.dtype not in (tf.string, tf.variant, tf.resource)
        for spec in tf.nest.flatten(element_spec)
    )
