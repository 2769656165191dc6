"""A term's value as two sums over the examples, divided only after the global reduction."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from losses.errors import TermwiseError, TermwiseTypeError


class ByExample(NamedTuple):
    """What each example adds to the two sums of a term.

    numerators: floating [examples].
    counts: floating [examples], what it adds to the denominator; None: nothing divides the sum.
    counted: bool [examples], False where a mask or weights of 0 leave nothing of it; None: all are.
    """

    numerators: tf.Tensor
    counts: tf.Tensor | None
    counted: tf.Tensor | None

    @property
    def values(self) -> tf.Tensor:
        """floating [examples], each example's value, the mean over what it counts; 0 for none."""
        if self.counts is None:
            return self.numerators
        return tf.math.divide_no_nan(self.numerators, self.counts)


class Ratio:
    """Two sums over one replica's examples; the value is their ratio over the global batch.

        value = after(sum of numerators / sum of denominators)      over all replicas

    A mean of replicas' means is not the mean of the batch when the replicas hold different
    numbers of valid examples; the ratio of two sums is. No gradient flows through the
    denominator: it counts labels, weights and masks.

    Args:
      numerator: floating, [] or, with `after`, any shape; a sum over this replica's examples; None:
        that of all `values`.
      denominator: floating, same shape as `numerator` or []; `None` divides by nothing
        (the value is the sum over the batch, Keras's reduction "sum").
      after: function of the divided sums (the numerator's shape) to [], applied after the
        global reduction: a square root, one minus a Dice coefficient.
      values: floating, what the numerator is the sum of, or a mean that counts once is made of,
        where it is known.
      present: floating [], a sum over this replica's examples that is 0 where they hold nothing of
        the term, or True: they always hold something. By default the denominator tells; without
        one it is True. A term that is absent from the global batch has no value in the means.
      alike: bool, whether every replica computes the same, which counts once.
      counts: floating, of the shape of `values`, or a number for each of them: what the denominator
        is the sum of, where it is known. With it each example of `values` has a value of its own.
      weights: floating, of the first axes of `values`, 0 where one does not count; None: all do.
    Attributes:
      sums_values: bool, whether the numerator is the sum of all `values`, and was not given.
      placed: bool, whether what a replica without examples of its source counts is settled.
      source: str, the name of the source that it was placed by; None: of data without names.

    Example:
      >>> import tensorflow as tf
      >>> root = Ratio(tf.constant(8.0), tf.constant(2.0), after=tf.sqrt)
      >>> float(root.value())
      2.0
    """

    __slots__ = (
        *("_present", "after", "alike", "counts", "denominator", "numerator", "placed", "values"),
        *("source", "sums_values", "weights"),
    )

    def __init__(
        self,
        numerator,
        denominator=None,
        after: Callable | None = None,
        values=None,
        present=None,
        alike=False,
        counts=None,
        weights=None,
    ):
        self.values, self.alike = values, alike
        self.placed = False
        self.source: str | None = None
        self.counts, self.weights = counts, weights
        self._present = present
        self.sums_values = numerator is None
        if numerator is None:
            if values is None:
                raise TermwiseTypeError(
                    "A Ratio was given no numerator. Give the sum over the examples, or values=, "
                    "of which it is the sum."
                )
            self.values = values = tf.convert_to_tensor(values)
            numerator = tf.reduce_sum(values)
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
        count = tf.cast(tf.size(values), values.dtype)
        return cls(None, count, values=values, present=True, counts=1.0)

    @classmethod
    def by_share(cls, value, examples) -> Ratio:
        """A scalar of this replica's batch; over the replicas a mean weighted by their examples.

        Args:
          value: floating [].
          examples: float [], this replica's number of examples.
        """
        value = tf.convert_to_tensor(value)
        count = tf.cast(examples, value.dtype)
        return cls(value * count, count, present=True)

    @classmethod
    def once(cls, value, beside: Ratio | None = None, values=None) -> Ratio:
        """A scalar that every replica computes alike and that counts once.

        Args:
          value: floating [].
          beside: another term, with which it is absent; None: it never is.
          values: floating, what it is the mean of, where it is known.
        """
        value = tf.convert_to_tensor(value)
        present = True if beside is None else beside.present
        if present is True:
            return cls(value, tf.ones_like(value), values=values, present=True, alike=True)
        count = tf.stop_gradient(tf.cast(present, value.dtype))
        return cls(value * count, count, values=values, alike=True)

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
        values, counts = self.values, self.counts
        if values is not None and not self.alike:
            values = values * factor
            counts = None if counts is None else counts * factor
        present = self.present
        present = True if present is True else present * tf.cast(factor, present.dtype)
        of_scaled = self.sums_values and not self.alike  # whose values are not scaled
        numerator = None if of_scaled else self.numerator * factor
        of_values = self.alike, counts, self.weights
        return Ratio(numerator, denominator, self.after, values, present, *of_values)

    def paused(self, counts) -> Ratio:
        """The same, absent where `counts`, float [], is 0."""
        ratio = self.scaled(counts).counting(counts)
        return ratio.placed_as(self)

    def placed_by(self, step) -> Ratio:
        """The same, of the examples of a step of a source; they may be padding.

        Args:
          step: a `Step`, with the `source` and whether its examples are `present`.
        """
        ratio = copy.copy(self) if step.present is None else self.scaled(step.present)
        ratio.placed, ratio.source = True, step.source
        return ratio

    def placed_as(self, other: Ratio) -> Ratio:
        """This one, placed where another is."""
        self.placed, self.source = other.placed, other.source
        return self

    @property
    def present(self):
        """floating [], 0 where the examples hold nothing of the term; True: it is always there."""
        if self._present is None and self.denominator is not None:
            known = tf.get_static_value(self.denominator)
            if known is None or not known.any():
                return tf.reduce_sum(tf.abs(self.denominator))
        return True if self._present is None else self._present

    @property
    def left_out(self) -> bool:
        """Whether the whole step, on every replica, was made without the term."""
        return self._present is not None and tf.get_static_value(self._present) == 0

    def counting(self, counted) -> Ratio:
        """The same, absent also where `counted`, floating [], is 0."""
        present = self.present
        if present is not True:
            counted = tf.where(counted > 0, present, tf.zeros_like(present))
        numerator = None if self.sums_values else self.numerator
        parts = numerator, self.denominator, self.after, self.values
        return Ratio(*parts, counted, self.alike, self.counts, self.weights)

    @property
    def without_examples(self) -> str | None:
        """Why no example has a value of its own, as a clause; None where each has one."""
        if self.alike:
            return "it is of no example: every replica computes the same"
        if self.after is not None:
            return "it is a function of sums over the batch"
        if self.values is None:
            return "it is one number of the batch"
        if tf.convert_to_tensor(self.values).shape.rank in (0, None):
            return "its values have no axis of examples"
        if self.denominator is not None and self.counts is None:
            return "its Ratio has values=, but no counts=, which its denominator is the sum of"
        return None

    def by_example(self) -> ByExample:
        """What each example adds to the sums, over its time steps or pixels; see `ByExample`.

        Raises:
          ValueError: examples have no values of their own; `without_examples` says why.
        """
        if self.without_examples is not None:
            raise TermwiseError(f"No example has a value: {self.without_examples}.")
        values = tf.convert_to_tensor(self.values)
        counts = None if self.denominator is None else _sum_rows(self.counts, values)
        counted = None
        if self.weights is not None:
            counted = _sum_rows(tf.cast(tf.not_equal(self.weights, 0), values.dtype), values) > 0
        return ByExample(_sum_rows(values, values), counts, counted)


def _sum_rows(of_values: Any, values) -> tf.Tensor:
    """floating [examples], sums over all but the first axis of what stands beside values."""
    of_values = tf.broadcast_to(tf.cast(of_values, values.dtype), tf.shape(values))
    of_values.set_shape(values.shape)
    return tf.reduce_sum(of_values, axis=list(range(1, values.shape.rank)))
