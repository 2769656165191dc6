"""The weight of a term: a number, a function of the step, a variable, or one that learns."""

from __future__ import annotations

import inspect
import math
from typing import Any

import keras
import tensorflow as tf

from losses.checks import as_number
from losses.errors import TermwiseError, TermwiseTypeError


class Weight:
    """A term's weight in one form: called with the step, it gives a float32 [].

    Args:
      given: None (1), a number, a variable, a Keras schedule or another function of the step,
        or an object such as `UncertaintyWeight`.
      term: the term's name, for errors.
    Raises:
      ValueError: a number that is not finite.
      TypeError: anything else.
    """

    def __init__(self, given, term: str):
        self.given: Any = 1.0 if given is None else given
        self.term = term
        constant = as_number(self.given)
        if constant is not None:
            self.given = constant
            if not math.isfinite(constant):
                raise TermwiseError(
                    f"The weight of term {term!r} is {constant}. Give a finite number, a function "
                    "of the step, or a variable."
                )
        elif isinstance(self.given, (keras.Variable, tf.Variable)):
            if self.given.shape.rank if hasattr(self.given.shape, "rank") else self.given.shape:
                raise TermwiseError(
                    f"The weight of term {term!r} is a variable of shape "
                    f"{tuple(self.given.shape)}. Give a scalar; weight points inside the term."
                )
        elif not callable(self.given) or inspect.isclass(self.given):
            raise TermwiseTypeError(
                f"The weight of term {term!r} is {given!r}. Accepted: a number, a function of the "
                "step (a keras.optimizers.schedules object is one), a variable, or a trainable "
                "weight such as losses.UncertaintyWeight()."
            )

    @property
    def constant(self) -> bool:
        return isinstance(self.given, float)

    def __call__(self, step) -> tf.Tensor:
        if self.constant:
            return tf.constant(self.given, tf.float32)
        value = self.given
        if not isinstance(value, (keras.Variable, tf.Variable)):
            value = value(step)
        value = tf.cast(tf.convert_to_tensor(value), tf.float32)
        if value.shape.rank != 0:
            raise TermwiseError(
                f"The weight of term {self.term!r} has shape {tuple(value.shape)} at a step. "
                "A weight is one number."
            )
        return value

    def penalty(self):
        """What a trainable weight adds of its own, [] or None."""
        penalty = getattr(self.given, "penalty", None)
        return penalty() if callable(penalty) else None

    def __str__(self):
        if self.constant:
            return f"{self.given:g}"
        if isinstance(self.given, (keras.Variable, tf.Variable)):
            return f"variable {self.given.name.split(':')[0]}"
        if type(self.given).__repr__ is not object.__repr__ and not inspect.isfunction(self.given):
            return repr(self.given)
        return getattr(self.given, "__name__", type(self.given).__name__)
