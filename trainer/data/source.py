"""What all sources of batches have in common: pipelines and arrays."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import Any

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
      passed: what the user passed.
    """

    what: str
    element_spec: Any
    steps_per_epoch: int | None
    examples: Any = None
    indexed: bool = False
    per_host: bool = False
    shuffle: bool = False
    shuffling: int = SHUFFLING
    passed: Any = None

    @abc.abstractmethod
    def describe(self) -> dict:
        """By what the same data are known when they are given again; plain values."""

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
