"""Batches of a tf.data pipeline: of global batches, or each host's own part of them."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from trainer.data.batch import parts_by_name, unpack
from trainer.data.lengths import of_equal_lengths
from trainer.data.prefetch import has_work, prefetched
from trainer.data.source import Source

MOST_BATCHES = 10_000  # that are read again after a failure


class DatasetSource(Source):
    """A tf.data pipeline of global batches, repeated without end when training.

    A function of a `tf.distribute.InputContext` gives each host its own pipeline, of its part of
    each global batch.

    Attributes:
      element_spec: of one batch.
      steps_per_epoch: int; None when tf.data does not know, -1 when there is no end.
      examples: None; a pipeline does not say.
    """

    def __init__(self, dataset, what, hosts=None, gpu=None):
        self._unchecked = dataset
        self.gpu = gpu
        self.tuned = has_work(dataset)
        self.what = what
        self.hosts = hosts
        self.per_host = hosts is not None
        self.element_spec = dataset.element_spec
        self.iterator: Any = None
        self._counted: int | None = None
        self._first: list = []  # the batch that was read before `start`
        unpack(self.element_spec)
        for name, spec in parts_by_name(self.element_spec).items():
            if spec.shape.rank is None and name.startswith("x"):
                raise TermwiseError(
                    f"{what} yields {name} of a shape that is not known. Give it: "
                    "output_signature= of from_generator, or tf.ensure_shape in a map."
                )
            if isinstance(spec, tf.TensorSpec) and spec.shape.rank == 0:
                raise TermwiseError(
                    f"{what} yields scalars, so it is not batched. Call .batch(global_batch) on it."
                )
        cardinality = int(dataset.cardinality())
        if cardinality == 0:
            raise TermwiseError(f"{what} is an empty dataset. Give at least one batch.")
        self.dataset = of_equal_lengths(dataset, what)
        self.steps_per_epoch = cardinality if cardinality > 0 else None
        if cardinality == tf.data.INFINITE_CARDINALITY:
            self.steps_per_epoch = -1
            if what.startswith("validation_"):
                raise TermwiseError(
                    f"{what} is an infinite dataset, and one evaluation reads all of it. "
                    "Give data that ends: .take(batches)."
                )

    @property
    def batch_size(self):
        """The static global batch, or None."""
        local = tf.nest.flatten(self.element_spec)[0].shape[0]
        return local * self.hosts.count if self.per_host and local else local

    def count_steps(self) -> int:
        """Steps per epoch by going through the data, once; for pipelines of unknown length."""
        if self._counted is None:
            self._counted = int(self._unchecked.reduce(np.int64(0), lambda count, *_: count + 1))
        return self._counted

    def describe(self):
        return {
            "kind": "a pipeline",
            "steps_per_epoch": self.steps_per_epoch,
            "element": str(self.element_spec),
        }

    def same_pipeline(self, other: Source) -> bool:
        """Whether another source reads the same object, or one that was made anew of the same.

        Told by TensorFlow's fingerprint of a pipeline: its transformations, functions and arrays.
        """
        if not isinstance(other, DatasetSource):
            return False
        if self.passed == other.passed:
            return True
        return self._fingerprint is not None and self._fingerprint == other._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> int | None:
        variant = tf.data.experimental.to_variant(self.dataset)
        try:
            return int(tf.raw_ops.DatasetFingerprint(input_dataset=variant))
        except tf.errors.OpError:  # what it reads cannot be told
            return None

    def start(self, position: int, on_gpu: bool = True) -> None:
        """Opens the repeated pipeline at a batch; `position` batches are skipped.

        Args:
          on_gpu: whether batches are prefetched onto the GPU, where there is one.
        """
        if self._first:  # opened already: a second iterator of a shuffle would draw on
            batches = itertools.chain(self._first, self.iterator)
            self._first, self.iterator = [], itertools.islice(batches, position, None)
            return
        dataset = self.repeated_from(position)
        self.iterator = iter(prefetched(dataset, self.gpu if on_gpu else None, self.tuned))

    def one_pass(self):
        return self.dataset

    def repeated_from(self, position):
        dataset = self.dataset.repeat()
        return dataset.skip(position) if position else dataset

    def first_batch(self):
        self.iterator = iter(prefetched(self.dataset.repeat(), tuned=self.tuned))
        for batch in itertools.islice(self.iterator, 1):
            self._first = [batch]
            return batch
        raise TermwiseError(f"{self.what} is an empty dataset. Give at least one batch.")

    def peek(self):
        return next(iter(self.dataset.take(1)))

    def look_again(self, position, count):
        again = self.dataset.repeat().skip(position).take(min(count, MOST_BATCHES))
        for number, batch in enumerate(again):
            yield batch, batch, self._place(position + number)

    def batch_again(self, position, last):
        return last

    @staticmethod
    def _place(position: int) -> str:
        return f" (batch {position} of the data, counted from 0)"

    def batches(self):
        """The batches of one pass over the data, for evaluation.

        Where each host has its own, also 1.0, or 0.0 for what fills up to the longest host's.
        """
        if not self.per_host:
            return iter(prefetched(self.dataset, self.gpu, self.tuned))
        local = self.steps_per_epoch or self.count_steps()
        longest = int(self.hosts.exchange(local).max())
        counted = self.dataset.map(lambda *batch: (_joined(batch), 1.0))
        filling = self.dataset.take(1).repeat().map(lambda *batch: (_joined(batch), 0.0))
        dataset = counted.concatenate(filling).take(longest)
        return iter(prefetched(dataset, tuned=self.tuned))


def _joined(batch):
    return batch[0] if len(batch) == 1 else batch
