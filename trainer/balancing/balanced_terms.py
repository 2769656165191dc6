"""The terms that a balancer weighs: which they are, its state, and the factors of the last step."""

from __future__ import annotations

import copy
import dataclasses
import fnmatch
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from losses.balancing.balancer import Balancer, JacobianBalancer
from losses.errors import TermwiseError, TermwiseTypeError
from losses.objective.layout import Layout
from losses.objective.objective import Described
from losses.objective.parameter import Parameter
from losses.objective.ratio import Ratio

# the model's own terms and the weights' keep their weights unless they are named
PLAIN = ("regularization/", "add_loss/", "uncertainty/")


def check_balancer(balancer) -> None:
    """Raises TypeError where `balancer=` is neither None nor a balancer."""
    if balancer is not None and not isinstance(balancer, Balancer):
        raise TermwiseTypeError(
            f"balancer={balancer!r}: give an object of losses.balancing, such as "
            "losses.balancing.PCGrad()."
        )


class BalancedTerms:
    """The m terms of a run that a balancer weighs, and what it remembers of them.

    A balancer's factors multiply the given weights: weight = given * factor, and total = sum of
    weight * raw stays true. It derives them from the values and gradients under given weights.

    Args:
      balancer: of `losses.balancing`.
      layout: the T terms of a training step.
      strategy: the run's strategy, in whose scope the state is made.
    Attributes:
      names: the balanced terms, m of them, in the ledger's order.
      positions: int [m], where they stand in the layout.
      state: name -> variable, as `Balancer.initial_state` has it.
      factors: float32 [m] variable, those of the last step that balanced.
    Raises:
      ValueError: `terms=` of the balancer names no term.
    """

    def __init__(self, balancer: Balancer, layout: Layout, strategy):
        self.balancer: Any = balancer
        self.names = _balanced_names(balancer, layout)
        self.positions = np.array([layout.names.index(name) for name in self.names], np.int32)
        self.state: dict[str, Any] = {}
        with strategy.scope():
            for name, value in balancer.initial_state(len(self.names)).items():
                if balancer.trained:
                    self.state[name] = Parameter(name, np.asarray(value))
                else:
                    self.state[name] = tf.Variable(value, trainable=False, name=name)
            ones = tf.ones([len(self.names)])
            self.factors = tf.Variable(ones, trainable=False, name="factors")

    def placed_in(self, layout: Layout) -> BalancedTerms:
        """The same terms, with their state, in another layout.

        Raises:
          ValueError: it has other terms that are balanced.
        """
        names = _balanced_names(self.balancer, layout)
        if names != self.names:
            raise TermwiseError(
                f"`trainable` was changed, and {self.balancer!r} would balance "
                f"{', '.join(map(repr, names))} instead of {', '.join(map(repr, self.names))}. "
                "Name the terms by its terms=, or use another Trainer."
            )
        placed = copy.copy(self)
        placed.positions = np.array([layout.names.index(name) for name in names], np.int32)
        return placed

    @property
    def variables(self) -> list:
        """What a checkpoint holds of it; trained state is among the loss parameters."""
        return [*([] if self.balancer.trained else self.state.values()), self.factors]

    def state_now(self) -> dict[str, tf.Tensor]:
        """The state as tensors."""
        return {name: tf.convert_to_tensor(value) for name, value in self.state.items()}

    def factors_now(self) -> tf.Tensor:
        """float32 [m], the factors of the last step that balanced."""
        return tf.convert_to_tensor(self.factors)

    def values(self, weights, raw) -> tf.Tensor:
        """float32 [m], the balanced terms' weighted values; of weights and raw [T]."""
        return tf.stop_gradient(tf.gather(weights * raw, self.positions))

    def times(self, weights, factors) -> tf.Tensor:
        """float32 [T], the weights [T] with those of the balanced terms times the factors [m]."""
        factors = tf.cast(factors, tf.float32)
        ones = tf.ones_like(weights)
        return weights * tf.tensor_scatter_nd_update(ones, self.positions[:, None], factors)

    def times_in(self, layout: Layout, weights) -> tf.Tensor:
        """float32 [T'], the weights of another layout times the last factors."""
        for name, factor in zip(self.names, tf.unstack(self.factors), strict=True):
            if name in layout.names:
                place = layout.names.index(name)
                weights = tf.tensor_scatter_nd_update(weights, [[place]], [weights[place] * factor])
        return weights

    def due(self, step) -> tf.Tensor:
        """bool [], whether a step, int64 [], balances."""
        return tf.equal(step % self.balancer.every, 0)

    def when_due(self, step, function):
        """float32 [m], the factors of a function on steps that balance, else the last ones."""
        if self.balancer.every == 1:
            return function()
        last = self.factors_now()
        return tf.cond(self.due(step), function, lambda: last)

    def penalties(self) -> dict[str, Ratio]:
        """`uncertainty/<term>` -> Ratio, what trained weights add of their own."""
        if not self.balancer.trained or not self.state:
            return {}
        values = tf.cast(self.balancer.penalty(self.state_now()), tf.float32)
        return {f"uncertainty/{name}": Ratio.once(values[i]) for i, name in enumerate(self.names)}

    def factors_of(self, statistic, values, step) -> tf.Tensor:
        """float32 [m], the factors from a Gramian or Jacobian of the terms' gradients."""
        weights = self.balancer.weights(statistic, self.state_now(), values=values, step=step)
        return tf.cast(weights, tf.float32)

    def remember(self, next_state, values, factors, step) -> None:
        """Takes the state a step further; not on a step that is not finite.

        Args:
          next_state: () -> name -> tensor, the state that follows.
          values, factors: float32 [m].
          step: int64 [].
        """
        if self.balancer.trained:
            self.factors.assign(factors)
            return
        following = next_state()
        finite = tf.reduce_all(tf.math.is_finite(factors)) & tf.reduce_all(
            tf.math.is_finite(values)
        )
        take = finite & self.due(step)
        for name, variable in self.state.items():
            now = tf.convert_to_tensor(variable)
            variable.assign(tf.where(take, tf.cast(following[name], now.dtype), now))
        self.factors.assign(tf.where(take, factors, tf.convert_to_tensor(self.factors)))

    def remember_gradients(self, statistic, values, factors, step) -> None:
        """`remember`, the state following from the statistic that `factors_of` was given."""

        def next_state():
            return self.balancer.next_state(statistic, self.state_now(), values=values, step=step)

        self.remember(next_state, values, factors, step)

    def remember_values(self, values, factors, step) -> None:
        """`remember`, the state following from the values alone."""

        def next_state():
            return self.balancer.next_state(values, self.state_now(), step=step)

        self.remember(next_state, values, factors, step)

    def describe(self, described: Iterable[Described]) -> list[Described]:
        """The table of terms with what the balancer does to it."""
        kind = type(self.balancer).__name__
        if isinstance(self.balancer, JacobianBalancer):
            kind += " (effective)"  # it makes a direction; these weights come nearest to it
        lines = []
        for line in described:
            if line.name in self.names:
                factor = "" if line.weight == "1" else f"{line.weight} * "
                line = dataclasses.replace(line, weight=f"{factor}{kind}")
            lines.append(line)
        known = {line.name for line in lines}
        added = [name for name in self.penalties() if name not in known]
        return lines + [Described(name, "balancer", "1") for name in added]


def _balanced_names(balancer: Balancer, layout: Layout) -> tuple[str, ...]:
    patterns = balancer.terms
    if patterns is None:
        names = tuple(n for n in layout.names if not n.startswith(PLAIN))
    else:
        for pattern in patterns:
            if not any(fnmatch.fnmatchcase(name, pattern) for name in layout.names):
                raise TermwiseError(
                    f"{balancer!r}: terms= names {pattern!r}; the terms are "
                    f"{', '.join(map(repr, layout.names))}."
                )
        names = tuple(n for n in layout.names if any(fnmatch.fnmatchcase(n, p) for p in patterns))
    if not names:
        raise TermwiseError(f"{balancer!r} has no term to balance. Name some by terms=.")
    return names
