"""Terms that are means of squares and say of what: of any residual, of a differential equation's.

Methods such as Gauss and Newton's need the residuals themselves.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError, TermwiseTypeError
from losses.objective import Parameter, Ratio, Term


def derivative(function, x, *axes: int) -> tf.Tensor:
    """A partial derivative of every output of a function that acts on each point alone.

        derivative(u, x, i, j) = d^2 u / dx_i dx_j   at each point

    By nested reverse passes: it can itself be differentiated, by weights or further.

    Args:
      function: [points, coordinates] -> [points, outputs] or [points].
      x: floating [points, coordinates].
      axes: the coordinates to differentiate by, one after another; none gives the function itself.
    Returns:
      As `function` does: floating [points, outputs] or [points].
    Raises:
      ValueError: a coordinate that `x` does not have.

    Example:
      >>> x = tf.constant([[3.0, 5.0]])
      >>> float(derivative(lambda x: x[:, 0] ** 2 * x[:, 1], x, 0, 1)[0])      # 2 x
      6.0
    """
    if not axes:
        return tf.convert_to_tensor(function(x))
    *others, axis = axes
    if not -x.shape[-1] <= axis < x.shape[-1]:
        raise TermwiseError(
            f"derivative() by coordinate {axis} of points that have {x.shape[-1]}: give one of 0 "
            f"to {x.shape[-1] - 1}."
        )
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(x)
        value = derivative(function, x, *others)
        columns = [value] if value.shape.rank == 1 else tf.unstack(value, axis=-1)
    slopes = [tape.gradient(u, x, unconnected_gradients="zero")[:, axis] for u in columns]
    return slopes[0] if value.shape.rank == 1 else tf.stack(slopes, axis=-1)


@keras.saving.register_keras_serializable(package="termwise")
class PDEResidual(Term):
    """The mean square of a differential equation's residual; unknown coefficients are learned.

        raw = mean over points of  sum over equations of residual(model, x, parameters)^2

    Every replica computes all the points, and they count once: the value does not depend on the
    number of replicas, nor on which of them have data. With `points=None` the points are the
    step's inputs (those of `source`), shared among the replicas as they are.

    Args:
      residual: function `(model, x, parameters)` of the model, the points and a dict of the
        coefficients; gives floating [points] or [points, equations], or a dict of these by
        equation, each a sub-term `<name>/<equation>`. `losses.derivative` writes derivatives.
      points: [points, coordinates], an array; or a function of the global step that gives them,
        the same on every replica (`tf.random.stateless_uniform` of a seed and the step); or None.
      parameters: dict name -> initial value, a number or an array, or a `losses.Parameter`: the
        unknown coefficients. They are loss parameters, listed as `<term>/<name>`.
      weight, name, trains, source: as in `Term`.
    Returns:
      Ratio, or dict equation -> Ratio.
    Raises:
      TypeError: `residual` is no function.
      ValueError: points that are no finite array of rank 2; a residual of another length.
    Source: Raissi, Perdikaris and Karniadakis 2019, eq. 3 to 5; unknown coefficients: section 4.

    Example: the residual of u' = -k u for u(t) = 3 t at t = 1 and 2, where k is 2:
      >>> from losses import Step
      >>> def decay(model, t, parameters):
      ...     return derivative(model, t, 0) + parameters["k"] * model(t)
      >>> term = PDEResidual(decay, points=[[1.0], [2.0]], parameters={"k": 2.0})
      >>> step = Step(x=tf.zeros([1, 1]), model=lambda t: 3.0 * t, step=0, training=True)
      >>> float(term.call(step).value())                             # (9^2 + 15^2) / 2
      153.0
    """

    def __init__(
        self,
        residual,
        points,
        *,
        parameters=None,
        weight=1.0,
        name=None,
        trains=None,
        source=None,
    ):
        super().__init__(weight=weight, name=name, trains=trains, source=source)
        if not callable(residual):
            raise TermwiseTypeError(
                f"PDEResidual(residual={residual!r}): give a function (model, x, parameters)."
            )
        if points is not None and source is not None:
            raise TermwiseError(
                f"PDEResidual was given points= and source={source!r}. Give one of them: with "
                "points=None the points are the inputs of that source."
            )
        self.residual = residual
        self.points = points
        self._points = None
        if points is not None and not callable(points):
            self._points = np.asarray(points, keras.config.floatx())
            if self._points.ndim != 2 or not len(self._points):
                raise TermwiseError(
                    f"PDEResidual(points=): received an array of shape {self._points.shape}. Give "
                    "[points, coordinates], at least one point."
                )
            if not np.all(np.isfinite(self._points)):
                raise TermwiseError("PDEResidual(points=): some are not finite. Leave those out.")
        self._initial = dict(parameters or {})
        self.parameters = {key: self._make(key, value) for key, value in self._initial.items()}

    def _make(self, name, value) -> Parameter:
        if isinstance(value, keras.Variable):
            self._weights.append(value)
            return value
        value = np.asarray(value, keras.config.floatx())
        return self.add_weight(name, value.shape, lambda shape, dtype: tf.constant(value, dtype))

    def call(self, step):
        points = self.rows(step)["x"]
        residuals = self._at(step.model, points)
        count = tf.nest.flatten(points)[0].shape[0]
        if isinstance(residuals, dict):
            return {key: self._mean_square(value, count) for key, value in residuals.items()}
        return self._mean_square(residuals, count)

    def rows(self, step):
        """The points, by which the residuals are one after another: {"x": [points, coordinates]}.

        With `residuals`, what a method that knows a term as a sum of squares asks for.
        """
        if self.points is None:
            return {"x": step.x}
        points = self._points if self._points is not None else self.points(step.step)
        return {"x": tf.convert_to_tensor(points)}

    def residuals(self, step):
        """The residuals at a step's inputs: floating [points] or [points, equations], or a dict."""
        return self._at(step.model, step.x)

    def _at(self, model, points):
        values = {key: tf.convert_to_tensor(value) for key, value in self.parameters.items()}
        with keras.StatelessScope(initialize_variables=False):
            return self.residual(model, points, values)

    def _mean_square(self, residual, count):
        residual = tf.convert_to_tensor(residual)
        if residual.shape.rank == 0 or not residual.shape[:1].is_compatible_with([count]):
            raise TermwiseError(
                f"The residual of term {self.name!r} has shape {tuple(residual.shape)} for "
                f"{count} points. Return one value for each point, [points] or "
                "[points, equations]."
            )
        axes = list(range(1, residual.shape.rank))
        # of float16 the squares would overflow; float64 stays what it is
        wide = residual if residual.dtype.size >= 4 else tf.cast(residual, tf.float32)
        squares = tf.reduce_sum(tf.square(wide), axis=axes)
        if self.points is None:
            return Ratio.of_examples(squares)
        return Ratio.once(tf.reduce_mean(squares), values=squares)

    def get_config(self):
        return {
            **super().get_config(),
            "residual": self.residual,
            "points": self.points,
            "parameters": self._initial,
        }


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
    Source: Nocedal and Wright 2006, chapter 10 (least squares).

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
            raise TermwiseError(
                'losses.Squares() was given a lambda without a name. Pass name="...".'
            )
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
        return Ratio.of_examples(
            tf.reduce_sum(tf.square(wide), axis=list(range(1, wide.shape.rank)))
        )

    def rows(self, step):
        """The examples, of which each has residuals of its own: x, y, sample_weight by name."""
        parts = {"x": step.x, "y": step.y, "sample_weight": step.sample_weight}
        return {name: part for name, part in parts.items() if part is not None}

    def residuals(self, step) -> tf.Tensor:
        """floating [examples] or [examples, columns], of a step's examples."""
        return tf.convert_to_tensor(self.residual(step))

    def get_config(self):
        return {**super().get_config(), "residual": self.residual}
