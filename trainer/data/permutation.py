"""The order of an epoch's examples: a fair permutation that follows from the seed and the epoch.

Each example is given 64 bits that depend on (seed, epoch, example) alone, by the mixer of
SplitMix64 (Steele, Lea and Flood 2014); sorted by them, the examples stand in a random order. It is
drawn once for each epoch. Whole numbers make it the same on every device, compiled or not.
"""

from __future__ import annotations

import tensorflow as tf

# Runs keep the one that they began with. The first was RandomIndexShuffle, which is uneven at small
# sizes (5 and 10 examples stayed in their order) and in the first epochs.
FIRST_SHUFFLING, SHUFFLING = 1, 2

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio, odd
_FACTORS = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_SHIFTS = 30, 27, 31


def order_of_epoch(examples: int, seed: int, epoch, shuffling: int = SHUFFLING) -> tf.Tensor:
    """int32 [examples], the examples in the order of an epoch.

    Args:
      examples: how many there are.
      seed: whole number, the run's.
      epoch: int64 [], counted from 0.
      shuffling: SHUFFLING, or FIRST_SHUFFLING for runs that began with that.

    Example:
      >>> [order_of_epoch(5, 0, epoch).numpy().tolist() for epoch in range(3)]
      [[4, 1, 3, 2, 0], [2, 0, 4, 3, 1], [4, 1, 3, 2, 0]]
    """
    epoch = tf.convert_to_tensor(epoch, tf.int64)
    if shuffling == FIRST_SHUFFLING:
        return _first_order(examples, seed, epoch)
    start = random_bits(seed, epoch)
    numbers = tf.range(examples, dtype=tf.int64)
    bits = _mixed(numbers * _signed(_GOLDEN) + start)
    # the example in the lowest bits: no two are equal, and the sort brings the examples along
    low = (1 << (examples - 1).bit_length()) - 1
    keys = tf.bitwise.bitwise_or(tf.bitwise.bitwise_and(bits, ~low), numbers)
    ordered = tf.math.top_k(keys, k=examples).values
    return tf.cast(tf.bitwise.bitwise_and(ordered, low), tf.int32)


def random_bits(seed: int, number) -> tf.Tensor:
    """int64 of the shape of `number`, int64: 64 random bits of a seed and a number."""
    return _mixed(tf.bitwise.bitwise_xor(number, _mixed_number(int(seed) + _GOLDEN)))


def _first_order(examples: int, seed: int, epoch) -> tf.Tensor:
    key = tf.cast(tf.stack([seed, epoch // 2**31, epoch % 2**31]), tf.uint32)
    index = tf.range(examples, dtype=tf.int64)
    last = tf.constant(examples - 1, tf.int64)
    return tf.cast(tf.raw_ops.RandomIndexShuffle(index=index, seed=key, max_index=last), tf.int32)


def _mixed(x) -> tf.Tensor:
    """SplitMix64's mixer of int64: every bit depends on every other."""
    for shift, factor in zip(_SHIFTS, _FACTORS, strict=False):
        x = _xor_shifted(x, shift) * _signed(factor)
    return _xor_shifted(x, _SHIFTS[-1])


def _xor_shifted(x, shift: int) -> tf.Tensor:
    """x ^ (x >> shift), with zeros in front."""
    shifted = tf.bitwise.right_shift(x, tf.constant(shift, tf.int64))
    return tf.bitwise.bitwise_xor(x, tf.bitwise.bitwise_and(shifted, (1 << (64 - shift)) - 1))


def _mixed_number(x: int) -> int:
    """The same of a Python number."""
    x %= 2**64
    for shift, factor in zip(_SHIFTS, _FACTORS, strict=False):
        x = (x ^ (x >> shift)) * factor % 2**64
    return _signed(x ^ (x >> _SHIFTS[-1]))


def _signed(x: int) -> int:
    """64 bits as a signed number."""
    return x - 2**64 if x >= 2**63 else x
