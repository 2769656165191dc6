"""The multiplier of a constraint in one run: its variables, the weight it gives, how it moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import tensorflow as tf


@dataclass(frozen=True)
class Ascent:
    """How a multiplier moves and weighs.

    Attributes:
      kind: "lagrangian", "damped" or "augmented".
      bound: in words, such as "at least 0.99".
      signed: whether it may be negative (of an equation).
      rate: a number, or a function of the global step.
      damping: what the violation weighs beside the multiplier.
      every: updates of the weights between two of its own.
      average: decay of the moving average of the sums; None: each batch by itself.
      initial: its first value.
    """

    kind: str
    bound: str
    signed: bool
    rate: float | Callable
    damping: float
    every: int
    average: float | None
    initial: float

    def allowed(self, multiplier) -> tf.Tensor:
        """A multiplier where it may be: not below 0, but of an equation."""
        return multiplier if self.signed else tf.maximum(multiplier, 0.0)

    def rate_at(self, step) -> tf.Tensor:
        """float32 [], the rate at a step, int64 []."""
        rate = self.rate(step) if callable(self.rate) else self.rate
        return tf.cast(tf.convert_to_tensor(rate), tf.float32)


@dataclass
class MultiplierState:
    """The variables of a multiplier; none of them is trained.

    Attributes:
      multiplier, violation: float32 []; by the last batch that had the constraint.
      average: float32 [2k], decayed numerators and denominators; with a moving average.
      window: float32 [2k + 1], those of the accumulated steps so far, and how many had it; where
        gradients are accumulated.
    """

    multiplier: keras.Variable
    violation: keras.Variable
    sums: dict[str, keras.Variable] = field(default_factory=dict)

    @property
    def variables(self) -> list[keras.Variable]:
        return [self.multiplier, self.violation, *self.sums.values()]


class Multiplier:
    """The multiplier of one constraint, as the weight of its term.

        weight     = [multiplier + damping * violation]+
        multiplier = [multiplier + rate * violation]+          after a step, where it is due

    Without [ ]+ (not below 0) where the constraint is an equation. Both read the violation of the
    batch before, or of the moving average up to there.

    Args:
      name: of the constraint.
      ascent: how it moves.
    """

    def __init__(self, name: str, ascent: Ascent):
        self.name, self.ascent = name, ascent
        # one object further away than where a loop looks for statistics to average over replicas
        self.state = MultiplierState(
            self._variable("multiplier", ascent.initial), self._variable("violation", 0.0)
        )

    def _variable(self, name: str, value) -> keras.Variable:
        with keras.name_scope(self.name):
            return keras.Variable(value, dtype="float32", trainable=False, name=name)

    def __call__(self, step) -> tf.Tensor:
        """float32 [], the weight of the constraint's term at a step."""
        multiplier = tf.convert_to_tensor(self.state.multiplier)
        if not self.ascent.damping:
            return multiplier
        violation = tf.convert_to_tensor(self.state.violation)
        return self.ascent.allowed(multiplier + self.ascent.damping * violation)

    def __repr__(self):
        return f"{self.ascent.kind} multiplier, {self.ascent.bound}"

    def allocate(self, size: int, accumulation: int) -> None:
        """Makes the variables for a constraint of k sums, in the scope of the run's strategy.

        Args:
          size: k.
          accumulation: the steps of one update.
        """
        wanted = {}
        if self.ascent.average is not None:
            wanted["average"] = 2 * size
        if accumulation > 1:
            wanted["window"] = 2 * size + 1
        for name, length in wanted.items():
            if name not in self.state.sums:
                self.state.sums[name] = self._variable(name, tf.zeros([length]))

    def move(self, sums, present, value: Callable, step, accumulation: int) -> None:
        """Takes the violation of a step's global batch, and moves where that is due.

        Args:
          sums: float32 [2k], numerators and denominators; zeros where `present` is 0.
          present: float32 [], 0 where the batch holds nothing of the constraint.
          value: float32 [2k] -> [], the violation that sums make.
          step: int64 [], the global step, counted from 0.
          accumulation: the steps of one update.
        """
        ascent, state = self.ascent, self.state
        sums, present, counts = self._of_update(sums, present, step, accumulation)
        counts &= present > 0
        if ascent.average is not None:
            average = state.sums["average"]
            before = tf.convert_to_tensor(average)
            sums = ascent.average * before + sums
            average.assign(tf.where(counts, sums, before))
        violation = value(sums)
        multiplier = tf.convert_to_tensor(state.multiplier)
        moved = ascent.allowed(multiplier + ascent.rate_at(step) * violation)
        due = counts & tf.equal((step // accumulation + 1) % ascent.every, 0)
        state.multiplier.assign(tf.where(due, moved, multiplier))
        last = tf.convert_to_tensor(state.violation)
        state.violation.assign(tf.where(counts, violation, last))

    def _of_update(self, sums, present, step, accumulation: int):
        """The sums of all steps of an update, how many had it, and whether this is the last."""
        if accumulation == 1:
            return sums, present, tf.constant(True)
        window = self.state.sums["window"]
        whole = tf.convert_to_tensor(window) + tf.concat([sums, [present]], 0)
        last = tf.equal((step + 1) % accumulation, 0)
        window.assign(tf.where(last, tf.zeros_like(whole), whole))
        return whole[:-1], whole[-1], last
