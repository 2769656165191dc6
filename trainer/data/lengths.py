"""The parts of one element have one number of examples: checked before any is shared out."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from losses.errors import TermwiseError
from trainer.data.batch import JointBatch, parts_by_name, unpack

UNEQUAL = "has parts of different lengths"
ADVICE = (
    "Each has one row per example: repeat what is shared, and read what belongs to no example in "
    "a term of its own"
)

SHOWN_PARTS = 8
UNBATCHED = " Or the data is not batched: call .batch(global_batch) on it."


def check_lengths(batch, what: str, advice: str = "") -> None:
    """Refuses parts of different lengths, of arrays or of a spec, where they are known.

    Args:
      batch: arrays or specs, in the nesting of a batch.
      what: the argument's name.
      advice: a further sentence of the error.
    Raises:
      ValueError: names the parts and their lengths.
    """
    shapes = {name: tf.TensorShape(part.shape) for name, part in parts_by_name(batch).items()}
    lengths = {name: shape[:1].num_elements() for name, shape in shapes.items()}
    known = {name: length for name, length in lengths.items() if length is not None}
    if len(set(known.values())) > 1:
        known = _few_of_each(known)
        more = f"{advice}{about_lists(batch)}{about_sources(batch)}"
        raise TermwiseError(f"{_told(what, known.values(), known)}.{more}")


def _few_of_each(lengths: dict[str, int]) -> dict[str, int]:
    """Of many parts those that show each length first, in their order."""
    if len(lengths) <= SHOWN_PARTS:
        return lengths
    names = {length: name for name, length in reversed(lengths.items())}
    shown = set(list(names.values())[-SHOWN_PARTS:])
    return {name: length for name, length in lengths.items() if name in shown}


def about_lists(batch) -> str:
    """A sentence on an x or y that is a list of several arrays; "" where there is none."""
    nests = zip(("x", "y"), unpack(batch), strict=False)
    lists = [name for name, nest in nests if type(nest) is list and len(nest) > 1]
    if not lists:
        return ""
    several = lists[0]
    return (
        f" Here {several} is a list, which is several {'inputs' if several == 'x' else 'labels'}: "
        f"np.stack({several}) makes one array of it, and x with its labels is a tuple, (x, y)."
    )


def about_sources(batch) -> str:
    """A sentence on a dict of tuples, which may be meant as several data sets; else ""."""
    if not isinstance(batch, dict) or not all(isinstance(part, tuple) for part in batch.values()):
        return ""
    names = ", ".join(f"{name}=..." for name in batch)
    return f" If these are data sets, each with its own batch size, give trainer.Sources({names})."


def of_equal_lengths(dataset: tf.data.Dataset, what: str) -> tf.data.Dataset:
    """The dataset, which fails at an element whose parts have different lengths.

    It is looked at in the pipeline, where the step does not wait for it.

    Args:
      dataset: of batches.
      what: the argument's name.
    Raises:
      ValueError: lengths that differ in every element.
    """
    spec = dataset.element_spec
    check_lengths(spec, what, UNBATCHED)
    parts = parts_by_name(spec)
    if isinstance(spec, JointBatch):  # each source was looked at when it was opened
        return dataset
    if len(parts) < 2 or all(part.shape[:1].num_elements() for part in parts.values()):
        return dataset

    def checked(*element):
        batch = element if type(spec) is tuple else element[0]
        lengths = {name: _length(part) for name, part in parts_by_name(batch).items()}
        sizes = tf.stack(list(lengths.values()))

        def refuse():
            message = tf.strings.format(
                _told(what, ["{}"] * len(parts), parts), list(lengths.values())
            )
            return tf.group(tf.debugging.Assert(False, [message]))

        tf.cond(tf.reduce_all(sizes == sizes[0]), tf.no_op, refuse)
        return batch

    return dataset.map(tf.autograph.experimental.do_not_convert(checked))


def _told(what: str, lengths, names) -> str:
    parts = [f"{name} {length}" for name, length in zip(names, lengths, strict=True)]
    return f"{what} {UNEQUAL}: {', '.join(parts)}. {ADVICE}"


def _length(part: Any) -> tf.Tensor:
    """int64 [], the examples of a tensor, dense, ragged or sparse."""
    if isinstance(part, tf.RaggedTensor):
        return tf.cast(part.nrows(), tf.int64)
    if isinstance(part, tf.SparseTensor):
        return part.dense_shape[0]
    return tf.shape(part, tf.int64)[0]
