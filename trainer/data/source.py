"""Where batches come from: a tf.data pipeline, or arrays that stay on the device."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError, TermwiseTypeError
from trainer.data.batch import is_whole, unpack
from trainer.data.prefetch import prefetched

ACCEPTED = (
    "a tf.data.Dataset batched to the global batch, or arrays with batch_size=; "
    "x, (x,), (x, y) or (x, y, sample_weight)"
)

# Arrays up to this size are copied in the order of each epoch: a slice is faster than a gather;
# up to the other, in that of the following epoch too, while the present one trains.
COPIED_BYTES, AHEAD_BYTES = 2**28, 2**24


def open_data(
    data, *, batch_size=None, shuffle=False, seed=0, static=False, what="data", hosts=None
):
    """A `Stream` or `Resident` source of what the user gave.

    Args:
      data: a batched `tf.data.Dataset`, arrays in the nesting x, (x,), (x, y) or
        (x, y, sample_weight), where x, y, sample_weight may be nests, or a function of a
        `tf.distribute.InputContext` that returns this host's dataset.
      batch_size: int, the global batch; for arrays only.
      shuffle: bool; arrays are drawn without replacement, anew in each epoch.
      seed: int of the shuffling.
      static: bool; arrays whose batches are all whole are traced with that size (for XLA),
        else with an unknown one, so that another batch size costs no trace.
      what: the argument's name, for errors.
      hosts: the run's `Hosts`, for a function of an input context, and for the GPU onto which
        batches of a dataset are prefetched.
    Raises:
      TypeError: data of another kind.
      ValueError: an empty or unbatched dataset, arrays of different lengths, no batch_size.
    """
    own = hosts if inspect.isroutine(data) or isinstance(data, functools.partial) else None
    if own is not None:
        data = _of_this_host(data, own, what)
    if isinstance(data, tf.data.Dataset):
        if batch_size is not None:
            raise TermwiseError(
                f"{what} is a tf.data.Dataset, which brings its own batches, but batch_size="
                f"{batch_size} was given too. Drop batch_size=, or pass arrays."
            )
        return Stream(data, what, own, hosts.gpu if hosts else None)
    if isinstance(data, tf.distribute.DistributedDataset):
        raise TermwiseTypeError(
            f"{what} is a distributed dataset. Pass the plain tf.data.Dataset of global batches; "
            "the Trainer gives each replica its share."
        )
    return Resident(data, batch_size, shuffle, seed, static, what)


def _of_this_host(function, hosts, what):
    context = tf.distribute.InputContext(
        num_input_pipelines=hosts.count,
        input_pipeline_id=hosts.index,
        num_replicas_in_sync=hosts.replicas,
    )
    dataset = function(context)
    if not isinstance(dataset, tf.data.Dataset):
        raise TermwiseTypeError(
            f"{what} is a function that returned {type(dataset).__name__}. Return a batched "
            "tf.data.Dataset of this host's part of each global batch."
        )
    return dataset


def default_batch(data, size: int | None = None) -> int | None:
    """The batch of arrays that are only read, `size` or 64; None for a dataset: it has its own."""
    return None if isinstance(data, tf.data.Dataset) or callable(data) else size or 64


class Stream:
    """A tf.data pipeline of global batches, repeated without end when training.

    A function of a `tf.distribute.InputContext` gives each host its own pipeline, of its part of
    each global batch.

    Attributes:
      element_spec: of one batch.
      steps_per_epoch: int; None when tf.data does not know, -1 when there is no end.
      examples: None; a pipeline does not say.
    """

    examples = None
    indexed = False

    def __init__(self, dataset, what, hosts=None, gpu=None):
        self.dataset = dataset
        self.gpu = gpu
        self.what = what
        self.hosts = hosts
        self.per_host = hosts is not None
        self.element_spec = dataset.element_spec
        self.iterator: Any = None
        unpack(self.element_spec)
        for spec in tf.nest.flatten(self.element_spec):
            if isinstance(spec, tf.TensorSpec) and spec.shape.rank == 0:
                raise TermwiseError(
                    f"{what} yields scalars, so it is not batched. Call .batch(global_batch) on it."
                )
        cardinality = int(dataset.cardinality())
        if cardinality == 0:
            raise TermwiseError(f"{what} is an empty dataset. Give at least one batch.")
        self.steps_per_epoch = cardinality if cardinality > 0 else None
        if cardinality == tf.data.INFINITE_CARDINALITY:
            self.steps_per_epoch = -1
            if what == "validation_data":
                raise TermwiseError(
                    "validation_data is an infinite dataset, and one evaluation reads all of it. "
                    "Give data that ends: .take(batches)."
                )

    @property
    def batch_size(self):
        """The static global batch, or None."""
        own = tf.nest.flatten(self.element_spec)[0].shape[0]
        return own * self.hosts.count if self.per_host and own else own

    def count_steps(self) -> int:
        """Steps per epoch by going through the data once; for pipelines of unknown length."""
        return int(self.dataset.reduce(np.int64(0), lambda count, *_: count + 1))

    def start(self, position: int) -> None:
        """Opens the repeated pipeline at a batch; `position` batches are skipped."""
        dataset = self.dataset.repeat()
        if position:
            dataset = dataset.skip(position)
        self.iterator = iter(prefetched(dataset, self.gpu))

    @property
    def feed(self):
        """What a traced loop is given: the iterator."""
        return self.iterator

    @property
    def key(self):
        """What a traced loop depends on beside the structure: nothing."""
        return None

    def next(self, position=None, feed=None):
        """The next batch, of this pipeline or of a loop's `feed`; it keeps its own place."""
        return next(self.iterator if feed is None else feed)

    def reread(self, position: int, count: int):
        """The batches from a position on, by a pass of its own: to look for what was wrong."""
        return iter(self.dataset.repeat().skip(position).take(count))

    def batches(self):
        """The batches of one pass over the data, for evaluation.

        Where each host has its own, also 1.0, or 0.0 for what fills up to the longest host's.
        """
        if not self.per_host:
            return iter(prefetched(self.dataset, self.gpu))
        own = self.steps_per_epoch or self.count_steps()
        longest = int(self.hosts.exchange(own).max())
        counted = self.dataset.map(lambda *batch: (_joined(batch), 1.0))
        filling = self.dataset.take(1).repeat().map(lambda *batch: (_joined(batch), 0.0))
        dataset = counted.concatenate(filling).take(longest)
        return iter(dataset.prefetch(tf.data.AUTOTUNE))


