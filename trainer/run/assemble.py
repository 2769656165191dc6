"""The parts of a run, put together from what the Trainer was given."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from losses.errors import TermwiseError
from losses.layers import stable_names
from losses.objective.objective import NOTHING, Objective
from losses.objective.registry import made
from losses.terms.constraint import check_weights
from trainer.distributed.agreement import check_alike
from trainer.distributed.hosts import Hosts
from trainer.loop.eval_loop import EvalLoops
from trainer.loop.jit_choice import JitChoice
from trainer.loop.programs import Programs
from trainer.loop.train_loop import OnNonfinite, TrainLoops
from trainer.model.build import may_add_losses, output_names
from trainer.model.metrics import held_metrics
from trainer.model.normalization import tell_of_normalization
from trainer.model.overrides import check_overrides
from trainer.model.teachers import with_teachers
from trainer.optimizers.arguments import describe_optimizer
from trainer.optimizers.loss_scale import needs_scale
from trainer.optimizers.optimizers import Optimizers
from trainer.run.run import Run
from trainer.run.state import RunState, make_counter
from trainer.step.forward import build_by_call, build_by_forward
from trainer.step.loss_parameters import factors_of_regularizers
from trainer.step.metrics import Metrics
from trainer.step.program import Discovery, Placement, StepProgram
from trainer.step.randomness import Randomness
from trainer.step.trainable import find_trainables


@dataclass(frozen=True)
class RunSettings:
    """What a run is to be, of the Trainer's arguments of the same names."""

    loss: Any
    loss_weights: Any
    add_loss_sums: Iterable[str]
    optimizer: Any
    groups: Mapping | None
    update_every: Mapping[str, int] | None
    loss_parameter_optimizer: Any
    metrics: Any
    weighted_metrics: Any
    balancer: Any
    diagnostics_every: int | None
    helps: tuple
    replica_randomness: str
    jit: JitChoice
    on_nonfinite: str
    row_means: str
    init_from: str | Path | None
    init_loss_parameters: bool
    run_eagerly: bool


@dataclass(frozen=True)
class UserFunctions:
    """What a subclass of the Trainer may override, as functions, and what it holds.

    Attributes:
      forward, compute_terms: of a `losses.Step`.
      train_step: of a batch.
      owned_variables: () -> variables of terms, and of networks that a subclass keeps.
      open_data: (data, batch_size) -> the source of data to be read once.
      places: (name, object) pairs that may hold loss parameters.
      overridden: the hooks of a step that are overridden, by name.
    """

    forward: Callable
    compute_terms: Callable
    train_step: Callable
    owned_variables: Callable[[], list]
    open_data: Callable
    places: list
    overridden: frozenset[str]


def make_run(parts: Mapping, settings: RunSettings, functions: UserFunctions) -> Run:
    """The parts of a run.

    Args:
      parts: "model", "strategy", "terms", "workdir", "name", "config" and "seed" of the Trainer.
      settings: what the run is to be.
      functions: what a subclass may override.
    Raises:
      ValueError, TypeError: something that cannot work, or nothing to minimise.
    """
    strategy, workdir, model = parts["strategy"], parts["workdir"], parts["model"]
    if settings.row_means not in ("steps", "examples"):
        raise TermwiseError(
            f"row_means={settings.row_means!r}: accepted are 'steps' and 'examples'."
        )
    objective = _objective(parts, settings, functions)
    with strategy.scope():
        training, evaluation = (_metrics(model, settings) for _ in ("train", "eval"))
    program = _program(parts, settings, functions, objective, training)
    hosts = Hosts(strategy)
    check_alike(hosts, _described(parts, settings, program))
    owned = functions.owned_variables
    state = RunState(strategy, hosts, workdir, program.counter, owned, program.places)
    programs = Programs(
        program,
        functions.train_step,
        settings.balancer,
        settings.diagnostics_every,
        state.begin,
        owned,
        settings.helps,
    )
    return Run(
        name=parts["name"],
        config=parts["config"],
        seed=parts["seed"],
        strategy=strategy,
        hosts=hosts,
        workdir=workdir,
        programs=programs,
        loops=TrainLoops(OnNonfinite.of(program.skips)),
        evaluation=EvalLoops(lambda: programs.evaluated, evaluation),
        jit=settings.jit,
        state=state,
        on_nonfinite=settings.on_nonfinite,
        open_data=functions.open_data,
        init_from=settings.init_from,
        init_loss_parameters=settings.init_loss_parameters,
        own_forward="forward" in functions.overridden,
    )


