"""From what the user passes as data to a source of batches."""

from __future__ import annotations

import functools
import inspect
import zlib

import tensorflow as tf

from losses.errors import TermwiseError, TermwiseTypeError
from trainer.data.arrays import ArraySource
from trainer.data.augment import augmented
from trainer.data.dataset import DatasetSource
from trainer.data.named import JointSource, Sources
from trainer.data.source import Source, of_generator


def open_sources(data, *, batch_size, shuffle, augment, seed, static, what, hosts) -> Source:
    """The source of what the user gave, `Sources` or data without names.

    Args:
      data, batch_size, shuffle, augment: as `Trainer.fit` takes them: of `Sources` a dict by name,
        or one for all.
      seed, static, what, hosts: as in `open_data`.
    Raises:
      ValueError, TypeError: as `open_data`; something given for a source that there is not.
    """
    if not isinstance(data, Sources):
        source = open_data(
            data,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            static=static,
            what=what,
            hosts=hosts,
        )
        source.passed = None if source.indexed else data
        return augmented(source, augment, seed)
    if callable(augment):
        raise TermwiseTypeError(
            "augment= is one function for several sources. Give a dict: augment={"
            f"{data.names[0]!r}: function}}."
        )
    arguments = {"batch_size": batch_size, "shuffle": shuffle, "augment": augment}
    for argument, value in arguments.items():
        data.check_names(value if isinstance(value, dict) else {}, f"{argument}=")
    parts: dict[str, Source] = {}
    for name, part in data.data.items():
        of_part = {key: _of_source(key, value, name, part) for key, value in arguments.items()}
        parts[name] = open_sources(
            part,
            **of_part,
            seed=seed_of(seed, name) if parts else seed,
            static=static,
            what=f"{what}[{name!r}]",
            hosts=hosts,
        )
        parts[name].name = name
    seeds = {name: seed_of(seed, name) for name in parts}
    return JointSource(parts, what, data.rates, seeds)


def seed_of(seed: int, name: str) -> int:
    """The seed of a source beside the main one: sources of one size have orders of their own."""
    return seed + zlib.crc32(name.encode())


def _of_source(argument: str, value, name: str, part):
    """What an argument is for one source of several."""
    if isinstance(value, dict):
        return value.get(name, argument == "shuffle" or None)
    return None if argument == "batch_size" and isinstance(part, tf.data.Dataset) else value


def open_data(
    data, *, batch_size=None, shuffle=False, seed=0, static=False, what="data", hosts=None
):
    """The source of data without names.

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
    if inspect.isgeneratorfunction(data):
        raise TermwiseTypeError(f"{what} is a generator function. {of_generator()}")
    of_host = hosts if inspect.isroutine(data) or isinstance(data, functools.partial) else None
    if of_host is not None:
        data = _of_this_host(data, of_host, what)
    if isinstance(data, tf.data.Dataset):
        if batch_size is not None:
            raise TermwiseError(
                f"{what} is a tf.data.Dataset, which brings its own batches, but batch_size="
                f"{batch_size} was given too. Drop batch_size=, or pass arrays."
            )
        return DatasetSource(data, what, of_host, hosts.gpu if hosts else None)
    if isinstance(data, tf.distribute.DistributedDataset):
        raise TermwiseTypeError(
            f"{what} is a distributed dataset. Pass the plain tf.data.Dataset of global batches; "
            "the Trainer gives each replica its share."
        )
    while type(data) is tuple and len(data) > 1 and data[-1] is None:
        data = data[:-1]  # (x, y, None) is (x, y)
    return ArraySource(data, batch_size, shuffle, seed, static, what)


def _of_this_host(function, hosts, what):
    context = tf.distribute.InputContext(
        num_input_pipelines=hosts.count,
        input_pipeline_id=hosts.index,
        num_replicas_in_sync=hosts.replicas,
    )
    if not _takes_one(function):
        raise TermwiseTypeError(
            f"{what} is a function that takes no tf.distribute.InputContext. A function of one "
            "returns this host's batched tf.data.Dataset; pass what yours returns. "
            f"{of_generator()}"
        )
    dataset = function(context)
    if not isinstance(dataset, tf.data.Dataset):
        raise TermwiseTypeError(
            f"{what} is a function that returned {type(dataset).__name__}. Return a batched "
            "tf.data.Dataset of this host's part of each global batch."
            f"{' ' + of_generator() if inspect.isgenerator(dataset) else ''}"
        )
    return dataset


def _takes_one(function) -> bool:
    """Whether a function can be called with one argument."""
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        return False
    except ValueError:  # one that does not say
        return True
    return True


def default_batch(data, size=None):
    """The batch of arrays that are only read, `size` or 64; None for a dataset: it has its own.

    Args:
      data: as in `open_sources`.
      size: int, or a dict by source; None: 64.
    """
    if isinstance(data, Sources):
        sizes = size if isinstance(size, dict) else dict.fromkeys(data.names, size)
        return {name: default_batch(part, sizes.get(name)) for name, part in data.data.items()}
    if isinstance(size, dict):
        size = next(iter(size.values()))
    return None if isinstance(data, tf.data.Dataset) or callable(data) else size or 64


def reading_batch(data, batch_size):
    """`batch_size=` of what is only read: as it was given, which may be wrong, or the default.

    Data without names are those of the main source, the first of a dict by source.
    """
    of_main = isinstance(batch_size, dict) and batch_size and not isinstance(data, Sources)
    return default_batch(data, batch_size) if batch_size is None or of_main else batch_size
