"""The multipliers of a run's constraints: what they are moved by, once, after each step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from itertools import accumulate

import tensorflow as tf

from losses.balancing.balancer import Balancer
from losses.errors import TermwiseError
from losses.objective.layout import Layout
from losses.terms.constraint import constraints_of
from trainer.model.variables import tensor_variable
from trainer.step.outputs import StepRecord
from trainer.step.program import StepProgram


def sums_to_move_by(program: StepProgram, sums) -> tf.Tensor | None:
    """float32 [2K], what a step's record holds for the multipliers; None without constraints.

    Args:
      program: traced.
      sums: over all replicas, as of `ReplicaResult`.
    """
    return sums[: 2 * program.layout.size] if constraints_of(program.objective.terms) else None


def move_multipliers(program: StepProgram, record: StepRecord, finite) -> None:
    """Moves each multiplier by its violation in the global batch, in cross-replica context.

    Args:
      program: traced.
      record: of the step.
      finite: bool [], whether the step counts; None: it does.
    """
    for constraint in constraints_of(program.objective.terms):
        layout = program.layout
        place = layout.names.index(constraint.name)
        present = tf.ones([]) if record.absent is None else 1.0 - record.absent[place]
        if finite is not None:
            present = tf.where(finite, present, 0.0)
        sums = _sums_of(layout, place, record.sums, present)
        value = functools.partial(_raw, layout, place)
        accumulation = program.optimizers.accumulation
        constraint.multiplier.move(sums, present, value, program.step, accumulation)


def prepare_multipliers(program: StepProgram, unreached: Callable) -> None:
    """Makes what the multipliers remember, after the first trace of a step.

    Args:
      program: traced.
      unreached: names of terms -> those among them by which no variable is trained.
    Raises:
      ValueError: a constraint that trains nothing, or that `compute_terms` leaves out.
    """
    layout = program.layout
    for name in unreached(check_constraints(program.objective.terms, layout)):
        raise TermwiseError(
            f"Constraint {name!r} has no gradient: what it bounds is counted (a comparison, an "
            "argmax) or depends on no variable. Pass proxy=, a differentiable stand-in."
        )
    for constraint in constraints_of(program.objective.terms):
        size = layout.sizes[layout.names.index(constraint.name)]
        with program.placement.strategy.scope():
            constraint.multiplier.allocate(size, program.optimizers.accumulation)


def check_constraints(
    terms: Iterable, layout: Layout, balancer: Balancer | None = None
) -> list[str]:
    """The names of the constraints among terms, each in the layout; no balancer weighs them.

    Raises:
      ValueError: one is not there; a balancer's `terms=` names one.
    """
    names = [constraint.name for constraint in constraints_of(terms)]
    for name in names:
        if name not in layout.names:
            raise TermwiseError(
                f"Constraint {name!r} is none of the terms that compute_terms() returned: "
                f"{', '.join(layout.names)}. Return what super().compute_terms(step) gives too."
            )
        if balancer is not None and name in (balancer.terms or ()):
            raise TermwiseError(
                f"{balancer!r}: terms= names constraint {name!r}, whose weight is its multiplier. "
                "Leave it out; a pattern that matches it passes over it."
            )
    return names


def check_moved(program: StepProgram, written: Callable[[], list]) -> None:
    """Raises ValueError where a `train_step` of a user's own does not move a multiplier.

    Args:
      program: of the step.
      written: () -> the `tf.Variable`s that the traced step writes.
    """
    constraints = constraints_of(program.objective.terms)
    if not constraints or not program.several_objectives:  # the Trainer's own step moves all
        return
    moved = {id(variable) for variable in written()}
    for constraint in constraints:
        variable = tensor_variable(constraint.multiplier.state.multiplier)
        parts = program.placement.strategy.experimental_local_results(variable)
        if moved.isdisjoint(map(id, parts)):
            raise TermwiseError(
                f"train_step() never moves the multiplier of constraint {constraint.name!r}. Call "
                "self.apply_gradients(gradients, record) in it."
            )


def multiplier_values(terms: Iterable) -> dict[str, tf.Tensor]:
    """tag -> [], what a row holds of the multipliers as they are now."""
    values: dict[str, tf.Tensor] = {}
    for constraint in constraints_of(terms):
        state = constraint.multiplier.state
        values[f"multiplier/{constraint.name}"] = tf.convert_to_tensor(state.multiplier)
        if constraint.ascent.average is not None:
            values[f"average/{constraint.name}"] = tf.convert_to_tensor(state.violation)
    return values


def _sums_of(layout: Layout, place: int, sums, present) -> tf.Tensor:
    """float32 [2k], the sums of a constraint; zeros where it is not present.

    What is divided by nothing is divided by its number of steps.
    """
    size = layout.sizes[place]
    end = list(accumulate(layout.sizes))[place]
    numerators = sums[end - size : end]
    denominators = sums[layout.size + end - size : layout.size + end]
    if layout.undivided[place]:
        denominators = tf.fill([size], present)
    both = tf.concat([numerators, denominators], 0)
    return tf.where(present > 0, both, tf.zeros_like(both))


def _raw(layout: Layout, place: int, sums) -> tf.Tensor:
    """float32 [], the raw value that the sums of a constraint make."""
    numerators, denominators = tf.split(sums, 2)
    divided = tf.math.divide_no_nan(numerators, denominators)
    divided, after = tf.reshape(divided, layout.shapes[place]), layout.afters[place]
    return divided if after is None else tf.cast(after(divided), tf.float32)
