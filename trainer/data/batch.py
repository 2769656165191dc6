"""One batch: its parts x, y and sample_weight, and a replica's share of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError


class JointBatch:
    """What marks a batch of several sources: a named tuple of one batch of each, the main first."""

    __slots__ = ()


class Share(NamedTuple):
    """A replica's part of one source's batch, and `present`: float32 [], 0 where it is padding."""

    batch: Any
    present: Any


def shares_of(batch, present) -> dict[str | None, Share]:
    """source -> share, the main one first; of data without names the one share, of None.

    Args:
      batch, present: of `Placement.shard`.
    """
    if not isinstance(batch, JointBatch):
        return {None: Share(batch, present)}
    named = batch._asdict()  # type: ignore[attr-defined]
    whole = {name: part for name, part in named.items() if isinstance(part, Share)}
    return {name: whole.get(name, Share(part, None)) for name, part in named.items()}


def main_part(batch):
    """The main source's part of a batch or its spec; of data without names all of it."""
    return next(iter(shares_of(batch, None).values())).batch


def unpack(batch):
    """`(x, y, sample_weight)` of a batch, of several sources the main one's; None: not there."""
    batch = main_part(batch)
    if isinstance(batch, tuple):
        if not 1 <= len(batch) <= 3:
            raise TermwiseError(
                f"The data yields a tuple of {len(batch)}. Accepted: x, (x,), (x, y) or "
                "(x, y, sample_weight); an x that is itself a tuple comes as (x,)."
            )
        return (*batch, None, None)[:3]
    return batch, None, None


def parts_by_name(batch) -> dict[str, Any]:
    """The parts of a batch by where they stand: `x`, `x['image']`, `y[0]`, `sample_weight`."""
    named: dict[str, Any] = {}
    for part, nest in zip(("x", "y", "sample_weight"), unpack(batch), strict=True):
        for path, leaf in keras.tree.flatten_with_path(nest):
            if getattr(leaf, "shape", None) is not None:
                named[part + "".join(f"[{key!r}]" for key in path)] = leaf
    return named


def examples_in(batch) -> tf.Tensor:
    """int32 [], the number of examples of a batch."""
    return tf.shape(tf.nest.flatten(batch)[0])[0]


def share(batch, replica, replicas, maybe_empty=False):
    """One replica's part of a global batch, and 1.0, or 0.0 where that part is empty.

    The parts are contiguous and differ by one example at most. Where the batch's static size says
    that they do not differ, they have a static size too, and None stands for 1.0.

    A replica without examples is given one of its neighbour's with a share of 0, so that no
    function of the user's ever sees an empty batch. Where the whole batch may be empty (a host's
    own), the lent example is zeros.
    """
    if replicas == 1 and not maybe_empty:
        return batch, None
    static = tf.nest.flatten(batch)[0].shape[:1].num_elements()  # None where it is unknown
    if static and static % replicas == 0:
        size = static // replicas
        return tf.nest.map_structure(lambda t: _slice(t, replica * size, size), batch), None
    examples = examples_in(batch)
    if maybe_empty:
        batch = tf.nest.map_structure(lambda t: _one_of_zeros(t, examples), batch)
    start = examples * replica // replicas
    end = examples * (replica + 1) // replicas
    alive = tf.cast(end > start, tf.float32)
    start = tf.maximum(tf.minimum(start, examples - 1), 0)
    end = tf.maximum(end, start + 1)
    return tf.nest.map_structure(lambda t: t[start:end], batch), alive


def _slice(tensor, start, size):
    part = tensor[start : start + size]
    if isinstance(part, tf.Tensor):
        part.set_shape([size, *tensor.shape[1:]])
    return part


def _one_of_zeros(tensor, examples):
    """The tensor, or one example of zeros where it has none."""
    missing = tf.cast(examples == 0, tf.int32)
    shape = tf.concat([[missing], tf.shape(tensor)[1:]], 0)
    padded = tf.concat([tensor, tf.zeros(shape, tensor.dtype)], 0)
    padded.set_shape([None, *tensor.shape[1:]])
    return padded


def is_whole(number) -> bool:
    """Whether a value is a whole number; True and False are not."""
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool)
