"""The total of a batch, and its residuals, as functions of the vector of what trains."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from losses.objective.layout import Layout
from losses.objective.step import Step
from losses.objective.term import Term
from trainer.second_order.method import Function, LeastSquares, Point
from trainer.second_order.vector import Vector
from trainer.step.forward import make_step, make_terms
from trainer.step.program import StepProgram


class Total:
    """The total of a batch: the sum of weight times raw value, in the precision of the weights.

    It is a function of the variables alone: each call sets them, and nothing else moves.

    Args:
      program: of the step; every weight is a number.
      batch: all data.
      vector: of what trains.
    """

    def __init__(self, program: StepProgram, batch, vector: Vector):
        self._program, self._batch, self._vector = program, batch, vector
        names = program.layout.names
        weights = program.objective.constant_weights(names)
        self._weights = {name: float(weight or 0.0) for name, weight in weights.items()}

    @property
    def function(self) -> Function:
        """What a method minimises."""
        return Function(self.at, self.squares)

    def at(self, theta) -> Point:
        """The total and its gradient; beside them float32 [T], the raw values, and [T], 1 where a
        term is absent."""
        vector = self._vector
        vector.write(theta)
        persistent = self._program.placement.xla  # the form of a loop's gradient that XLA compiles
        with tf.GradientTape(persistent=persistent) as tape:
            tape.watch(self._program.hidden)
            raw, absent = self._raw()
            weighted = [self._weights[name] * value for name, value in raw.items()]
            total = tf.add_n(weighted)
        beside = tf.stack([tf.cast(value, tf.float32) for value in raw.values()]), absent
        return Point(vector.read(), total, vector.gradient(tape, total), beside)

    def _raw(self) -> tuple[dict, tf.Tensor]:
        """term -> its value, []; float32 [T], 1 where it is absent."""
        program = self._program
        step = make_step(program, self._batch, training=True)
        terms = make_terms(program, step, None)
        layout = Layout.of(terms)
        program.discovery.settle_layout(layout)
        present = layout.present(terms)
        there = tf.ones([len(layout.names)]) if present is None else present
        values = {name: tf.cast(ratio.value(), self._vector.dtype) for name, ratio in terms.items()}
        return values, tf.cast(tf.equal(there, 0), tf.float32)

    def squares(self, theta) -> LeastSquares:
        """The residuals of all terms, times the root of weight over count, and their Jacobian."""
        self._vector.write(theta)
        step = make_step(self._program, self._batch, training=True)
        step.without_terms(self._program.idle)
        terms = [t for t in self._program.objective.terms if not step.leaves_out(t.name)]
        parts = [self._squares_of(term, step) for term in terms]
        residuals, rows = zip(*parts, strict=True)
        return LeastSquares(tf.concat(residuals, 0), tf.concat(rows, 0))

    def _squares_of(self, term: Any, step: Step) -> tuple[tf.Tensor, tf.Tensor]:
        """A term's part of the residuals, [m], and of their Jacobian, [m, n]."""
        step = step if term.source is None else step[term.source]
        rows = term.rows(step)
        count = tf.nest.flatten(rows)[0].shape[0]

        def one(row):
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(self._program.hidden)
                values = self._residuals(term, step, row, count)
                split = tf.unstack(values)
            return values, tf.stack([self._vector.gradient(tape, value) for value in split])

        residuals, jacobian = tf.vectorized_map(one, rows)
        return tf.reshape(residuals, [-1]), tf.reshape(jacobian, [-1, self._vector.size])

    def _residuals(self, term: Any, step: Step, row, count: int) -> tf.Tensor:
        """floating [k], the residuals of one example, by what they add to the total."""
        batch = tf.nest.map_structure(lambda part: part[None], row)
        parts = term.residuals(step.of_rows(**batch))
        parts = parts if isinstance(parts, dict) else {"": parts}
        scaled = []
        for key, residual in parts.items():
            weight = self._weights[f"{term.name}/{key}" if key else term.name]
            values = tf.cast(tf.reshape(residual, [-1]), self._vector.dtype)
            scaled.append(values * math.sqrt(weight / count))
        return tf.concat(scaled, 0)


def has_squares(term: Term) -> bool:
    """Whether a term says its residuals: `losses.Squares`, `losses.PDEResidual`."""
    return hasattr(term, "residuals") and hasattr(term, "rows")
