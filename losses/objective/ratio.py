"""A term's value as two sums over the examples, divided only after the global reduction."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from losses.errors import TermwiseError, TermwiseTypeError


class Ratio:
    """Two sums over one replica's examples; the value is their ratio over the global batch.

        value = after(sum of numerators / sum of denominators)      over all replicas

    A mean of replicas' means is not the mean of the batch when the replicas hold different
    numbers of valid examples; the ratio of two sums is. No gradient flows through the
    denominator: it counts labels, weights and masks.

    Args:
      numerator: floating, [] or, with `after`, any shape; a sum over this replica's examples.
      denominator: floating, same shape as `numerator` or []; `None` divides by nothing
        (the value is the sum over the batch, Keras's reduction "sum").
      after: function of the divided sums (the numerator's shape) to [], applied after the
        global reduction: a square root, one minus a Dice coefficient.
      values: floating, what the numerator is the sum of, or a mean that counts once is made of,
        where it is known.
      alike: bool, whether every replica computes the same, which counts once.

    Example:
      >>> import tensorflow as tf
      >>> root = Ratio(tf.constant(8.0), tf.constant(2.0), after=tf.sqrt)
      >>> float(root.value())
      2.0
    """

    __slots__ = ("after", "alike", "denominator", "numerator", "values")

    def __init__(
        self, numerator, denominator=None, after: Callable | None = None, values=None, alike=False
    ):
        self.values, self.alike = values, alike
        self.numerator = tf.convert_to_tensor(numerator)
        self.denominator = (
            None if denominator is None else tf.convert_to_tensor(denominator, self.numerator.dtype)
        )
        self.after = after
        if not self.numerator.dtype.is_floating:
            raise TermwiseTypeError(
                "A Ratio's numerator is a sum of floating values, received "
                f"{self.numerator.dtype.name}. Cast the values before summing them."
            )
        if after is None and self.numerator.shape.rank not in (0, None):
            raise TermwiseError(
                f"A Ratio's numerator of shape {self.numerator.shape} needs after=, "
                "a function of the divided sums that returns one number. "
                "Sum over the examples, or pass after=."
            )

    @classmethod
    def of_examples(cls, values) -> Ratio:
        """The mean of `values`, floating [examples]."""
        values = tf.convert_to_tensor(values)
        return cls(tf.reduce_sum(values), tf.cast(tf.size(values), values.dtype), values=values)

    @classmethod
    def by_share(cls, value, examples) -> Ratio:
        """A scalar of this replica's batch; over the replicas a mean weighted by their examples.

        Args:
          value: floating [].
          examples: float [], this replica's number of examples.
        """
        value = tf.convert_to_tensor(value)
        count = tf.cast(examples, value.dtype)
        return cls(value * count, count)

    @classmethod
    def once(cls, value, values=None) -> Ratio:
        """A scalar that every replica computes alike and that counts once.

        Args:
          value: floating [].
          values: floating, what it is the mean of, where it is known.
        """
        value = tf.convert_to_tensor(value)
        return cls(value, tf.ones_like(value), values=values, alike=True)

    def value(self) -> tf.Tensor:
        """The value of this replica's examples alone; 0 where the denominator is 0."""
        ratio = self.numerator
        if self.denominator is not None:
            ratio = tf.math.divide_no_nan(ratio, tf.stop_gradient(self.denominator))
        return ratio if self.after is None else self.after(ratio)

    def scaled(self, factor) -> Ratio:
        """This replica's two sums times `factor` []; 0 drops a replica that has no examples."""
        factor = tf.cast(factor, self.numerator.dtype)
        denominator = None if self.denominator is None else self.denominator * factor
        values = self.values
        if values is not None and not self.alike:
            values = values * factor
        return Ratio(self.numerator * factor, denominator, self.after, values, self.alike)
