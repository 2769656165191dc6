"""Random numbers of an example that depend on the example, not on where it stands in a batch.

Noise drawn by position would differ between one replica and two, and between batchings of an
evaluation. Here the seed of an example's draws is a hash of its inputs, of the user's seed and of
the global step, by integer arithmetic alone: the same on every device, host and compiler.
"""

from __future__ import annotations

import tensorflow as tf

WORD = 0xFFFFFFFF  # 32 bits, held in int64: the integer type with kernels on every device
GOLDEN = 0x9E3779B9


def example_keys(x, seed: int, step) -> tf.Tensor:
    """A 32-bit hash for each example, the same wherever the example stands.

    Examples with equal inputs have equal keys.

    Args:
      x: a nest of tensors, [examples, ...] each; composite tensors are left out.
      seed: int.
      step: int [], the global step.
    Returns:
      int64 [examples], in [0, 2^32).
    """
    tensors = [tf.convert_to_tensor(t) for t in tf.nest.flatten(x) if _dense(t)]
    words = tf.concat([_words(tensor) for tensor in tensors], axis=1)
    place = _mix(tf.range(tf.shape(words, tf.int64)[1], dtype=tf.int64) * GOLDEN & WORD)
    # a sum of integers is the same in any order
    content = tf.reduce_sum(_mix(words ^ place), axis=1) & WORD
    step = tf.cast(step, tf.int64)
    for salt in (tf.constant(seed, tf.int64), step, _shift(step, 32)):
        content = _mix(content ^ _mix((salt + GOLDEN) & WORD))
    return content


def uniform(keys, size) -> tf.Tensor:
    """float32 [examples, size], uniform in the open interval (0, 1).

    Args:
      keys: int64 [examples], of `example_keys`.
      size: int or int [], how many numbers for each example.
    """
    count = tf.range(tf.cast(size, tf.int64), dtype=tf.int64)
    bits = _mix(_mix((count + 1) * GOLDEN & WORD) ^ keys[:, tf.newaxis])
    return (tf.cast(_shift(bits, 9), tf.float32) + 0.5) * 2.0**-23


def normal(keys, size) -> tf.Tensor:
    """float32 [examples, size], standard normal; arguments as in `uniform`."""
    return 2.0**0.5 * tf.math.erfinv(2.0 * uniform(keys, size) - 1.0)


def stateless_seeds(keys) -> tf.Tensor:
    """int32 [examples, 2], a seed for each example as `tf.random.stateless_*` take them."""
    pair = tf.stack([keys, _mix(keys ^ GOLDEN)], axis=1)
    return tf.cast(pair - 2**31, tf.int32)


def _mix(word):
    """A bijection of 32-bit words in which each bit depends on all (Wellons's lowbias32)."""
    word = (word ^ (_shift(word, 16))) * 0x7FEB352D & WORD
    # the negative of its complement: the product stays within 64 bits
    word = (word ^ (_shift(word, 15))) * (0x846CA68B - 2**32) & WORD
    return word ^ (_shift(word, 16))


def _shift(word, bits):
    return tf.bitwise.right_shift(word, tf.constant(bits, tf.int64))


def _dense(tensor):
    return not isinstance(tensor, (tf.RaggedTensor, tf.SparseTensor))


def _words(tensor):
    """The bits of each example, int64 [examples, words]."""
    if tensor.dtype == tf.string:
        tensor = tf.strings.to_hash_bucket_fast(tensor, 2**31 - 1)
    if tensor.dtype.is_floating and tensor.dtype.size == 2:
        tensor = tf.cast(tensor, tf.float32)  # exact
    if tensor.dtype.is_floating:
        tensor = tf.bitcast(tensor, tf.int32)  # 64 bits become two words
    tensor = tf.cast(tensor, tf.int64)
    examples = tf.shape(tensor)[0]
    size = tensor.shape[1:].num_elements()
    if size is None:
        size = tf.reduce_prod(tf.shape(tensor)[1:])
    return tf.reshape(tensor, [examples, size]) & WORD
