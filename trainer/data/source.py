"""What all sources of batches have in common: pipelines and arrays."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from losses.errors import TermwiseError
from trainer.data.permutation import SHUFFLING

ACCEPTED = (
    "a tf.data.Dataset batched to the global batch, or arrays with batch_size=; "
    "x, (x,), (x, y) or (x, y, sample_weight)"
)


SIGNATURE = "output_signature=(tf.TensorSpec([None, ...], tf.float32), ...)"


def of_generator() -> str:
    """What to write for a generator, or a function that makes one."""
    return (
        f"Write tf.data.Dataset.from_generator(function, {SIGNATURE}), of a function that makes "
        "the generator anew at each call and yields global batches."
    )


def of_py_dataset(what: str) -> str:
    """What to write for a `keras.utils.PyDataset`."""
    return (
        f"Write tf.data.Dataset.from_generator(lambda: ({what}[i] for i in range(len({what}))), "
        f"{SIGNATURE})."
    )


class Source(abc.ABC):
    """Where batches come from.

    Attributes:
      what: the argument's name, for errors.
      element_spec: of one batch.
      batch_size: int, the static global batch, or None.
      steps_per_epoch: int; None when it is not known, -1 when there is no end.
      examples: int; None when it is not known.
      indexed: whether a batch is a function of its position.
      per_host: whether a batch holds this host's examples alone.
      shuffle: whether the order is drawn anew for each epoch here.
      shuffling: which permutation that is, of `trainer.data.permutation`.
      tuned: whether TensorFlow tunes the pipeline that is read, see `prefetched`.
      passed: what the user passed.
      name: of one of several sources, else None.
    """

    what: str
    element_spec: Any
    batch_size: Any
    steps_per_epoch: int | None
    examples: Any = None
    indexed: bool = False
    per_host: bool = False
    shuffle: bool = False
    shuffling: int = SHUFFLING
    tuned: bool = False
    passed: Any = None
    name: str | None = None

    @abc.abstractmethod
    def describe(self) -> dict:
        """By what the same data are known when they are given again; plain values."""

    @abc.abstractmethod
    def one_pass(self) -> tf.data.Dataset:
        """The batches of one pass over the data; their tensors in order."""

    @abc.abstractmethod
    def repeated_from(self, position: int) -> tf.data.Dataset:
        """The batches from one on, pass after pass without end; their tensors in order."""

    def structured(self, batch):
        """A batch whose tensors are in order, in the nesting of the data."""
        tensors = tf.nest.flatten(batch, expand_composites=True)
        return tf.nest.pack_sequence_as(self.element_spec, tensors, expand_composites=True)

    @property
    def counts_spec(self) -> tf.TensorSpec | None:
        """The spec of what `batches` adds to a batch: whether it counts; None: nothing."""
        return tf.TensorSpec([], tf.float32) if self.per_host else None

    @abc.abstractmethod
    def peek(self):
        """The first batch, read by itself: the data are not opened by it."""

    @property
    def batch_sizes(self):
        """`batch_size`; of several sources a dict by name."""
        return self.batch_size

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the sources, the main one first; none without names."""
        return ()

    def each(self) -> list[Source]:
        """The sources that these data are of: this one."""
        return [self]

    def places_at(self, position: int) -> list[tuple[Source, int]]:
        """The sources, and the batch that each gives at a position."""
        return [(self, position)]

    @property
    def subsets(self) -> list[frozenset[str]]:
        """The sources that a step may have no batch of, one set for each number of `which`."""
        return [frozenset()]

    def which(self, position) -> tf.Tensor:
        """int32 [], which of the `subsets` it is at a position, int64 []."""
        return tf.zeros([], tf.int32)

    def without(self, undrawn: frozenset[str], batch):
        """A batch, or its spec, without some sources."""
        return batch

    def drawn_as(self, noted: Mapping[str, tuple]) -> Source:
        """The same data, drawn at rates that `noted_rates` told."""
        return self

    @property
    def noted_rates(self) -> dict[str, tuple]:
        """name -> fields of the `Rate` of a source that not every step draws, or has not drawn."""
        return {}

    def rerated(self, rates: Mapping[str, Any], position: int) -> Source:
        """The same data, drawn at the rates of a phase from a position on, name -> rate.

        Raises:
          ValueError: rates for data that are no `Sources`.
        """
        if rates:
            raise TermwiseError(
                f"rates= names the source {next(iter(rates))!r}, and {self.what} is no "
                "trainer.Sources. Give the data by name: Sources(main=..., other=...)."
            )
        return self

    def whole(self) -> Source:
        """The same data as one batch, which every step draws.

        Raises:
          ValueError: not all of them are arrays, or they are drawn.
        """
        raise TermwiseError(
            f"{self.what} is a pipeline, and a phase of a second-order optimizer takes all data at "
            "once in each step. Give arrays, with batch_size= for the other phases."
        )

    def keep_shuffling(self, shuffling: int) -> None:
        """Has the order of an epoch drawn as a run began with."""
        self.shuffling = shuffling

    @property
    def key(self):
        """What a traced loop depends on beside the structure of a batch; None: nothing."""
        return None

    @abc.abstractmethod
    def batches(self) -> Iterator:
        """The batches of one pass over the data, for evaluation; their tensors in order."""

    @abc.abstractmethod
    def first_batch(self):
        """The first batch of training, before the data is opened; it comes again."""

    @abc.abstractmethod
    def look_again(self, position: int, count: int) -> Iterator[tuple[Any, Any, str]]:
        """The data of some batches once more, to look for what was wrong.

        Args:
          position, count: the first batch, and how many.
        Yields:
          the values to look through; a batch, which the model takes; where they stand, in words.
        """

    @abc.abstractmethod
    def batch_again(self, position: int, last):
        """The batch of a step that has failed: that at a position, or the last that was kept."""
