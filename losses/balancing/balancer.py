"""Balancers: rules that derive the terms' weights, or the direction itself, from the terms."""

from __future__ import annotations

import functools
import inspect
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError


class Balancer:
    """What all balancers share: preference, cadence, seed, and state that the caller keeps.

    A balancer is pure: what it returns depends on its arguments alone. One that remembers gets
    its state as an argument, and `next_state` gives the state after it, so that the same object
    serves plain tensors, a traced step and a restored run.

    Args:
      preference: None (1/m each where the paper has a preference), or m positive numbers.
      every: steps between two balancings; the weights stay in between.
      seed: int, of the draws; a draw is a function of (seed, step).
      at: where a loop takes the gradients: None (all variables that at least two terms reach), a
        pattern of variable paths, a list of patterns or variables, or a layer or its name (the
        gradients with respect to its output, which cost one backward pass of what follows it).
      terms: patterns of the terms that are balanced; None: all but the model's own. The others
        keep their weights.
    Every balancer takes `at` and `terms` besides its own arguments.
    Raises:
      ValueError: a preference that is not positive and finite, or `every` below 1.
    """

    needs: ClassVar[str] = ""  # "values", "gramian", "jacobian" or "traces"
    trained: ClassVar[bool] = False  # whether its state is trained, with the loss parameters
    at: Any = None
    terms: tuple[str, ...] | None = None

    def __init_subclass__(cls, **arguments):
        super().__init_subclass__(**arguments)
        if "__init__" in vars(cls):
            cls.__init__ = _with_place(cls.__init__)  # type: ignore[method-assign]

    def __init__(self, *, preference=None, every: int = 1, seed: int = 0, at=None, terms=None):
        if at is not None:
            self.at = at
        if terms is not None:
            self.terms = (terms,) if isinstance(terms, str) else tuple(terms)
        if preference is not None:
            preference = tuple(float(p) for p in preference)
            if not preference or not all(np.isfinite(p) and p > 0 for p in preference):
                raise TermwiseError(
                    f"{type(self).__name__}(preference={preference}): give one positive finite "
                    "number for each term."
                )
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise TermwiseError(
                f"{type(self).__name__}(every={every!r}): give a whole number of at least 1."
            )
        self.preference = preference
        self.every = every
        self.seed = seed

    def initial_state(self, terms: int) -> dict[str, tf.Tensor]:
        """The state before the first step: name -> tensor of a fixed shape; {} without memory."""
        return {}

    def reset(self, state: dict | None = None) -> dict[str, tf.Tensor]:
        """The state of a start, for as many terms as `state` has; {} for None."""
        if not state:
            return {}
        return self.initial_state(int(next(iter(state.values())).shape[-1]))

    def preferred(self, terms: int, dtype=tf.float64) -> tf.Tensor:
        """[terms], the preference; 1/m each by default."""
        if self.preference is None:
            return tf.fill([terms], tf.constant(1.0 / terms, dtype))
        if len(self.preference) != terms:
            raise TermwiseError(
                f"{type(self).__name__}(preference=) holds {len(self.preference)} numbers, but "
                f"there are {terms} terms. Give one for each."
            )
        return tf.constant(self.preference, dtype)

    def get_config(self) -> dict:
        return {"preference": self.preference, "every": self.every, "seed": self.seed}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def place_config(self) -> dict:
        """`at` and `terms`, where they are given."""
        given = {"at": self.at, "terms": self.terms}
        return {key: value for key, value in given.items() if value is not None}

    def __repr__(self):
        defaults = inspect.signature(type(self)).parameters
        shown = {
            key: value
            for key, value in self.get_config().items()
            if key not in defaults or value != defaults[key].default
        }
        shown.update(self.place_config())
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in shown.items())})"


def _with_place(init):
    """A balancer's constructor that takes `at` and `terms` besides its own arguments."""

    @functools.wraps(init)
    def constructor(self, *args, at=None, terms=None, **arguments):
        init(self, *args, **arguments)
        if at is not None:
            self.at = at
        if terms is not None:
            self.terms = (terms,) if isinstance(terms, str) else tuple(terms)

    return constructor


class ValuesBalancer(Balancer):
    """Weights from the terms' values: `weights(values, state)`."""

    needs = "values"

    def weights(self, values, state: dict | None = None, *, step=0) -> tf.Tensor:
        """The weights at a step.

        Args:
          values: floating [m], the raw values of the terms.
          state: of `initial_state` or `next_state`; None is the initial one.
          step: int [], the global step.
        Returns:
          [m] in the dtype of `values`.
        """
        raise NotImplementedError

    def next_state(self, values, state: dict, *, step=0) -> dict[str, tf.Tensor]:
        """The state after a step with these values."""
        return state


class GramianBalancer(Balancer):
    """Weights from the Gramian of the terms' gradients: `weights(gramian)`.

    The direction is the weighted sum of the gradients, weights @ jacobian.
    """

    needs = "gramian"

    def weights(self, gramian, state: dict | None = None, *, values=None, step=0) -> tf.Tensor:
        """The weights at a step.

        Args:
          gramian: floating [m, m], inner products of the terms' gradients.
          state: of `initial_state` or `next_state`; None is the initial one.
          values: floating [m], the raw values, for the methods that read them.
          step: int [], the global step.
        Returns:
          [m] in the dtype of `gramian`.
        """
        raise NotImplementedError

    def next_state(self, gramian, state: dict, *, values=None, step=0) -> dict[str, tf.Tensor]:
        """The state after a step with this Gramian."""
        return state

    def direction(self, jacobian, state: dict | None = None, *, values=None, step=0) -> tf.Tensor:
        """The direction of descent's opposite, [n]: weights(J Jᵀ) @ J.

        Args:
          jacobian: floating [m, n], one row per term's gradient.
        """
        jacobian = tf.convert_to_tensor(jacobian)
        rows = tf.cast(jacobian, tf.float64)
        gramian = tf.matmul(rows, rows, transpose_b=True)
        weights = self.weights(gramian, state, values=values, step=step)
        return tf.cast(tf.linalg.matvec(rows, weights, transpose_a=True), jacobian.dtype)


class JacobianBalancer(Balancer):
    """A direction from the whole Jacobian: `direction(jacobian)`; no weights give it."""

    needs = "jacobian"

    def direction(self, jacobian, state: dict | None = None, *, values=None, step=0) -> tf.Tensor:
        """[n], in the dtype of `jacobian`, floating [m, n]."""
        raise NotImplementedError

    def next_state(self, jacobian, state: dict, *, values=None, step=0) -> dict[str, tf.Tensor]:
        """The state after a step with this Jacobian."""
        return state