def _joined(batch):
    return batch[0] if len(batch) == 1 else batch


class Resident:
    """Arrays that stay on the device; a batch is a function of its position.

    Position p is batch p % steps_per_epoch of epoch p // steps_per_epoch. The last batch of
    an epoch is short when the batch does not divide the examples.

    Attributes:
      augment: an `Augment` of the batches that train, or None.
      copied, ahead: bool, whether an epoch's arrays are laid out in its order, and the next one's.
    """

    indexed = True
    per_host = False
    augment: Any = None

    def __init__(self, arrays, batch_size, shuffle, seed, static, what):
        self.what = what
        self.arrays = tf.nest.map_structure(lambda a: _to_tensor(a, what), arrays)
        unpack(self.arrays)
        flat = tf.nest.flatten(self.arrays)
        if not flat:
            raise TermwiseTypeError(f"{what} holds no array. Give {ACCEPTED}.")
        lengths = [int(a.shape[0]) for a in flat]
        if len(set(lengths)) > 1:
            raise TermwiseError(
                f"{what} holds arrays of different lengths: {lengths}. "
                "Each has one row per example."
            )
        self.examples = lengths[0]
        if not self.examples:
            raise TermwiseError(f"{what} holds no examples. Give at least one.")
        if batch_size is None:
            raise TermwiseError(f"{what} is arrays, so batch_size= is needed: the global batch.")
        if not is_whole(batch_size) or batch_size < 1:
            raise TermwiseError(f"batch_size={batch_size!r}: give a whole number of at least 1.")
        if not is_whole(seed):
            raise TermwiseError(f"seed={seed!r}: give a whole number.")
        self.batch_size = min(int(batch_size), self.examples)
        self.shuffle = shuffle
        self.seed = seed
        self.steps_per_epoch = -(-self.examples // self.batch_size)
        whole = static and self.examples % self.batch_size == 0
        self.feed = self.arrays  # what a traced loop is given
        size = sum(array.shape.num_elements() * array.dtype.size for array in flat)
        self.copied = shuffle and size <= COPIED_BYTES
        self.ahead = shuffle and size <= AHEAD_BYTES
        rows = self.batch_size if whole else None
        self.element_spec = tf.nest.map_structure(
            lambda a: tf.TensorSpec([rows, *a.shape[1:]], a.dtype), self.arrays
        )

    def start(self, position: int) -> None:
        """Nothing to open: a batch is a function of its position."""

    @property
    def key(self):
        """What a traced loop depends on beside the structure: how batches are drawn."""
        return self.examples, self.batch_size, self.shuffle, self.seed, self.augment

    def next(self, position):
        """The batch at `position`, int64 []."""
        epoch, batch = position // self.steps_per_epoch, position % self.steps_per_epoch
        start = batch * self.batch_size
        end = tf.minimum(start + self.batch_size, self.examples)
        if not self.shuffle:
            batch = tf.nest.map_structure(lambda a: a[start:end], self.arrays)
        else:
            index = self._shuffled(tf.range(start, end), epoch)
            batch = tf.nest.map_structure(lambda a: tf.gather(a, index), self.arrays)
        return self._augmented(self._shaped(batch), position)

    def order(self, epoch):
        """int32 [examples], the order of the examples in an epoch, int64 []."""
        return tf.cast(self._shuffled(tf.range(self.examples, dtype=tf.int64), epoch), tf.int32)

    def laid_out(self, feed, order):
        """What `drawn` takes batches from: arrays in an order, int32 [examples], or the order."""
        if not self.copied:
            return order
        return tf.nest.map_structure(lambda a: tf.gather(a, order), feed)

    def drawn(self, feed, laid_out, position, batch, whole=False):
        """Batch `batch`, int32 [], of the epoch that is laid out: that at `position`.

        Args:
          whole: whether it is known not to be a short one at an epoch's end.
        """
        start, count = batch * self.batch_size, self.batch_size
        if not whole and self.examples % self.batch_size:
            count = tf.minimum(count, self.examples - start)

        def slices(arrays):
            return tf.nest.map_structure(
                lambda a: tf.slice(a, [start, *[0] * (a.shape.rank - 1)], [count, *a.shape[1:]]),
                arrays,
            )

        if not self.shuffle:
            drawn = slices(feed)
        elif self.copied:
            drawn = slices(laid_out)
        else:
            index = slices(laid_out)
            drawn = tf.nest.map_structure(lambda a: tf.gather(a, index), feed)
        return self._augmented(drawn if whole else self._shaped(drawn), position)

    def _augmented(self, batch, position):
        return batch if self.augment is None else self.augment(batch, position)

    def _shuffled(self, index, epoch):
        seed = tf.cast(tf.stack([self.seed, epoch // 2**31, epoch % 2**31]), tf.uint32)
        last = tf.constant(self.examples - 1, tf.int64)
        return tf.raw_ops.RandomIndexShuffle(index=index, seed=seed, max_index=last)

    def _shaped(self, batch):
        return tf.nest.map_structure(
            lambda t, spec: tf.ensure_shape(t, spec.shape), batch, self.element_spec
        )

    def batches(self):
        """The batches of one pass over the data, for evaluation."""
        dataset = tf.data.Dataset.from_tensor_slices(self.arrays).batch(self.batch_size)
        options = tf.data.Options()
        options.experimental_warm_start = True
        return iter(dataset.with_options(options).prefetch(tf.data.AUTOTUNE))


def _to_tensor(array, what):
    if callable(getattr(array, "__next__", None)) or callable(array):
        raise TermwiseTypeError(
            f"{what} is a {type(array).__name__}. Accepted: {ACCEPTED}. Wrap a generator with "
            "tf.data.Dataset.from_generator."
        )
    if array is None or isinstance(array, (tf.data.Dataset, keras.utils.PyDataset, str, set)):
        holds = "is" if array is None else "holds a"
        raise TermwiseTypeError(
            f"{what} {holds} {'None' if array is None else type(array).__name__}, which is no "
            f"array. Accepted: {ACCEPTED}."
        )
    try:
        array = array if tf.is_tensor(array) else np.asarray(array)
        if isinstance(array, np.ndarray) and array.dtype == np.float64:
            array = array.astype(keras.config.floatx())
        tensor = tf.convert_to_tensor(array)
    except (TypeError, ValueError) as error:
        raise TermwiseTypeError(
            f"{what} holds a {type(array).__name__} that is no array. Accepted: {ACCEPTED}."
        ) from error
    if tensor.shape.rank == 0:
        raise TermwiseTypeError(
            f"{what} holds a single {tensor.dtype.name}, not an array. Accepted: {ACCEPTED}; "
            "make lists of numbers arrays with np.asarray."
        )
    return tensor
