"""Batches that are ready before the step asks: on the host, and on the GPU where there is one."""

from __future__ import annotations

import tensorflow as tf

BATCHES_ON_DEVICE = 2  # one is read while the next is copied


def prefetched(dataset: tf.data.Dataset, device: str | None = None) -> tf.data.Dataset:
    """A dataset whose next elements are ready; the last transformation before its iterator.

    Args:
      dataset: on the host.
      device: name of the device that reads it, as `only_gpu` gives it; None leaves the batches
        on the host, where several replicas take their shares of them.
    Returns:
      `tf.data.Dataset` of the same elements in the same order.

    Example:
      >>> [int(i) for i in prefetched(tf.data.Dataset.range(3), "/cpu:0")]
      [0, 1, 2]
    """
    dataset = dataset.prefetch(tf.data.AUTOTUNE)
    if device is None or not _can_move(dataset.element_spec):
        return dataset
    return dataset.apply(tf.data.experimental.prefetch_to_device(device, BATCHES_ON_DEVICE))


def _can_move(element_spec) -> bool:
    """Whether elements can wait on a GPU: strings live on the host, ragged batches are several."""
    return all(
        isinstance(spec, tf.TensorSpec) and spec.dtype not in (tf.string, tf.variant, tf.resource)
        for spec in tf.nest.flatten(element_spec)
    )
