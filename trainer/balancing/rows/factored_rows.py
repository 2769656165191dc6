"""Rows of a Jacobian kept as two factors, and when that is cheaper than to write them out."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from trainer.balancing.rows.uses import Use

# what a product in float64, and a number that goes through memory, cost in products of float32;
# and the share of the rows' operations up to which factors were faster: see docs/balancing.md
DOUBLE, TOUCH, MOST = 2, 24, 0.6


class FactoredRows(NamedTuple):
    """The gradients of m terms by a matrix [n_in, n_out], none of them written out.

    Of a product x W over B places (examples, words) the gradient of term i is A^T D_i, so

        <g_i, g_j> = sum of the elements of D_i * (A A^T D_j),

    of a look-up it is D_i summed by the row looked up. Their weighted sum needs one such gradient,
    of the weighted sum of the D_i. Both are the same sums as those of the rows, in another order.

    Attributes:
      inputs: A, float32 [B, n_in]; of look-ups the rows, int [B].
      cotangents: D, float32 [m, B, n_out].
      height: [n_in, 0], of which the shape alone is read.
    """

    inputs: tf.Tensor
    cotangents: tf.Tensor
    height: tf.Tensor

    def over(self, scale) -> FactoredRows:
        """These rows over a number, []."""
        return self._replace(cotangents=self.cotangents / tf.cast(scale, self.cotangents.dtype))

    def gramian(self) -> tf.Tensor:
        """float64 [m, m], the inner products of the rows."""
        terms = self.cotangents.shape[0]
        wide = tf.cast(self.cotangents, tf.float64)
        if self.inputs.dtype.is_integer:
            left = right = _by_row(self.inputs, wide)
        else:
            inputs = tf.cast(self.inputs, tf.float64)
            left = wide
            right = tf.matmul(tf.matmul(inputs, inputs, transpose_b=True), wide)
        left, right = tf.reshape(left, [terms, -1]), tf.reshape(right, [terms, -1])
        inner = tf.matmul(left, right, transpose_b=True)
        return (inner + tf.transpose(inner)) / 2

    def weighted(self, factors) -> tf.Tensor:
        """[n_in, n_out], the sum of the rows weighted by factors [m]."""
        combined = tf.tensordot(tf.cast(factors, self.cotangents.dtype), self.cotangents, 1)
        if not self.inputs.dtype.is_integer:
            return tf.matmul(self.inputs, combined, transpose_a=True)
        return tf.math.unsorted_segment_sum(combined, self.inputs, self.height.shape[0])


def _by_row(rows, cotangents) -> tf.Tensor:
    """[m, B, n_out], the cotangents of equal rows, int [B], summed; 0 where none are left."""
    order = tf.argsort(rows)
    ordered = tf.gather(rows, order)
    begins = tf.cast(tf.not_equal(ordered[1:], ordered[:-1]), tf.int32)
    place = tf.concat([[0], tf.cumsum(begins)], 0)
    in_order = tf.transpose(tf.gather(cotangents, order, axis=1), [1, 0, 2])
    summed = tf.math.unsorted_segment_sum(in_order, place, rows.shape[0])
    return tf.transpose(summed, [1, 0, 2])


def factored(uses: list[Use], gradients: list, variable: tf.Variable) -> FactoredRows:
    """The rows of some terms by a matrix.

    Args:
      uses: of `uses_of`, u of them.
      gradients: for each term those by the outputs of the uses; None where it reaches none, or
        does not reach one.
      variable: the matrix.
    """
    by_term = []
    for of_term in gradients:
        of_uses = zip(of_term or [None] * len(uses), uses, strict=True)
        by_term.append(tf.concat([_flat(gradient, use.output) for gradient, use in of_uses], 0))
    of_one = [] if uses[0].looks_up else [variable.shape[0]]
    inputs = tf.concat([tf.reshape(use.inputs, [-1, *of_one]) for use in uses], 0)
    height = tf.zeros([variable.shape[0], 0])
    return FactoredRows(inputs, tf.stack(by_term), height)


def _flat(gradient, output) -> tf.Tensor:
    value = tf.zeros_like(output) if gradient is None else tf.convert_to_tensor(gradient)
    return tf.reshape(value, [-1, output.shape[-1]])


def pays(uses: list[Use], shape, terms: int) -> bool:
    """Whether two factors are clearly cheaper than the rows of m terms, by counting operations.

    Args:
      uses: of `uses_of`, of one matrix.
      shape: its shape, (n_in, n_out).
      terms: int, m.
    """
    if not uses or terms < 2:
        return False
    height, width = shape
    size, places = height * width, sum(use.places for use in uses)
    cotangents = terms * places * width
    inner = DOUBLE * terms * cotangents + TOUCH * cotangents
    rows = DOUBLE * terms**2 * size + TOUCH * terms * size
    if uses[0].looks_up:
        return inner + 2 * TOUCH * cotangents + TOUCH * size < MOST * rows
    rows += cotangents * height
    factors = DOUBLE * places * (places * height + cotangents) + inner
    return factors + places * size + TOUCH * (places * height + size) < MOST * rows
