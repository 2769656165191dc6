"""Batches of arrays that stay on the device: each a function of its position."""

from __future__ import annotations

import copy
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError, TermwiseTypeError
from trainer.data.batch import is_whole, unpack
from trainer.data.given.arrays_of_others import array_of, check_aligned
from trainer.data.lengths import about_lists, check_lengths
from trainer.data.permutation import order_of_epoch
from trainer.data.prefetch import prefetched
from trainer.data.same import sample
from trainer.data.source import ACCEPTED, Source

# Arrays up to this size are copied in the order of each epoch: a slice is faster than a gather;
# up to the other, in that of the following epoch too, while the present one trains.
COPIED_BYTES, AHEAD_BYTES = 2**28, 2**24


class ArraySource(Source):
    """Arrays that stay on the device; a batch is a function of its position.

    Position p is batch p % steps_per_epoch of epoch p // steps_per_epoch. The last batch of
    an epoch is short when the batch does not divide the examples.

    Attributes:
      augment: an `Augment` of the batches that train, or None.
      copied, ahead: bool, whether an epoch's arrays are laid out in its order, and the next one's.
    """

    indexed = True
    augment: Any = None

    def __init__(self, arrays, batch_size, shuffle, seed, static, what):
        self.what = what
        check_aligned(arrays, what)
        self.arrays = tf.nest.map_structure(lambda a: _to_tensor(a, what), arrays)
        unpack(self.arrays)
        flat = tf.nest.flatten(self.arrays)
        if not flat:
            raise TermwiseTypeError(f"{what} holds no array. Give {ACCEPTED}.")
        check_lengths(self.arrays, what)
        self.examples: int = int(flat[0].shape[0])
        if not self.examples:
            raise TermwiseError(f"{what} holds no examples. Give at least one.")
        if batch_size is None:
            raise TermwiseError(
                f"{what} is arrays, so batch_size= is needed: the global batch."
                f"{about_lists(self.arrays)}"
            )
        if not is_whole(batch_size) or batch_size < 1:
            raise TermwiseError(f"batch_size={batch_size!r}: give a whole number of at least 1.")
        if not isinstance(shuffle, bool | np.bool_):
            raise TermwiseTypeError(f"shuffle={shuffle!r}: give True or False.")
        if not is_whole(seed):
            raise TermwiseError(f"seed={seed!r}: give a whole number.")
        self.batch_size = min(int(batch_size), self.examples)
        self.shuffle = bool(shuffle)
        self.seed = seed
        self.steps_per_epoch = -(-self.examples // self.batch_size)
        whole = static and self.examples % self.batch_size == 0
        size = sum(array.shape.num_elements() * array.dtype.size for array in flat)
        self.copied = shuffle and size <= COPIED_BYTES
        self.ahead = shuffle and size <= AHEAD_BYTES
        rows = self.batch_size if whole else None
        self.element_spec = tf.nest.map_structure(
            lambda a: tf.TensorSpec([rows, *a.shape[1:]], a.dtype), self.arrays
        )

    def whole(self):
        if self.augment is not None:
            raise TermwiseError(
                f"{self.what} is augmented, and a phase of a second-order optimizer takes the same "
                "data in each step. Drop augment=, or augment the arrays beforehand."
            )
        source = copy.copy(self)
        source.batch_size, source.steps_per_epoch = self.examples, 1
        source.shuffle = source.copied = source.ahead = False
        source.element_spec = tf.nest.map_structure(tf.TensorSpec.from_tensor, self.arrays)
        return source

    @property
    def key(self):
        """What a traced loop depends on beside the structure: how batches are drawn."""
        drawn = self.shuffle, self.shuffling, self.seed, self.augment
        return self.examples, self.batch_size, *drawn

    def describe(self):
        arrays = tf.nest.flatten(self.arrays)
        return {
            "kind": "arrays",
            "examples": self.examples,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "element": str([(a.dtype.name, list(a.shape[1:])) for a in arrays]),
            "values": [sample(a) for a in arrays],
        }

    def batch_at(self, position, xla: bool = False, order=None):
        """The batch at a position.

        Args:
          position: int64 [].
          xla: whether what is augmented is drawn by XLA.
          order: int32 [examples], that of its epoch, where it is known.
        """
        epoch, batch = position // self.steps_per_epoch, position % self.steps_per_epoch
        start = batch * self.batch_size
        end = tf.minimum(start + self.batch_size, self.examples)
        if not self.shuffle:
            batch = tf.nest.map_structure(lambda a: a[start:end], self.arrays)
        else:
            index = (self.order(epoch) if order is None else order)[start:end]
            batch = tf.nest.map_structure(lambda a: tf.gather(a, index), self.arrays)
        return self._augmented(self._shaped(batch), position, xla)

    def order(self, epoch):
        """int32 [examples], the order of the examples in an epoch, int64 []."""
        return order_of_epoch(self.examples, self.seed, epoch, self.shuffling)

    def laid_out(self, arrays, order):
        """An epoch's arrays: those given in an order, int32 [examples], or the order itself."""
        if not self.copied:
            return order
        return tf.nest.map_structure(lambda a: tf.gather(a, order), arrays)

    def batch_of_epoch(self, arrays, epoch_arrays, position, batch, whole=False, xla=False):
        """A batch of an epoch.

        Args:
          arrays: the source's.
          epoch_arrays: of `laid_out`; without shuffle ().
          position: int64 [], of the batch.
          batch: int32 [], its number in the epoch.
          whole: whether it is known not to be a short one at an epoch's end.
          xla: whether what is augmented is drawn by XLA.
        """
        if not self.shuffle:
            drawn = self._slices(arrays, batch, whole)
        elif self.copied:
            drawn = self._slices(epoch_arrays, batch, whole)
        else:
            index = self._slices(epoch_arrays, batch, whole)
            drawn = tf.nest.map_structure(lambda a: tf.gather(a, index), arrays)
        return self._augmented(drawn if whole else self._shaped(drawn), position, xla)

    def batch_in_order(self, arrays, order, position, xla=False):
        """A batch of an epoch whose order, int32 [examples], is known; None: the arrays' own.

        Args:
          arrays, position, xla: as in `batch_of_epoch`.
        """
        number = tf.cast(position % self.steps_per_epoch, tf.int32)
        if order is None:
            drawn = self._slices(arrays, number)
        else:
            index = self._slices(order, number)
            drawn = tf.nest.map_structure(lambda a: tf.gather(a, index), arrays)
        return self._augmented(self._shaped(drawn), position, xla)

    @property
    def divides(self) -> bool:
        """Whether all batches have one size."""
        return self.examples % self.batch_size == 0

    def _slices(self, nest, batch, whole=False):
        """A batch's rows of arrays that stand in order; `batch` int32 [], its number."""
        start, count = batch * self.batch_size, self.batch_size
        if not whole and not self.divides:
            count = tf.minimum(count, self.examples - start)
        return tf.nest.map_structure(
            lambda a: tf.slice(a, [start, *[0] * (a.shape.rank - 1)], [count, *a.shape[1:]]), nest
        )

    def _augmented(self, batch, position, xla):
        return batch if self.augment is None else self.augment(batch, position, xla)

    def _shaped(self, batch):
        return tf.nest.map_structure(
            lambda t, spec: tf.ensure_shape(t, spec.shape), batch, self.element_spec
        )

    def first_batch(self):
        return self.batch_at(tf.constant(0, tf.int64))

    def peek(self):
        return self.first_batch()

    def look_again(self, position, count):
        yield self.arrays, self.batch_at(tf.constant(0, tf.int64)), ""

    def batch_again(self, position, last):
        return self.batch_at(tf.constant(position, tf.int64))

    def one_pass(self):
        arrays = tuple(tf.nest.flatten(self.arrays))  # tf.data would stack a list
        dataset = tf.data.Dataset.from_tensor_slices(arrays).batch(self.batch_size)
        options = tf.data.Options()
        options.experimental_warm_start = True
        return dataset.with_options(options)

    def batches(self):
        """The batches of one pass over the data, as flat tuples."""
        return iter(prefetched(self.one_pass(), tuned=False))

    def repeated_from(self, position):
        epoch, first = divmod(position, self.steps_per_epoch)
        end = np.iinfo(np.int64).max

        def of_epoch(epoch):
            order = self.order(epoch) if self.shuffle else tf.range(self.examples)
            return tf.data.Dataset.from_tensor_slices(order).batch(self.batch_size)

        def batch(position, index):
            drawn = tf.nest.map_structure(lambda a: tf.gather(a, index), self.arrays)
            return tuple(tf.nest.flatten(self._augmented(self._shaped(drawn), position, False)))

        indices = tf.data.Dataset.range(epoch, end).flat_map(of_epoch).skip(first)
        return tf.data.Dataset.zip((tf.data.Dataset.range(position, end), indices)).map(batch)


def _to_tensor(value, what):
    array = array_of(value, what)
    try:
        if isinstance(array, np.ndarray) and array.dtype == np.float64:
            array = array.astype(keras.config.floatx())
        tensor = tf.convert_to_tensor(array)
    except (TypeError, ValueError) as error:
        raise TermwiseTypeError(
            f"{what} holds a {type(value).__name__} of {array.dtype} that is no array of numbers. "
            f"Accepted: {ACCEPTED}."
        ) from error
    if tensor.shape.rank == 0:
        raise TermwiseTypeError(
            f"{what} holds a single {tensor.dtype.name}, not an array. Accepted: {ACCEPTED}; "
            "make lists of numbers arrays with np.asarray."
        )
    return tensor
