"""Weights that change with the global step: Linear, Cosine, Cyclical, PiecewiseConstant.

Each is a `keras.optimizers.schedules.LearningRateSchedule`: Keras serializes it, an optimizer
takes it as well, and whatever knows a schedule of Keras knows these.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from losses.checks import number, whole, without_fraction
from losses.errors import TermwiseError

__all__ = ["Cosine", "Cyclical", "Linear", "PiecewiseConstant"]

Schedule: Any = keras.optimizers.schedules.LearningRateSchedule


class _Ramp(Schedule):
    """What Linear and Cosine share: `initial` until `start`, `final` from `start + steps` on."""

    def __init__(self, initial, final, steps, start=0):
        self.initial = number("initial", initial, owner=self)
        self.final = number("final", final, owner=self)
        self.steps = _steps(self, "steps", steps)
        self.start = _steps(self, "start", start, least=0)

    def __call__(self, step):
        progress = (_as_step(step) - self.start) / self.steps
        return _between(self.initial, self.final, progress, self._shape)

    def get_config(self):
        return {
            "initial": self.initial,
            "final": self.final,
            "steps": self.steps,
            "start": self.start,
        }

    def __repr__(self):
        span = f"{self.start}..{self.start + self.steps}"
        return f"{type(self).__name__}({self.initial:g} -> {self.final:g}, steps {span})"


@keras.saving.register_keras_serializable(package="termwise")
class Linear(_Ramp):
    """A straight line from one value to another.

        value = initial + (final - initial) p,   p = (step - start) / steps, kept in [0, 1]

    Args:
      initial: float, the value up to the step `start`; exact there.
      final: float, the value from the step `start + steps` on; exact there.
      steps: int >= 1.
      start: int >= 0.
    Returns:
      float32 [], of the global step (int64 [], a Python number, or a variable).
    Raises:
      ValueError: an argument outside its range.
    Source: Keras's PolynomialDecay of power 1, with a start.

    Example:
      >>> schedule = Linear(0.0, 1.0, steps=100)
      >>> [float(schedule(step)) for step in (0, 25, 100, 500)]
      [0.0, 0.25, 1.0, 1.0]
    """

    @staticmethod
    def _shape(progress):
        return progress


@keras.saving.register_keras_serializable(package="termwise")
class Cosine(_Ramp):
    """Half a cosine wave from one value to another: flat at both ends.

        value = initial + (final - initial) (1 - cos(pi p)) / 2,   p as in `Linear`

    Args:
      initial: float, the value up to the step `start`; exact there.
      final: float, the value from the step `start + steps` on; exact there.
      steps: int >= 1.
      start: int >= 0.
    Returns:
      float32 [], of the global step.
    Raises:
      ValueError: an argument outside its range.
    Source: Loshchilov & Hutter 2017, eq. 5, without restarts.

    Example:
      >>> schedule = Cosine(1.0, 0.0, steps=100)
      >>> [float(schedule(step)) for step in (0, 50, 100)]
      [1.0, 0.5, 0.0]
    """

    @staticmethod
    def _shape(progress):
        return 0.5 - 0.5 * tf.cos(math.pi * progress)


@keras.saving.register_keras_serializable(package="termwise")
class Cyclical(Schedule):
    """Cyclical annealing: a ramp and a plateau, again and again; for the KL term of a VAE.

        t = (step mod period) / period
        value = initial + (final - initial) t / ramp   for t < ramp,   final afterwards

    Args:
      period: int >= 1, steps of one cycle.
      initial: float, the value at the beginning of each cycle.
      final: float, the value of the plateau.
      ramp: float in (0, 1], the part of a cycle that rises (R in the paper).
      cycles: int >= 1, after which the value stays `final`, or None: no end.
    Returns:
      float32 [], of the global step.
    Raises:
      ValueError: an argument outside its range.
    Source: Fu et al. 2019, eq. 6 and 7, which counts steps from 1; here from 0.

    Example:
      >>> schedule = Cyclical(period=100, ramp=0.5)
      >>> [float(schedule(step)) for step in (0, 25, 50, 99, 100)]
      [0.0, 0.5, 1.0, 1.0, 0.0]
    """

    def __init__(self, period, initial=0.0, final=1.0, ramp=0.5, cycles=None):
        self.period = _steps(self, "period", period)
        self.initial = number("initial", initial, owner=self)
        self.final = number("final", final, owner=self)
        rising = "the part of a cycle that rises, above 0, at most 1"
        self.ramp = number("ramp", ramp, above=0, most=1, owner=self, accepted=rising)
        if cycles is not None:
            many = "a whole number, 1 or more, or None"
            cycles = whole("cycles", without_fraction(cycles), owner=self, accepted=many)
        self.cycles = cycles

    def __call__(self, step):
        step = _as_step(step)
        progress = tf.math.floormod(step, self.period) / (self.period * self.ramp)
        if self.cycles is not None:
            progress = tf.where(step < self.period * self.cycles, progress, 1.0)
        return _between(self.initial, self.final, progress, lambda p: p)

    def get_config(self):
        return {
            "period": self.period,
            "initial": self.initial,
            "final": self.final,
            "ramp": self.ramp,
            "cycles": self.cycles,
        }

    def __repr__(self):
        return f"Cyclical({self.initial:g} -> {self.final:g}, period {self.period})"


# "Step" is its name in saved models and runs; `losses.Step` is what a term is given.
@keras.saving.register_keras_serializable(package="termwise", name="Step")
class PiecewiseConstant(Schedule):
    """One value after another, each from a step on.

        value = values[number of boundaries <= step]

    `schedules.Step` is its former name, which still works.

    Args:
      boundaries: list of int, rising, the steps at which the value changes.
      values: list of float, one more than boundaries.
    Returns:
      float32 [], of the global step.
    Raises:
      ValueError: boundaries that do not rise, or another number of values.
    Source: Keras's PiecewiseConstantDecay, which changes one step later: it keeps the old value at
      the boundary.

    Example:
      >>> schedule = PiecewiseConstant(boundaries=[10, 20], values=[1.0, 0.5, 0.1])
      >>> [round(float(schedule(step)), 3) for step in (0, 9, 10, 20)]
      [1.0, 1.0, 0.5, 0.1]
    """

    def __init__(self, boundaries, values):
        self.boundaries = [_steps(self, "boundaries", step, least=0) for step in boundaries]
        self.values = [number("values", value, owner=self) for value in values]
        if sorted(set(self.boundaries)) != self.boundaries:
            raise TermwiseError(
                f"PiecewiseConstant(boundaries={self.boundaries}): give steps that rise."
            )
        if len(self.values) != len(self.boundaries) + 1:
            raise TermwiseError(
                f"PiecewiseConstant has {len(self.boundaries)} boundaries and {len(self.values)} "
                f"values. Give {len(self.boundaries) + 1} values: one before, and one from each "
                "boundary on."
            )

    def __call__(self, step):
        passed = tf.cast(_as_step(step) >= tf.constant(self.boundaries, tf.float64), tf.int32)
        return tf.gather(tf.constant(self.values, tf.float32), tf.reduce_sum(passed))

    def get_config(self):
        return {"boundaries": self.boundaries, "values": self.values}

    def __repr__(self):
        return f"Step({self.values} at {self.boundaries})"  # as in the tables of earlier runs


Step = PiecewiseConstant  # its former name


def _as_step(step):
    """float64 [], which counts steps exactly to 2^53; float32 would only to 2^24."""
    return tf.cast(tf.convert_to_tensor(step), tf.float64)


def _between(initial, final, progress, shape):
    """float32 []: `initial` at progress 0, `final` at 1, both exact; `shape` in between."""
    value = initial + (final - initial) * shape(tf.clip_by_value(progress, 0.0, 1.0))
    value = tf.where(progress >= 1.0, tf.constant(final, tf.float64), value)
    return tf.cast(value, tf.float32)


def _steps(owner, name, value, least=1):
    return whole(
        name,
        without_fraction(value),
        least,
        owner=owner,
        accepted=f"a whole number of steps, {least} or more",
    )
