"""Several named sources as one: a batch holds one of each, the main source's first."""

from __future__ import annotations

import collections
import functools
import itertools
import keyword
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from losses.errors import TermwiseError
from trainer.data.batch import JointBatch
from trainer.data.prefetch import prefetched
from trainer.data.source import Source


@functools.cache
def joint_type(names: tuple[str, ...]) -> Any:
    """The type of a batch of sources of these names; the same at each call."""
    fields = collections.namedtuple("fields", names)  # type: ignore[misc]
    return type("Batches", (JointBatch, fields), {"__slots__": ()})


def checked_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of sources. ValueError: one that cannot be one."""
    for name in names:
        if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
            raise TermwiseError(
                f"Source {name!r}: its name is to be letters, digits and underscores, none of "
                "Python's words, such as 'unlabelled'."
            )
    return names


class JointSource(Source):
    """Several sources, each with its own batches, order and position.

    Batch p holds batch p of each; the main source's passes are the epochs. A source that has come
    to its end begins anew. Arrays are read on the device where all sources are arrays; with a
    pipeline among them all are read as pipelines.

    Args:
      parts: name -> source, the main one first.
      what: the argument's name, for errors.
    """

    def __init__(self, parts: Mapping[str, Source], what: str):
        self.parts: dict[str, Any] = dict(parts)
        self.what = what
        names = checked_names(tuple(parts))
        self.type = joint_type(names)
        for name, part in self.parts.items():
            if part.steps_per_epoch == 1:
                part.shuffle = False  # a batch that holds all examples has no need of an order
            if part.per_host:
                raise TermwiseError(
                    f"{what}: source {name!r} is a function of an input context. Give the dataset "
                    "of global batches: each host takes its share of it."
                )
        self.main: Any = next(iter(self.parts.values()))
        self.element_spec = self.joined(part.element_spec for part in self.parts.values())
        self.examples, self.steps_per_epoch = self.main.examples, self.main.steps_per_epoch
        self.indexed = all(part.indexed for part in self.parts.values())
        self.batch_size = self.main.batch_size
        self.shuffle = any(part.shuffle for part in self.parts.values())
        self.iterator: Any = None
        self._first: list = []

    def joined(self, values) -> Any:
        """One value for each source, in the nesting of a batch."""
        return self.type(*values)

    def count_steps(self) -> int:
        """Steps per epoch by going through the main source, once."""
        return self.main.count_steps()

    @property
    def key(self):
        keys = [(name, part.key) for name, part in self.parts.items()]
        return None if all(key is None for _, key in keys) else tuple(keys)

    def keep_shuffling(self, shuffling: int) -> None:
        for part in self.parts.values():
            part.keep_shuffling(shuffling)

    def describe(self):
        described = {name: part.describe() for name, part in self.parts.items()}
        return {"kind": "sources", "sources": described}

    def batch_at(self, position, xla: bool = False, order=None):
        """The batches at a position, int64 []; of arrays.

        Args:
          xla: as in `ArraySource.batch_at`.
          order: name -> int32 [examples], the orders of their epochs, where they are known.
        """
        orders = order or {}
        return self.joined(
            part.batch_at(position, xla, orders.get(name)) for name, part in self.parts.items()
        )

    def first_batch(self):
        if self.indexed:
            return self.batch_at(tf.constant(0, tf.int64))
        self.iterator = iter(prefetched(self.repeated_from(0)))
        for batch in itertools.islice(self.iterator, 1):
            self._first = [batch]
            return self.structured(batch)
        raise TermwiseError(f"{self.what} holds an empty dataset. Give at least one batch.")

    def start(self, position: int, on_gpu: bool = True) -> None:
        """Opens all sources at a batch, as pipelines."""
        if self._first:
            batches = itertools.chain(self._first, self.iterator)
            self._first, self.iterator = [], itertools.islice(batches, position, None)
            return
        self.iterator = iter(prefetched(self.repeated_from(position)))

    def repeated_from(self, position):
        parts = [part.repeated_from(position) for part in self.parts.values()]
        return tf.data.Dataset.zip(tuple(parts)).map(_flat)

    def one_pass(self):
        """The batches of `batches`, with what they count."""
        parts = [_counted(part) for part in self.parts.values()]

        def join(*pairs):
            batches, counts = zip(*pairs, strict=True)
            return *_flat(*batches), tf.stack(counts)

        joined = tf.data.Dataset.zip(tuple(parts)).map(join)
        return joined.take_while(lambda *flat: tf.reduce_any(flat[-1] > 0))

    def batches(self) -> Iterator:
        """The batches of one pass over each source, and float32 [sources], 0 where it has ended.

        A source that ends before the others gives its first batch again, which counts for nothing.
        """
        return iter(prefetched(self.one_pass()))

    @property
    def batch_sizes(self):
        return {name: part.batch_size for name, part in self.parts.items()}

    @property
    def counts_spec(self):
        return tf.TensorSpec([len(self.parts)], tf.float32)

    @property
    def names(self):
        return tuple(self.parts)

    def each(self):
        return list(self.parts.values())

    def look_again(self, position, count):
        yield from self.main.look_again(position, count)

    def peek(self):
        return self.joined(part.peek() for part in self.parts.values())

    def batch_again(self, position, last):
        return self.batch_at(tf.constant(position, tf.int64)) if self.indexed else last


def _flat(*batches) -> tuple:
    """The tensors of some batches in order."""
    return tuple(tf.nest.flatten(batches, expand_composites=True))


def _counted(part: Source) -> tf.data.Dataset:
    """The batches of a pass with 1.0, then the first one without end with 0.0."""
    batches = part.one_pass()
    following = batches.take(1).repeat()
    ones = tf.data.Dataset.from_tensors(1.0).repeat()
    zeros = tf.data.Dataset.from_tensors(0.0).repeat()
    return tf.data.Dataset.zip((batches, ones)).concatenate(tf.data.Dataset.zip((following, zeros)))
