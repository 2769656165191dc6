"""A term that is a mean of squares, and says of what: second-order methods need the residuals."""

from __future__ import annotations

import keras
import tensorflow as tf

from losses.errors import TermwiseError, TermwiseTypeError
from losses.objective import Ratio, Term


@keras.saving.register_keras_serializable(package="termwise")
class Squares(Term):
    """The mean square of a function's residuals.

        raw = mean over examples of  sum over columns of  residual(step)^2

    It is the term `losses.term(lambda step: residual(step) ** 2)`, but one of which
    `trainer.GaussNewton` knows the residuals. Sample weights are the function's business.

    Args:
      residual: function of a `losses.Step`; floating [examples] or [examples, columns], of which
        each row is of its own example alone.
      weight, name, trains, source: as in `Term`; the function's own name by default.
    Returns:
      Ratio.
    Raises:
      TypeError: `residual` is no function.
      ValueError: a lambda without a name; residuals of another length than the examples.

    Example: residuals of 3 and 4:
      >>> from losses import Step
      >>> term = Squares(lambda step: step.x[:, 0] - step.y, name="misfit")
      >>> step = Step(x=tf.constant([[5.0], [5.0]]), y=tf.constant([2.0, 1.0]), model=None, step=0,
      ...             training=True)
      >>> float(term.call(step).value())                              # (3^2 + 4^2) / 2
      12.5
    """

    def __init__(self, residual, name=None, weight=1.0, trains=None, source=None):
        if not callable(residual):
            raise TermwiseTypeError(
                f"losses.Squares() takes a function of the step, received {residual!r}."
            )
        name = name or getattr(residual, "__name__", type(residual).__name__)
        if name == "<lambda>":
            raise TermwiseError('losses.Squares() was given a lambda without a name. Pass name="...".')
        super().__init__(weight=weight, name=name, trains=trains, source=source)
        self.residual = residual

    def call(self, step):
        residuals = self.residuals(step)
        count = tf.nest.flatten(step.x)[0].shape[:1]
        if residuals.shape.rank not in (1, 2) or not residuals.shape[:1].is_compatible_with(count):
            raise TermwiseError(
                f"The residuals of term {self.name!r} have shape {tuple(residuals.shape)}. Return "
                "one row for each example: [examples] or [examples, columns]."
            )
        # of float16 the squares would overflow; float64 stays what it is
        wide = residuals if residuals.dtype.size >= 4 else tf.cast(residuals, tf.float32)
        return Ratio.of_examples(tf.reduce_sum(tf.square(wide), axis=list(range(1, wide.shape.rank))))

    def rows(self, step):
        """The examples, of which each has residuals of its own: x, y, sample_weight by name."""
        parts = {"x": step.x, "y": step.y, "sample_weight": step.sample_weight}
        return {name: part for name, part in parts.items() if part is not None}

    def residuals(self, step) -> tf.Tensor:
        """floating [examples] or [examples, columns], of a step's examples."""
        return tf.convert_to_tensor(self.residual(step))

    def get_config(self):
        return {**super().get_config(), "residual": self.residual}
