"""A balancer in the step: which terms it weighs, its state, and what it did."""

from __future__ import annotations

import dataclasses
import fnmatch
from typing import Any

import numpy as np
import tensorflow as tf

from losses import Described, Layout, Parameter
from losses.balancing.balancer import Balancer
from losses.errors import TermwiseError, TermwiseTypeError

# the model's own terms and the weights' keep their weights unless they are named
PLAIN = ("regularization/", "add_loss/", "uncertainty/")


class Balancing:
    """A balancer at work on some of the terms of a run.

    Its factors multiply the given weights: weight = given * factor, and total = sum of
    weight * raw stays true. What it derives them from are the given weights' values and gradients.

    Args:
      balancer: of `losses.balancing`.
      strategy: the run's strategy.

    Attributes:
      names: the terms that are balanced, m of them, in the ledger's order.
      state: name -> variable, as `Balancer.initial_state` has it.
      factors: float32 [m] variable, those of the last balancing.
    """

    def __init__(self, balancer: Balancer, strategy):
        if not isinstance(balancer, Balancer):
            raise TermwiseTypeError(
                f"balancer={balancer!r}: give an object of losses.balancing, such as "
                "losses.balancing.PCGrad()."
            )
        self.balancer: Any = balancer
        self.names: tuple[str, ...] = ()
        self.state: dict = {}
        self.factors: Any = None  # made by build
        self._strategy = strategy
        self._index = np.zeros([0], np.int32)

    @property
    def by_values(self) -> bool:
        """Whether values alone decide, so that a step costs one backward pass."""
        return self.balancer.needs == "values"

    @property
    def by_traces(self) -> bool:
        """Whether a pass of its own finds what decides, for the steps that follow."""
        return self.balancer.needs == "traces"

    def state_now(self) -> dict[str, tf.Tensor]:
        """The state as tensors."""
        return {name: tf.convert_to_tensor(value) for name, value in self.state.items()}

    def build(self, layout: Layout) -> None:
        """Chooses the terms and makes the state, once, before the step is traced."""
        patterns = self.balancer.terms
        if patterns is None:
            self.names = tuple(n for n in layout.names if not n.startswith(PLAIN))
        else:
            matches = [n for n in layout.names if any(fnmatch.fnmatchcase(n, p) for p in patterns)]
            for pattern in patterns:
                if not any(fnmatch.fnmatchcase(name, pattern) for name in layout.names):
                    raise TermwiseError(
                        f"{self.balancer!r}: terms= names {pattern!r}; the terms are "
                        f"{', '.join(map(repr, layout.names))}."
                    )
            self.names = tuple(matches)
        if not self.names:
            raise TermwiseError(f"{self.balancer!r} has no term to balance. Name some by terms=.")
        self._index = np.array([layout.names.index(name) for name in self.names], np.int32)
        initial = self.balancer.initial_state(len(self.names))
        with self._strategy.scope():
            for name, value in initial.items():
                if self.balancer.trained:
                    self.state[name] = Parameter(name, np.asarray(value))
                else:
                    self.state[name] = tf.Variable(value, trainable=False, name=name)
            ones = tf.ones([len(self.names)])
            self.factors = tf.Variable(ones, trainable=False, name="factors")

    @property
    def variables(self) -> list:
        """What a checkpoint holds of it; trained state is among the loss parameters."""
        if self.factors is None:
            return []
        return [*([] if self.balancer.trained else self.state.values()), self.factors]

    def positions(self, layout: Layout) -> np.ndarray:
        """int [m], where the balanced terms stand in a layout."""
        return np.array([layout.names.index(name) for name in self.names], np.int32)

    def values(self, given, raw) -> tf.Tensor:
        """float32 [m], the balanced terms' weighted values before balancing."""
        return tf.stop_gradient(tf.gather(given * raw, self._index))

    def weighted(self, given, factors) -> tf.Tensor:
        """float32 [T], the given weights times the factors [m]."""
        ones = tf.ones_like(given)
        factors = tf.cast(factors, tf.float32)
        return given * tf.tensor_scatter_nd_update(ones, self._index[:, None], factors)

    def weighted_alike(self, layout: Layout, given) -> tf.Tensor:
        """float32 [T], the given weights of another layout times the last factors."""
        for name, factor in zip(self.names, tf.unstack(self.factors), strict=True):
            if name in layout.names:
                at = [[layout.names.index(name)]]
                given = tf.tensor_scatter_nd_update(given, at, [given[at[0][0]] * factor])
        return given

    def of_values(self, given, raw, step):
        """float32 [m], the factors from the values; in replica context, under the tape."""
        values = self.values(given, raw)

        def now():
            return tf.cast(self.balancer.weights(values, self.state_now(), step=step), tf.float32)

        if self.balancer.trained:
            return now()
        return self.when_due(step, now)

    def when_due(self, step, function):
        """The factors of a function on the steps that balance, else those of the last."""
        kept = tf.convert_to_tensor(self.factors)
        if self.balancer.every == 1:
            return function()
        return tf.cond(self.due(step), function, lambda: kept)

    def due(self, step):
        return tf.equal(step % self.balancer.every, 0)

    def described(self, described: list[Described]) -> list[Described]:
        """The table of terms with what the balancer does to it."""
        kind = type(self.balancer).__name__
        if not hasattr(self.balancer, "weights"):
            kind += " (effective)"  # it makes a direction; these weights come nearest to it
        lines = []
        for line in described:
            if line.name in self.names:
                given = "" if line.weight == "1" else f"{line.weight} * "
                line = dataclasses.replace(line, weight=given + kind)
            lines.append(line)
        known = {line.name for line in described}
        own = [name for name in self.penalties() if name not in known]
        return lines + [Described(name, "balancer", "1") for name in own]

    def penalties(self) -> dict:
        """`uncertainty/<term>` -> float32 [], what trained weights add of their own."""
        if not self.balancer.trained or not self.state:
            return {}
        own = tf.cast(self.balancer.penalty(self.state_now()), tf.float32)
        return {f"uncertainty/{name}": own[i] for i, name in enumerate(self.names)}

    def of_gradients(self, statistic, values, step) -> tf.Tensor:
        """float32 [m], the factors from a Gramian or Jacobian of the terms' gradients."""
        weights = self.balancer.weights(statistic, self.state_now(), values=values, step=step)
        return tf.cast(weights, tf.float32)

    def remember(self, statistic, values, factors, step) -> None:
        """Takes the state a step further; not on a step that is not finite."""
        if self.balancer.trained:
            self.factors.assign(factors)
            return
        if self.by_values:
            following = self.balancer.next_state(values, self.state_now(), step=step)
        else:
            following = self.balancer.next_state(
                statistic, self.state_now(), values=values, step=step
            )
        finite = tf.reduce_all(tf.math.is_finite(factors)) & tf.reduce_all(
            tf.math.is_finite(values)
        )
        take = finite & self.due(step)
        for name, variable in self.state.items():
            now = tf.convert_to_tensor(variable)
            variable.assign(tf.where(take, tf.cast(following[name], now.dtype), now))
        self.factors.assign(tf.where(take, factors, tf.convert_to_tensor(self.factors)))
