"""Random augmentation of arrays: every example changed by a function of its own seed.

The batch is augmented where it is drawn, inside the loop. What is drawn depends on the run's seed,
the batch's position in the data and the example's place in the batch alone; so a resumed or
replayed run draws what the undisturbed one did, and any number of replicas or hosts shares the
same global batch.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from losses.errors import TermwiseError, TermwiseTypeError
from trainer.data.batch import is_whole

_LOW = 2**32 - 1  # mask of 32 bits
_ROUNDS = 4
# operations that keep a random state of their own, or change one
_STATEFUL = re.compile(
    r"Random(?!IndexShuffle)|Multinomial|(Parameterized)?TruncatedNormal|RngReadAndSkip"
    r"|Stateful(?!PartitionedCall)|SampleDistortedBoundingBox|Assign"
)
_BRANCHES = re.compile(r"(Stateless)?(If|Case|While)$")


def augmented(source, function, seed: int):
    """The source of a fit, whose batches are augmented from now on where there is a function.

    Args:
      source: of `open_data`.
      function: None, or as `Augment` takes it.
      seed: the run's.
    Raises:
      ValueError: the source is a pipeline, which has a place for this of its own.
      TypeError: `function` is no function.
    """
    if function is None:
        return source
    if not source.indexed:
        raise TermwiseError(
            f"augment= is for arrays, but {source.what} is a tf.data.Dataset: augment in the "
            "pipeline, before .batch(), as in tf.data.Dataset.zip(dataset.repeat(), "
            "tf.data.Dataset.counter()).map(lambda example, i: function(example, "
            "tf.stack([0, i])))."
        )
    source.augment = Augment(function, seed)
    return source


class Augment:
    """Applies a function to each example of a batch, with a seed for each.

    The function is traced as it stands, without AutoGraph. Where `tf.vectorized_map` can convert
    all of it, it runs once for the whole batch; otherwise, as with every `tf.random.stateless_*`,
    example by example in `tf.map_fn`.

    XLA draws other numbers than TensorFlow without it. So that a batch is the same wherever it is
    drawn, the function is compiled by itself where the run's loop is. On a CPU that makes flips and
    crops cheaper, normal draws and changes of hue much dearer: measure before you choose.

    Args:
      function: (example, seed) -> example. The example is one of the data, x, (x, y) or
        (x, y, sample_weight), without the dimension of the batch; what is returned has its
        structure, shapes and dtypes. seed: int32 [2], for `tf.random.stateless_*` and
        `tf.image.stateless_random_*`; several draws: `tf.random.split(seed, draws)`.
      seed: whole number, the run's.
    Raises:
      TypeError: `function` is no function.
      ValueError: `seed` is no whole number.

    Example:
      >>> flip = lambda example, seed: tf.image.stateless_random_flip_left_right(example, seed)
      >>> images = tf.reshape(tf.range(8.0), [4, 1, 2, 1])
      >>> augmented = Augment(flip, seed=0)(images, position=tf.constant(0, tf.int64))
      >>> augmented.shape
      TensorShape([4, 1, 2, 1])
    """

    def __init__(self, function: Callable[[Any, tf.Tensor], Any], seed: int = 0):
        if not callable(function):
            raise TermwiseTypeError(
                f"augment={function!r}: give a function (example, seed) -> example, which draws "
                "by tf.random.stateless_* with that seed."
            )
        if not is_whole(seed):
            raise TermwiseError(f"seed={seed!r}: give a whole number.")
        self.function = function
        self.seed = int(seed)
        self._applied = {
            compiled: tf.function(self._apply, jit_compile=compiled or None, autograph=False)
            for compiled in (False, True)
        }

    def __call__(self, batch, position, xla: bool = False):
        """The augmented batch.

        Args:
          batch: nest of [examples, ...].
          position: int64 [], the batch's number, counted from the start of the data.
          xla: whether XLA compiles the loop that the batch is for.
        Raises:
          TypeError, ValueError: the function returns another structure, shape or dtype, or draws
            without the seed; when it is traced.
        """
        return self._applied[xla](batch, tf.convert_to_tensor(position, tf.int64))

    def __eq__(self, other):
        if not isinstance(other, Augment):
            return NotImplemented
        return (self.function, self.seed) == (other.function, other.seed)

    def __hash__(self):
        return hash((Augment, self.seed))  # a function need not be hashable

    def _apply(self, batch, position):
        examples = tf.shape(tf.nest.flatten(batch)[0])[0]
        seeds = example_seeds(self.seed, position, examples)
        specs = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape[1:], t.dtype), batch)
        operations = self._traced(specs)
        branches = any(map(_BRANCHES.match, operations))  # XLA refuses their conversion
        if not branches and self._converts(batch, seeds):
            augmented = self._vectorized(batch, seeds)
        else:
            of_example = self._checked(specs)
            augmented = tf.map_fn(of_example, (batch, seeds), fn_output_signature=specs)
        return tf.nest.map_structure(lambda t, old: tf.ensure_shape(t, old.shape), augmented, batch)

    def _vectorized(self, batch, seeds):
        return tf.vectorized_map(
            lambda pair: self.function(*pair), (batch, seeds), fallback_to_while_loop=False
        )

    def _converts(self, batch, seeds) -> bool:
        """Whether all of the function can run once for the batch; tried on a trace of its own."""
        specs = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), (batch, seeds))
        logger = tf.get_logger()
        logger.addFilter(_silent)  # what cannot be converted is no one's fault
        try:
            tf.function(self._vectorized, autograph=False).get_concrete_function(*specs)
        except Exception:
            return False  # the function itself was traced before: it is only the conversion
        finally:
            logger.removeFilter(_silent)
        return True

    def _traced(self, specs) -> set[str]:
        """The types of the operations of the function, which is checked on one example."""
        seed = tf.TensorSpec([2], tf.int32)
        of_example = self._checked(specs)
        function = tf.function(lambda *pair: of_example(pair), autograph=False)
        graph = function.get_concrete_function(specs, seed).graph.as_graph_def()
        nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
        operations = {node.op for node in nodes}
        stateful = sorted(filter(_STATEFUL.match, operations))
        if stateful:
            raise TermwiseError(
                f"augment= uses {', '.join(stateful)}, which does not follow from the seed: a "
                "resumed run would draw other numbers. Draw by tf.random.stateless_* or "
                "tf.image.stateless_random_* with the seed that is passed."
            )
        return operations

    def _checked(self, specs):
        """The function of (example, seed), whose result is held against the example's specs."""

        def function(pair):
            result = self.function(*pair)
            try:
                tf.nest.assert_same_structure(specs, result, check_types=True)
            except (TypeError, ValueError):
                raise TermwiseTypeError(
                    f"augment= returned {_described(result)} for an example "
                    f"{_described(specs)}. Return the same structure."
                ) from None
            result = tf.nest.map_structure(tf.convert_to_tensor, result)
            pairs = zip(tf.nest.flatten(specs), tf.nest.flatten(result), strict=True)
            for spec, tensor in pairs:
                same = spec.dtype == tensor.dtype and spec.shape.is_compatible_with(tensor.shape)
                if not same:
                    raise TermwiseError(
                        f"augment= returned {_described(tensor)} where the example has "
                        f"{_described(spec)}. Return the same shape and dtype: crop or pad to the "
                        "size, and tf.cast."
                    )
            return tf.nest.map_structure(lambda t, s: tf.ensure_shape(t, s.shape), result, specs)

        return function


