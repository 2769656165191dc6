"""The weight of a term: a number, a function of the step, a variable, or one that learns."""

from __future__ import annotations

import inspect
import math
from typing import Any

import keras
import tensorflow as tf

from losses.checks import as_number, number
from losses.errors import TermwiseError, TermwiseTypeError
from losses.objective.parameter import Parameter


class UncertaintyWeight:
    """A weight learned from the term's own noise.

        regression:      weighted = exp(-s) * raw / 2,  uncertainty/<term> = s / 2
        classification:  weighted = exp(-s) * raw,      uncertainty/<term> = s / 2

    The log-variance s is a loss parameter; the objective adds s / 2 as a term of its own, so
    that the total stays the sum of weighted terms.

    Args:
      kind: "regression" or "classification".
      init: float, the initial log-variance.
    Raises:
      ValueError: an unknown kind, or `init` is not finite.
    Source: Kendall, Gal, Cipolla 2018, eq. 7 and 10; here the parameter is s = log(sigma^2).

    Example:
      >>> weight = UncertaintyWeight(init=0.0)
      >>> float(weight(0)), float(weight.penalty())
      (0.5, 0.0)
    """

    def __init__(self, kind="regression", init=0.0):
        if kind not in ("regression", "classification"):
            raise TermwiseError(
                f"UncertaintyWeight(kind={kind!r}): accepted are 'regression' and 'classification'."
            )
        self.kind = kind
        self.init = number("init", init, owner=self, accepted="a finite log-variance")
        self.log_variance = Parameter("log_variance", self.init)

    def __call__(self, step):
        scale = 0.5 if self.kind == "regression" else 1.0
        return scale * tf.exp(-tf.convert_to_tensor(self.log_variance))

    def penalty(self) -> tf.Tensor:
        """float32 [], what the weight adds to the objective of its own."""
        return 0.5 * tf.convert_to_tensor(self.log_variance)

    def get_config(self) -> dict:
        return {"kind": self.kind, "init": self.init}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __repr__(self):
        return f"UncertaintyWeight({self.kind})"


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