def _metrics(model, settings: RunSettings) -> Metrics:
    return Metrics(
        settings.metrics,
        output_names(model),
        weighted=settings.weighted_metrics,
        of_layers=lambda: held_metrics(model),
        names=lambda: stable_names(model),
    )


def _described(parts: Mapping, settings: RunSettings, program: StepProgram) -> dict:
    """What must be the same on every host, as far as it can be told."""
    optimizers = program.optimizers.of_group
    try:
        config = program.model.get_config()
    except (NotImplementedError, TypeError, ValueError):  # of a model that cannot be written down
        config = None
    return {
        "model": config,
        "optimizer": {group: describe_optimizer(o) for group, o in optimizers.items()},
        "loss": str(settings.loss),
        "terms": [term.name for term in parts["terms"]],
        "balancer": type(settings.balancer).__name__,
        "seed": parts["seed"],
    }


def _objective(parts: Mapping, settings: RunSettings, functions: UserFunctions) -> Objective:
    model, replicas = parts["model"], parts["strategy"].num_replicas_in_sync
    check_weights(parts["terms"], settings.loss_weights)
    with parts["strategy"].scope():
        loss = made(settings.loss)
    objective = Objective(
        loss=loss,
        loss_weights=settings.loss_weights,
        add_loss_sums=settings.add_loss_sums,
        terms=parts["terms"],
        output_names=output_names(model),
        computes_loss=check_overrides(model, functions.overridden, replicas, settings.loss),
    )
    computed = "compute_terms" in functions.overridden
    if objective.empty and not computed and not may_add_losses(model):
        raise TermwiseError(NOTHING)
    return objective


def _program(parts, settings: RunSettings, functions, objective, metrics) -> StepProgram:
    strategy, model, groups = parts["strategy"], parts["model"], settings.groups
    counter = make_counter(strategy)
    optimizers = Optimizers(
        strategy,
        settings.optimizer,
        groups=groups,
        update_every=settings.update_every,
        loss_parameter_optimizer=settings.loss_parameter_optimizer,
        scaled=needs_scale(model),
    )

    def places():
        return [("model", model), *objective.places(), *functions.places]

    build = build_by_forward if "forward" in functions.overridden else build_by_call
    several = "train_step" in functions.overridden
    tell = functools.partial(_tell, None if several else objective, strategy)
    find = _finder(objective, groups, optimizers, counter, lambda: places()[1:], tell)
    return StepProgram(
        model=model,
        objective=objective,
        forward=functions.forward,
        build=with_teachers(build),
        compute_terms=functions.compute_terms,
        counter=counter,
        optimizers=optimizers,
        metrics=metrics,
        randomness=Randomness(strategy, settings.replica_randomness),
        find_trainables=find,
        placement=Placement(strategy, run_eagerly=settings.run_eagerly),
        discovery=Discovery(),
        places=places,
        skips=settings.on_nonfinite == "skip" or optimizers.scaled,
        means_by_examples=settings.row_means == "examples",
        several_passes=groups is not None or len(optimizers.of_group) > 1,
        several_objectives=several,
    )


def _tell(objective: Objective | None, strategy, model) -> None:
    """Warns of what a model, and an objective that is the only one, do unexpectedly."""
    tell_of_normalization(model, strategy.num_replicas_in_sync)
    if objective is not None:
        _tell_of_left_out(objective)


def _tell_of_left_out(objective: Objective) -> None:
    """Warns where `compute_terms` is another's, and what was given is in none of its terms."""
    origins = {line.origin for line in objective.described or ()}
    given = {
        "loss=": objective.loss is not None and objective.resolved.compiled is None,
        "terms=": bool(objective.terms) and "term" not in origins,
    }
    left_out = [name for name, left in given.items() if left]
    if left_out and "subclass" in origins:
        warnings.warn(
            f"{' and '.join(left_out)} of the Trainer: nothing of it is in the objective, since "
            "compute_terms() is overridden. Call super().compute_terms(step) there, or do not "
            "give it.",
            stacklevel=2,
        )


def _finder(
    objective: Objective, groups, optimizers, counter, places: Callable, tell: Callable
) -> Callable:
    """(variables that a tape watched, model) -> the variables that train; tells of the model."""

    def find(watched, model):
        tell(model)

        def dials() -> list:
            weights = objective.dials(tf.convert_to_tensor(counter))
            return [*weights, *factors_of_regularizers(model)]

        return find_trainables(
            watched,
            model,
            groups=groups,
            optimizers=optimizers,
            places=places(),
            terms=objective.places(),
            dials=dials,
        )

    return find
