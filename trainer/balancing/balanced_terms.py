"""The terms that a balancer weighs: which they are, its state, and the factors of the last step."""

from __future__ import annotations

import copy
import dataclasses
import fnmatch
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from losses.balancing.balancer import Balancer, JacobianBalancer
from losses.errors import TermwiseError, TermwiseTypeError
from losses.objective.layout import Layout
from losses.objective.objective import Described
from losses.objective.parameter import Parameter
from losses.objective.ratio import Ratio
from trainer.balancing.active_terms import Part, for_active, term_axes

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

    A term whose given weight is always 0, or that no variable is trained by, is none of them. One
    that is absent from a step, or has the weight 0 there, takes no part in it: the balancer is
    asked for the others alone, and its factor and its state stay as they were.

    Args:
      balancer: of `losses.balancing`.
      layout: the T terms of a training step.
      strategy: the run's strategy, in whose scope the state is made.
      weights: name -> the given weight, None where it may change; 1 by default.
      watched: the terms that reach no variable.
    Attributes:
      names: the balanced terms, m of them, in the ledger's order.
      positions: int [m], where they stand in the layout.
      state: name -> variable, as `Balancer.initial_state` has it.
      factors: float32 [m] variable, those of the last step that balanced.
    Raises:
      ValueError: `terms=` of the balancer names no term.
    """

    def __init__(
        self,
        balancer: Balancer,
        layout: Layout,
        strategy,
        weights: Mapping[str, float | None] | None = None,
        watched: Iterable[str] = (),
    ):
        self.balancer: Any = balancer
        weights = weights or {}
        self.names = _balanced_names(balancer, layout, _idle(weights, watched))
        self.positions = np.array([layout.names.index(name) for name in self.names], np.int32)
        self._varies = any(weights.get(name, 1.0) is None for name in self.names)
        self._axes = term_axes(balancer.initial_state, len(self.names))
        self.state: dict[str, Any] = {}
        with strategy.scope():
            for name, value in balancer.initial_state(len(self.names)).items():
                if balancer.trained:
                    self.state[name] = Parameter(name, np.asarray(value))
                else:
                    self.state[name] = tf.Variable(value, trainable=False, name=name)
            ones = tf.ones([len(self.names)])
            self.factors = tf.Variable(ones, trainable=False, name="factors")

    def placed_in(
        self, layout: Layout, weights: Mapping[str, float | None], watched: Iterable[str]
    ) -> BalancedTerms:
        """The same terms, with their state, in another layout.

        Args:
          layout, weights, watched: as above.
        Raises:
          ValueError: it has other terms that are balanced.
        """
        names = _balanced_names(self.balancer, layout, _idle(weights, watched))
        if names != self.names:
            raise TermwiseError(
                f"`trainable` was changed, and {self.balancer!r} would balance "
                f"{', '.join(map(repr, names))} instead of {', '.join(map(repr, self.names))}. "
                "Name the terms by its terms=, or use another Trainer."
            )
        placed = copy.copy(self)
        placed.positions = np.array([layout.names.index(name) for name in names], np.int32)
        placed._varies = any(weights.get(name, 1.0) is None for name in names)
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

    def active(self, weights, absent) -> tf.Tensor | None:
        """bool [m], the balanced terms that take part in a step; None: all of them always do.

        Args:
          weights: float32 [T], the given weights.
          absent: float32 [T], 1 where the global batch holds nothing of a term, or None.
        """
        if self.balancer.trained or (absent is None and not self._varies):
            return None
        active = tf.ones([len(self.names)], tf.bool)
        if absent is not None:
            active &= tf.equal(tf.gather(absent, self.positions), 0)
        if self._varies:
            active &= tf.not_equal(tf.gather(weights, self.positions), 0)
        return active

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

    def penalties(self, terms: Mapping[str, Ratio], weights_of) -> dict[str, Ratio]:
        """`uncertainty/<term>` -> Ratio, what trained weights add of their own.

        It is absent where the term is, or where its given weight is 0.

        Args:
          terms: name -> Ratio, of the others.
          weights_of: names -> float32 [names], their given weights.
        """
        if not self.balancer.trained or not self.state:
            return {}
        values = tf.cast(self.balancer.penalty(self.state_now()), tf.float32)
        beside = {name: terms.get(name) for name in self.names}
        if self._varies:
            on = tf.unstack(tf.cast(tf.not_equal(weights_of(self.names), 0), tf.float32))
            beside = {
                name: (terms.get(name) or Ratio.once(values[0])).counting(weight)
                for name, weight in zip(self.names, on, strict=True)
            }
        return {
            f"uncertainty/{name}": Ratio.once(values[i], beside[name])
            for i, name in enumerate(self.names)
        }

    def answer(self, ask: Callable, axes, otherwise: Callable, *seen, active=None):
        """What the balancer says of the terms that take part in a step.

        Args:
          ask: (balancer, its state, what is seen) -> its answer, and that for all terms of it.
          axes: for each of `seen` the axes that go over the terms.
          otherwise: () -> the answer where no term takes part.
          seen: tensors, or None.
          active: of `active`.
        """
        if active is None:
            return ask(self.balancer, self.state_now(), seen, None)

        def of_part(part: Part):
            balancer = self.balancer.among(part.places, len(self.names))
            state = {n: part.of(value, self._axes[n]) for n, value in self.state_now().items()}
            parts = [
                None if value is None else part.of(value, over)
                for value, over in zip(seen, axes, strict=True)
            ]
            return ask(balancer, state, parts, part)

        return for_active(active, of_part, otherwise)

    def factors_of(self, statistic, values, step, active=None) -> tf.Tensor:
        """float32 [m], the factors; of a term that takes no part that of the step before.

        Args:
          statistic: float64 [m, m] Gramian, [m, n] Jacobian or [m] traces of the terms' gradients;
            None where the balancer reads values alone.
          values: float32 [m], or None.
          step: int64 [].
          active: of `active`.
        """

        def ask(balancer, state, seen, part):
            factors = tf.cast(_told(balancer, balancer.weights, seen, state, step), tf.float32)
            return factors if part is None else part.into(self.factors_now(), factors, (0,))

        axes = self._seen_axes
        factors = self.answer(ask, axes, self.factors_now, statistic, values, active=active)
        return factors if active is None else tf.stop_gradient(factors)

    def direction_of(self, jacobian, values, step, active=None) -> tf.Tensor:
        """float64 [n], the direction of a Jacobian [m, n]; 0 where no term takes part."""

        def ask(balancer, state, seen, part):
            return balancer.direction(seen[0], state, values=seen[1], step=step)

        def nothing():
            return tf.zeros(jacobian.shape[1:], jacobian.dtype)

        return self.answer(ask, self._seen_axes, nothing, jacobian, values, active=active)

    @property
    def _seen_axes(self) -> tuple:
        """The axes over the terms of a statistic, and of values."""
        return (0, 1) if self.balancer.needs == "gramian" else (0,), (0,)

    def _following(self, statistic, values, step, active) -> dict[str, tf.Tensor]:
        """The state that follows; that of terms that take no part stays."""
        now = self.state_now()

        def ask(balancer, state, seen, part):
            following = _told(balancer, balancer.next_state, seen, state, step)
            if part is None:
                return following
            return {n: part.into(now[n], following[n], self._axes[n]) for n in now}

        axes = self._seen_axes
        return self.answer(ask, axes, lambda: dict(now), statistic, values, active=active)

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

    def remember_gradients(self, statistic, values, factors, step, active=None) -> None:
        """`remember`, the state following from what `factors_of` was given."""

        def next_state():
            return self._following(statistic, values, step, active)

        self.remember(next_state, values, factors, step)

    def remember_values(self, values, factors, step, active=None) -> None:
        """`remember`, the state following from the values alone."""
        self.remember_gradients(None, values, factors, step, active)

    def describe(self, described: Iterable[Described]) -> list[Described]:
        """The table of terms with what the balancer does to it."""
        notes = _notes(self.balancer, len(self.names))
        kind = type(self.balancer).__name__ + (f" ({', '.join(notes)})" if notes else "")
        lines = []
        for line in described:
            if line.name in self.names:
                factor = "" if line.weight == "1" else f"{line.weight} * "
                line = dataclasses.replace(line, weight=f"{factor}{kind}")
            lines.append(line)
        known = {line.name for line in lines}
        trained = self.balancer.trained and self.state
        added = [f"uncertainty/{name}" for name in self.names] if trained else []
        added = [name for name in added if name not in known]
        return lines + [Described(name, "balancer", "1") for name in added]


def _notes(balancer: Balancer, terms: int) -> list[str]:
    """What else the table says of it; the weights nearest to a direction are effective ones."""
    notes = ["effective"] if isinstance(balancer, JacobianBalancer) else []
    notes += [] if balancer.every == 1 else [f"every={balancer.every}"]
    if balancer.at is not None:
        places = [str(getattr(each, "path", each)) for each in tf.nest.flatten(balancer.at)]
        notes.append(f"at={', '.join(map(repr, places))}")
    if terms == 1 and not balancer.trained:
        notes.append("of one term: nothing to balance")
    return notes


def _told(balancer, method: Callable, seen: tuple, state: dict, step):
    """What a method of a balancer answers to the statistic and the values, as it takes them."""
    statistic, values = seen
    if balancer.needs == "values":
        return method(values, state, step=step)
    return method(statistic, state, values=values, step=step)


def _idle(weights: Mapping[str, float | None], watched: Iterable[str]) -> set[str]:
    """The terms that no balancer is asked about."""
    return {*watched, *(name for name, weight in weights.items() if weight == 0)}


def _balanced_names(balancer: Balancer, layout: Layout, idle: Container[str]) -> tuple[str, ...]:
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
    names = tuple(name for name in names if name not in idle)
    if not names:
        raise TermwiseError(f"{balancer!r} has no term to balance. Name some by terms=.")
    return names
