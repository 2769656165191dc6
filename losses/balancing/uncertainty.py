"""Weights that are trained with the model: uncertainty weighting (UW) and IMTL-L."""

from __future__ import annotations

import abc
from typing import ClassVar

import tensorflow as tf

from losses.balancing.balancer import ValuesBalancer
from losses.balancing.numerics.safe_math import double, finite
from losses.checks import check_length, number
from losses.errors import TermwiseError

LARGEST_EXPONENT = 50.0  # exp(50) = 5e21: far beyond use, far within float32


class TrainedBalancer(ValuesBalancer):
    """A balancer whose state is one number per term, trained by gradient.

    The objective is sum_i w_i(s_i) L_i + penalty_i(s_i). A training loop makes one loss parameter
    per term of the state and trains it by the model's optimizer; `weights` and `penalty` have
    gradients with respect to the state for that. `next_state` is one step of plain gradient
    descent, for use on plain tensors.
    """

    trained: ClassVar[bool] = True
    parameter: ClassVar[str] = ""  # the name of the state

    def __init__(
        self,
        initial: float = 0.0,
        learning_rate: float = 0.025,
        *,
        every: int = 1,
        at=None,
        terms=None,
    ):
        super().__init__(every=every, at=at, terms=terms)
        self.initial = number("initial", initial, owner=self)
        self.learning_rate = number("learning_rate", learning_rate, least=0, owner=self)
        if abs(self.initial) > LARGEST_EXPONENT:
            raise TermwiseError(
                f"{type(self).__name__}(initial={initial!r}): give a number between "
                f"{-LARGEST_EXPONENT:g} and {LARGEST_EXPONENT:g}."
            )

    def initial_state(self, terms):
        return {self.parameter: tf.fill([terms], tf.constant(self.initial, tf.float32))}

    def exponent(self, state, terms: int) -> tf.Tensor:
        """float64 [m]: the state, within what the exponential function can take."""
        state = state or self.initial_state(terms)
        parameter = tf.cast(tf.convert_to_tensor(state[self.parameter]), tf.float64)
        return tf.clip_by_value(parameter, -LARGEST_EXPONENT, LARGEST_EXPONENT)

    @abc.abstractmethod
    def slope(self, values, state) -> tf.Tensor:
        """float64 [m]: the objective's derivative with respect to the state."""

    @abc.abstractmethod
    def penalty(self, state) -> tf.Tensor:
        """[m] in the dtype of the state: what the weights add to the objective besides w_i L_i."""

    def next_state(self, values, state, *, step=0):
        slope = self.slope(double(values), state)
        moved = self.exponent(state, slope.shape[-1]) - self.learning_rate * slope
        moved = tf.clip_by_value(moved, -LARGEST_EXPONENT, LARGEST_EXPONENT)
        return {self.parameter: tf.cast(moved, tf.convert_to_tensor(state[self.parameter]).dtype)}

    def get_config(self):
        return {
            "initial": self.initial,
            "learning_rate": self.learning_rate,
            **super().get_config(),
        }


class Uncertainty(TrainedBalancer):
    """Uncertainty weighting (UW): a trained log-variance for each term.

        regression:      w_i = exp(-s_i) / 2,   penalty_i = s_i / 2
        classification:  w_i = exp(-s_i),       penalty_i = s_i / 2

    s_i = log(sigma_i^2). For a constant loss L the best s is log(L), or log(2 L) for
    classification: every weighted term then is 1/2. A loss that stays negative has no best s.

    Args:
      kind: "regression" or "classification", or one of them for each term.
      initial: float, the initial log-variances.
      learning_rate: of `next_state`; a training loop uses its optimizer instead.
      every, at, terms: as in `Balancer`.
    Raises:
      ValueError: another kind, a number outside its range, or not one kind for each term.
    State: float32 [m] `log_variance`, read within ±50 so that no weight overflows.
    Source: Kendall, Gal, Cipolla 2018, eq. 7 and 10. `losses.UncertaintyWeight` is the same for one
      term.

    Example:
      >>> balancer = Uncertainty(learning_rate=0.1)
      >>> state = balancer.initial_state(2)
      >>> balancer.weights(tf.constant([1.0, 3.0]), state).numpy().tolist()
      [0.5, 0.5]
      >>> state = balancer.next_state(tf.constant([1.0, 3.0]), state)
      >>> state["log_variance"].numpy().round(3).tolist()           # 0.1 (w L - 1/2)
      [0.0, 0.1]
    """

    parameter = "log_variance"

    def __init__(
        self,
        kind="regression",
        initial: float = 0.0,
        learning_rate: float = 0.025,
        *,
        every: int = 1,
        at=None,
        terms=None,
    ):
        super().__init__(initial, learning_rate, every=every, at=at, terms=terms)
        kinds = (kind,) if isinstance(kind, str) else tuple(kind)
        if not kinds or not set(kinds) <= {"regression", "classification"}:
            raise TermwiseError(
                f"Uncertainty(kind={kind!r}): accepted are 'regression' and 'classification', or "
                "one of them for each term."
            )
        self.kind = kind if isinstance(kind, str) else kinds

    def weights(self, values, state=None, *, step=0):
        return finite(self._weights(state, double(values).shape[-1]), values)

    def penalty(self, state):
        return 0.5 * tf.convert_to_tensor(state[self.parameter])

    def slope(self, values, state):
        return 0.5 - self._weights(state, values.shape[-1]) * values

    def _weights(self, state, terms):
        kinds = (self.kind,) * terms if isinstance(self.kind, str) else self.kind
        check_length("kind", kinds, terms, owner=self, what="kinds")
        scales = [0.5 if kind == "regression" else 1.0 for kind in kinds]
        return tf.constant(scales, tf.float64) * tf.exp(-self.exponent(state, terms))

    def get_config(self):
        return {"kind": self.kind, **super().get_config()}


class IMTLL(TrainedBalancer):
    """Impartial multi-task learning by losses (IMTL-L): a trained scale for each term.

        w_i = exp(s_i),   penalty_i = -s_i

    For a constant loss L the best s is -log(L): every weighted term then is 1. A loss that stays
    negative or 0 has no best s.

    Args:
      initial: float, the initial s.
      learning_rate: of `next_state`; a training loop uses its optimizer instead.
      every, at, terms: as in `Balancer`.
    Raises:
      ValueError: a number outside its range.
    State: float32 [m] `log_scale`, read within ±50 so that no weight overflows.
    Source: Liu et al. 2021, "Towards Impartial Multi-task Learning", the loss balance. It is UW
      with s of the other sign and twice its objective.

    Example:
      >>> balancer = IMTLL(learning_rate=0.1)
      >>> state = balancer.next_state(tf.constant([1.0, 3.0]), balancer.initial_state(2))
      >>> state["log_scale"].numpy().round(3).tolist()              # 0.1 (1 - w L)
      [0.0, -0.2]
    """

    parameter = "log_scale"

    def __init__(
        self,
        initial: float = 0.0,
        learning_rate: float = 0.025,
        *,
        every: int = 1,
        at=None,
        terms=None,
    ):
        super().__init__(initial, learning_rate, every=every, at=at, terms=terms)

    def weights(self, values, state=None, *, step=0):
        return finite(tf.exp(self.exponent(state, double(values).shape[-1])), values)

    def penalty(self, state):
        return -tf.convert_to_tensor(state[self.parameter])

    def slope(self, values, state):
        return tf.exp(self.exponent(state, values.shape[-1])) * values - 1.0
