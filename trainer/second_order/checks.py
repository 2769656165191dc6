"""What does not go with a second-order phase, each said in one line before anything is trained."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import tensorflow as tf

from losses.errors import TermwiseError
from losses.terms.constraint import constraints_of
from losses.terms.mean_teacher import teachers_of
from trainer.model.variables import tensor_variable
from trainer.second_order.objective import has_squares
from trainer.second_order.vector import Vector
from trainer.step.program import PhaseOfStep, StepProgram


@dataclass(frozen=True)
class RunFacts:
    """What the checks need to know of a run beside its program.

    Attributes:
      balanced: whether it has a balancer.
      diagnosed, helps: whether gradients, or what terms do for validation, are measured.
      written: the variables that a forward and backward pass writes.
    """

    balanced: bool = False
    diagnosed: bool = False
    helps: bool = False
    written: Iterable[tf.Variable] = ()


def check_phase(phase: PhaseOfStep, program: StepProgram, facts: RunFacts) -> None:
    """Raises ValueError where something of a run does not go with a second-order phase.

    Args:
      phase, program: of the phase.
      facts: of the run.
    """
    method = type(phase.optimizer).__name__
    whose = f"Phase {phase.name!r} has optimizer={method}(), a method over all data"
    refused = _of_run(facts, program), _of_program(program), _of_terms(program)
    for what, instead in itertools.chain(*refused, _of_variables(program)):
        raise TermwiseError(f"{whose}, which does not go with {what}. {instead}")
    if not phase.optimizer.needs_squares:
        return
    known = {term.name for term in program.objective.terms if has_squares(term)}
    for name in program.layout.names:
        if name not in program.idle and name.split("/")[0] not in known and name not in known:
            raise TermwiseError(
                f"{whose} that needs every term as a sum of squares; {name!r} is none that it "
                "knows. Write it as losses.Squares(function of the step, ...) or "
                "losses.PDEResidual, leave it out by Phase(weights=), or take trainer.BFGS()."
            )


def _of_run(facts: RunFacts, program: StepProgram) -> Iterator[tuple[str, str]]:
    """(what, what to do instead) of what a run has that goes with no such phase."""
    if facts.balanced:
        yield "balancer=", "Balance in a Trainer of its own, or set weights in the phases."
    if facts.diagnosed:
        yield "gradient_diagnostics_every=", "Drop it."
    if facts.helps:
        yield "helps_every=", "Drop it."
    if program.several_objectives:
        yield "a train_step() of your own, which it does not call", "Override compute_terms()."
    metrics = {id(tensor_variable(variable)) for variable in program.metrics.variables}
    moved = [variable.name for variable in facts.written if id(variable) not in metrics]
    if moved:
        yield (
            f"what a pass moves or draws ({', '.join(moved)})",
            "Leave out dropout, other draws and moving statistics: the total has to be a function "
            "of what trains alone.",
        )


def _of_program(program: StepProgram) -> Iterator[tuple[str, str]]:
    """The same, of a program's parts."""
    placement, optimizers = program.placement, program.optimizers
    if placement.replicas > 1:
        yield f"{placement.replicas} replicas", 'Train with strategy="one_device".'
    if optimizers.accumulation > 1:
        yield "accumulated gradients", "Drop gradient_accumulation_steps."
    if any(every > 1 for every in optimizers.every.values()):
        yield "update_every=", "Drop it: an iteration moves everything that trains."
    if optimizers.keeps_averages:
        yield "moving averages of the weights (use_ema)", "Drop use_ema."
    if optimizers.scaled:
        yield "a loss scale (float16)", "Train in float64 or float32."


def _of_terms(program: StepProgram) -> Iterator[tuple[str, str]]:
    """The same, of the terms."""
    if constraints_of(program.objective.terms):
        yield "constraints, whose multipliers ascend", "Leave them to another Trainer."
    if teachers_of(program.objective.terms):
        yield "a mean teacher, which follows the Trainer's own updates", "Leave its term out."
    if program.shares:
        yield "hardest=, which chooses other examples in each step", "Drop it."
    if any(callable(getattr(term, "points", None)) for term in program.objective.terms):
        yield "points that are a function of the step", "Give PDEResidual an array of points."
    weights = program.objective.constant_weights(program.layout.names)
    for name, weight in weights.items():
        if weight is None:
            yield (
                f"the weight of {name!r}, which is no number",
                f"Give the phase one: Phase(weights={{{name!r}: 1.0}}).",
            )
        elif weight < 0:
            yield f"the weight {weight:g} of {name!r}", "Give one that is not negative."
    for line in program.objective.described or ():
        if line.trains:
            yield f"the term {line.name!r}, which trains a group alone", "Drop its trains=."


def _of_variables(program: StepProgram) -> Iterator[tuple[str, str]]:
    """The same, of the variables that train."""
    for path, variable in Vector.of(program).variables.items():
        if variable.dtype not in ("float32", "float64", tf.float32, tf.float64):
            yield f"{path}, of {variable.dtype}", "Train in float64 or float32."
        if getattr(variable, "maximize", False):
            yield f"{path}, which ascends", "Freeze it in this phase, or drop maximize=True."
        if getattr(variable, "constraint", None) is not None:
            yield (
                f"the constraint of {path}",
                "Train a number without bounds, such as the logarithm of a positive one.",
            )
