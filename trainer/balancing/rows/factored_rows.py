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

        <g_i, g_j> = <R^T D_i, R^T D_j>   with R R^T = A A^T, R [B, B],

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

    @classmethod
    def of(cls, uses: list[Use], cotangents: list, terms: int, variable) -> FactoredRows:
        """The rows of some terms by a matrix.

        Args:
          uses: of `uses_of`, u of them.
          cotangents: of each use the `Stacked` gradients by its output; None where no term
            reaches it.
          terms: int, m.
          variable: the matrix.
        """
        order = tuple(range(terms))
        flat = []
        for use, stacked in zip(uses, cotangents, strict=True):
            zeros = tf.zeros([terms, *use.output.shape])
            value = zeros if stacked is None else stacked.of_terms(order)
            flat.append(tf.reshape(value, [terms, -1, use.output.shape[-1]]))
        of_one = [] if uses[0].looks_up else [variable.shape[0]]
        inputs = tf.concat([tf.reshape(use.inputs, [-1, *of_one]) for use in uses], 0)
        return cls(inputs, tf.concat(flat, 1), tf.zeros([variable.shape[0], 0]))

    def over(self, scale) -> FactoredRows:
        """These rows over a number, []."""
        return self._replace(cotangents=self.cotangents / tf.cast(scale, self.cotangents.dtype))

    def gramian(self) -> tf.Tensor:
        """float64 [m, m], the inner products of the rows."""
        terms = self.cotangents.shape[0]
        if self.inputs.dtype.is_integer:
            flat = _by_row(self.inputs, tf.cast(self.cotangents, tf.float64))
        else:
            root = tf.tile(_root(self.inputs)[None], [terms, 1, 1])
            flat = tf.cast(tf.matmul(root, self.cotangents, transpose_a=True), tf.float64)
        flat = tf.reshape(flat, [terms, -1])
        return tf.matmul(flat, flat, transpose_b=True)

    def weighted(self, factors) -> tf.Tensor:
        """[n_in, n_out], the sum of the rows weighted by factors [m]."""
        combined = tf.tensordot(tf.cast(factors, self.cotangents.dtype), self.cotangents, 1)
        if not self.inputs.dtype.is_integer:
            return tf.matmul(self.inputs, combined, transpose_a=True)
        return tf.math.unsorted_segment_sum(combined, self.inputs, self.height.shape[0])


def _root(inputs) -> tf.Tensor:
    """float32 [B, B], R with R R^T = A A^T: R^T D_i is A^T D_i, turned.

    So float32 loses of it what it loses of a row; of A A^T it would lose the square of that.
    """
    wide, places = tf.cast(inputs, tf.float64), inputs.shape[0]
    pairs = tf.matmul(wide, wide, transpose_b=True)
    trace = tf.linalg.trace(pairs)
    counts = tf.math.is_finite(trace) & (trace > 0)
    # inputs may repeat: far below what float32 knows of them, above the rounding of the root
    least = tf.where(counts, (1e-13 + 1e-15 * places) * trace, tf.ones_like(trace))
    pairs = tf.where(counts, pairs, tf.zeros_like(pairs))  # the root of NaN is an error on CPUs
    root = tf.linalg.cholesky(pairs + least * tf.eye(places, dtype=tf.float64))
    return tf.cast(tf.where(counts, root, trace * tf.ones_like(root)), tf.float32)


def _by_row(rows, cotangents) -> tf.Tensor:
    """[m, B, n_out], the cotangents of equal rows, int [B], summed; 0 where none are left."""
    order = tf.argsort(rows)
    ordered = tf.gather(rows, order)
    begins = tf.cast(tf.not_equal(ordered[1:], ordered[:-1]), tf.int32)
    place = tf.concat([[0], tf.cumsum(begins)], 0)
    in_order = tf.transpose(tf.gather(cotangents, order, axis=1), [1, 0, 2])
    summed = tf.math.unsorted_segment_sum(in_order, place, rows.shape[0])
    return tf.transpose(summed, [1, 0, 2])


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
    root = DOUBLE * places**2 * (height + places)
    factors = root + places * cotangents + inner
    return factors + places * size + TOUCH * (places * height + size) < MOST * rows
