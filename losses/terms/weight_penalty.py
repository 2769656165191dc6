"""Regularization of chosen variables from outside the model."""

from __future__ import annotations

import fnmatch

import keras
import tensorflow as tf

from losses.errors import TermwiseError
from losses.naming import suggestion
from losses.objective import Ratio, Term


@keras.saving.register_keras_serializable(package="termwise")
class WeightPenalty(Term):
    """A penalty on the model's trainable variables whose path matches a pattern.

        raw = sum over matching variables of penalty(variable)

    It counts once, however many replicas there are.

    Args:
      pattern: of variable paths as `fnmatch` reads it, "encoder/*/kernel"; or a list of patterns.
        As in the Trainer's groups, `*` matches across "/" too, and the start of a path may be
        left out.
      penalty: a `keras.regularizers` name or object, or a function of a variable that returns a
        scalar.
      weight, name, trains: as in `Term`.
    Returns:
      Ratio.
    Raises:
      ValueError: a pattern that matches nothing, or no such regularizer.
    Source: `keras.regularizers`, which Keras gives to a layer when it is made.

    Example:
      >>> import numpy as np
      >>> from losses import Step
      >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, name="out")])
      >>> model.set_weights([np.array([[3.0, 4.0]]), np.ones(2)])
      >>> step = Step(x=tf.zeros([1, 1]), model=model, step=0, training=True)
      >>> term = WeightPenalty("*/kernel", keras.regularizers.L2(0.5))
      >>> float(term.call(step).value())                                    # 0.5 * (9 + 16)
      12.5
    """

    def __init__(self, pattern, penalty, *, weight=1.0, name=None, trains=None):
        super().__init__(weight=weight, name=name, trains=trains)
        patterns = [pattern] if isinstance(pattern, str) else list(pattern or ())
        if not patterns or not all(isinstance(each, str) for each in patterns):
            raise TermwiseError(
                f"WeightPenalty(pattern={pattern!r}): give a pattern of variable paths such as "
                '"encoder/*/kernel", or a list of them.'
            )
        self.pattern = pattern
        self.penalty = penalty
        self._patterns = patterns
        try:
            self._function = keras.regularizers.get(penalty)
        except (TypeError, ValueError):
            self._function = None
        if self._function is None:
            raise TermwiseError(
                f"WeightPenalty(penalty={penalty!r}): give a name such as 'l2', a "
                "keras.regularizers object, or a function of a variable."
            )

    def call(self, step):
        variables = {variable.path: variable for variable in step.model.trainable_variables}
        chosen: dict[str, keras.Variable] = {}
        for pattern in self._patterns:
            matching = {path: v for path, v in variables.items() if _matches(path, pattern)}
            if not matching:
                raise TermwiseError(
                    f"Term {self.name!r} penalizes {pattern!r}, which matches none of the "
                    f"trainable variables: {', '.join(variables) or 'there are none'}."
                    f"{suggestion(pattern, variables)}"
                )
            chosen.update(matching)
        values = [self._function(variable) for variable in chosen.values()]
        return Ratio.once(tf.add_n([tf.reduce_sum(tf.cast(v, tf.float32)) for v in values]))

    def get_config(self):
        return {**super().get_config(), "pattern": self.pattern, "penalty": self.penalty}


def _matches(path: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, f"*/{pattern}")