def example_seeds(seed: int, position, examples) -> tf.Tensor:
    """A seed for each example of a batch.

    The pair (position, place in the batch), 32 bits each, is permuted by a cipher of four rounds

        (left, right) <- (right, left ^ mix(right ^ key))

    whose keys come of the run's seed. Each round can be undone, whatever `mix` is; so no two pairs
    give the same seed, up to 2^32 positions and 2^32 examples. The pair itself would do for that,
    but a function that draws more by `seed + 1` would then draw its neighbour's numbers, and runs
    with other seeds those of this one.

    Args:
      seed: whole number, the run's.
      position: int64 [].
      examples: int32 [], of the batch.
    Returns:
      int32 [examples, 2].
    """
    left = tf.zeros([examples], tf.int64) + tf.bitwise.bitwise_and(position, _LOW)
    right = tf.range(tf.cast(examples, tf.int64))
    for key in _keys(seed):
        mixed = _mix(tf.bitwise.bitwise_xor(right, key))
        left, right = right, tf.bitwise.bitwise_xor(left, mixed)
    both = tf.stack([left, right], axis=1)
    signed = tf.where(both > 2**31 - 1, both - 2**32, both)  # the same 32 bits
    return tf.cast(signed, tf.int32)


def _keys(seed: int) -> list[int]:
    digest = hashlib.sha256(str(int(seed)).encode()).digest()
    return [int.from_bytes(digest[4 * i : 4 * i + 4], "little") for i in range(_ROUNDS)]


def _mix(x):
    """The last steps of MurmurHash3 (Appleby 2008), on 32 bits held in int64."""
    x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, 16))
    x = tf.bitwise.bitwise_and(x * 0x85EBCA6B, _LOW)
    x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, 13))
    x = tf.bitwise.bitwise_and(x * 0xC2B2AE35, _LOW)
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, 16))


def _described(value) -> str:
    """`(float32 [8, 8, 1], int32 [])`."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_described(part)}" for key, part in value.items()) + "}"
    if isinstance(value, (tuple, list)):
        inner = ", ".join(map(_described, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    if not hasattr(value, "dtype"):
        return "None" if value is None else type(value).__name__
    shape = list(value.shape) if value.shape.rank is not None else "of any shape"
    return f"{value.dtype.name} {shape}"


def _silent(record: logging.LogRecord) -> bool:
    return False
