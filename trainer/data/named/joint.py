"""Several named sources as one: a batch holds one of each, the main source's first."""

from __future__ import annotations

import collections
import copy
import dataclasses
import functools
import itertools
import keyword
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from trainer.data.batch import JointBatch
from trainer.data.named.rates import Rate, rate_of
from trainer.data.prefetch import prefetched
from trainer.data.source import Source

MOST_RATES = 3
NO_RATES: Mapping[str, Rate] = {}
NO_SEEDS: Mapping[str, int] = {}


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
      rates: name -> `Rate` of those that not every step draws. A batch then holds something of
        theirs all the same, which is of no use.
      seeds: name -> int, of what is drawn with a probability; 0 by default.
    Attributes:
      said: the rates as the user gave them; in a phase, `rates` may be others.
    Raises:
      ValueError: a name or a rate that cannot be one.
    """

    def __init__(
        self,
        parts: Mapping[str, Source],
        what: str,
        rates: Mapping[str, Rate] = NO_RATES,
        seeds: Mapping[str, int] = NO_SEEDS,
    ):
        self.parts: dict[str, Any] = dict(parts)
        self.what, self._seeds = what, dict(seeds)
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
        self.said = {n: self._seeded(n, rate) for n, rate in rates.items() if not rate.always}
        self._set_rates(self.said)
        self.batch_size = self.main.batch_size
        self.shuffle = any(part.shuffle for part in self.parts.values())
        self.tuned = any(part.tuned for part in self.parts.values())
        self.iterator: Any = None
        self._first: list = []

    def _set_rates(self, rates: Mapping[str, Rate]) -> None:
        self.rates = dict(rates)
        self.rated = {name: rate for name, rate in rates.items() if not rate.always}
        self._check_rates()
        # how often a source was drawn before a step: with a probability no function of tensors
        drawn = all(rate.probability is None for rate in rates.values())
        self.indexed = drawn and all(part.indexed for part in self.parts.values())

    def drawn_as(self, noted):
        return self._drawn_at({name: Rate(*fields) for name, fields in noted.items()})

    @property
    def noted_rates(self):
        return {name: dataclasses.astuple(rate) for name, rate in self.rates.items()}

    def _drawn_at(self, rates: Mapping[str, Rate]) -> JointSource:
        """The same sources at other rates; this one where they are its own.

        Raises:
          ValueError: rates that the sources cannot be drawn at.
        """
        if rates == self.rates:
            return self
        copied = copy.copy(self)
        copied.iterator, copied._first = None, []
        copied._set_rates(rates)
        return copied

    def rerated(self, rates, position):
        """The same sources, drawn at the rates of a phase from a position on.

        Each goes on behind the batches that were drawn of it. A source that is not named is drawn
        as the user said.

        Args:
          rates: name -> as `rate_of` takes it.
          position: int.
        Raises:
          ValueError: a source that there is not; rates that the sources cannot be drawn at.
        """
        new = {}
        for name, value in rates.items():
            if name not in self.parts:
                raise TermwiseError(
                    f"rates= names the source {name!r}; the sources are "
                    f"{', '.join(map(repr, self.parts))}."
                )
            rate = self._seeded(name, rate_of(name, value))
            new[name] = dataclasses.replace(rate, start=position)
        return self._drawn_at(self._going_on({**self.said, **new}, position))

    def _seeded(self, name: str, rate: Rate) -> Rate:
        return dataclasses.replace(rate, seed=self._seeds.get(name, 0))

    def _going_on(self, rates: Mapping[str, Rate], position: int) -> dict[str, Rate]:
        """Rates by which each source goes on at a position behind what was drawn of it."""
        names = [name for name in self.parts if name in {**self.rates, **rates}]
        going = {
            name: rates.get(name, Rate()).from_now(position, self.place_of(name, position))
            for name in names
        }
        return {name: rate for name, rate in going.items() if rate != Rate()}

    def _check_rates(self) -> None:
        for name in self.rated:
            spec = tf.nest.flatten(self.parts[name].element_spec)
            if name == next(iter(self.parts)):
                raise TermwiseError(
                    f"{self.what}: {name!r} is the main source, which every step draws. Give the "
                    f"rate to another one, or call main() of another one first."
                )
            if not all(isinstance(part, tf.TensorSpec) for part in spec):
                raise TermwiseError(
                    f"{self.what}: source {name!r} has ragged or sparse batches, and is drawn "
                    f"{self.rates[name]}. Give dense ones, or draw it at every step."
                )
        if len(self.rated) > MOST_RATES:
            raise TermwiseError(
                f"{self.what}: {len(self.rated)} sources have rates of their own. Give at most "
                f"{MOST_RATES}: a step is traced for each set of them."
            )

    def which(self, position) -> tf.Tensor:
        """int32 [], which of the `subsets` it is at a position, int64 []."""
        if not self._sometimes:
            return tf.zeros([], tf.int32)
        drawn = [rate.drawn(position) for rate in self._sometimes.values()]
        return tf.add_n([tf.cast(d, tf.int32) * 2**bit for bit, d in enumerate(drawn)])

    @property
    def subsets(self) -> list[frozenset[str]]:
        """The sources that a step may have no batch of, one set for each number of `which`."""
        numbers = range(2 ** len(self._sometimes))
        bits = list(enumerate(self._sometimes))
        never = {name for name, rate in self.rated.items() if rate.never}
        return [
            frozenset(never.union(name for bit, name in bits if not n >> bit & 1)) for n in numbers
        ]

    @property
    def _sometimes(self) -> dict[str, Rate]:
        """The rates of the sources that some steps draw and others do not."""
        return {name: rate for name, rate in self.rated.items() if not rate.never}

    def without(self, undrawn: frozenset[str], batch):
        if not undrawn:
            return batch
        names = tuple(name for name in self.parts if name not in undrawn)
        return joint_type(names)(*(getattr(batch, name) for name in names))

    def whole(self):
        if self.rated:
            raise TermwiseError(
                f"{self.what}: source {next(iter(self.rated))!r} is not drawn at every step, as a "
                "phase of a second-order optimizer draws all. Drop every() and sampled(), or give "
                "that phase rates= of 1."
            )
        return JointSource({name: part.whole() for name, part in self.parts.items()}, self.what)

    def joined(self, values) -> Any:
        """One value for each source, in the nesting of a batch."""
        return self.type(*values)

    def count_steps(self) -> int:
        """Steps per epoch by going through the main source, once."""
        return self.main.count_steps()

    @property
    def key(self):
        keys = [(name, part.key, self.rates.get(name)) for name, part in self.parts.items()]
        return None if all(key is None and rate is None for _, key, rate in keys) else tuple(keys)

    def keep_shuffling(self, shuffling: int) -> None:
        for part in self.parts.values():
            part.keep_shuffling(shuffling)

    def describe(self):
        described = {name: part.describe() for name, part in self.parts.items()}
        rates = {name: str(rate) for name, rate in self.said.items()}
        for name, rate in rates.items():
            described[name] = {**described[name], "rate": rate}
        return {"kind": "sources", "sources": described}

    def batch_at(self, position, xla: bool = False, order=None):
        """The batches at a position, int64 []; of arrays.

        Args:
          xla: as in `ArraySource.batch_at`.
          order: name -> int32 [examples], the orders of their epochs, where they are known.
        """
        orders = order or {}
        return self.joined(
            part.batch_at(self.place_of(name, position), xla, orders.get(name))
            for name, part in self.parts.items()
        )

    def place_of(self, name: str, position):
        """Where a source stands at a position: how often it was drawn before."""
        rate = self.rates.get(name)
        return position if rate is None else rate.before(position)

    def first_batch(self):
        if self.indexed:
            return self.batch_at(tf.constant(0, tf.int64))
        self.iterator = iter(prefetched(self.repeated_from(0), tuned=self.tuned))
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
        self.iterator = iter(prefetched(self.repeated_from(position), tuned=self.tuned))

    def repeated_from(self, position):
        parts = [self._part_from(name, part, position) for name, part in self.parts.items()]
        return tf.data.Dataset.zip(tuple(parts)).map(_flat)

    def _part_from(self, name: str, part: Source, position: int) -> tf.data.Dataset:
        """The batches of a source from a position on, with zeros where it is not drawn."""
        batches = part.repeated_from(self.place_of(name, position))
        if name not in self.rated:
            return batches
        zeros = [
            tf.zeros([size or 1 for size in spec.shape], spec.dtype)
            for spec in tf.nest.flatten(part.element_spec)
        ]
        nothing = tf.data.Dataset.from_tensors(tuple(zeros)).repeat()
        positions = tf.data.Dataset.range(position, np.iinfo(np.int64).max)
        choices = positions.map(lambda p: tf.cast(self.rates[name].drawn(p), tf.int64))
        return tf.data.Dataset.choose_from_datasets([nothing, batches.map(_flat)], choices)

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
        return iter(prefetched(self.one_pass(), tuned=self.tuned))

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

    def places_at(self, position):
        return [(part, self.place_of(name, position)) for name, part in self.parts.items()]

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
