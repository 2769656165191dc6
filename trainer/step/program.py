"""What a step is traced with: the static facts of a run, and what its first trace finds out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import tensorflow as tf

from losses.checks import as_number
from losses.distributed.hosts import host_count, host_index, local_replicas
from losses.errors import TermwiseError
from losses.objective.layout import Layout
from losses.objective.objective import Objective
from losses.objective.step import Step
from losses.objective.weights import Pauses, identity_of
from losses.terms.constraint import check_weights
from losses.terms.hardest import Hardest
from trainer.data.batch import JointBatch, Share, share
from trainer.model.switches import Switches
from trainer.optimizers.groups import WHOLE
from trainer.optimizers.optimizers import Optimizers
from trainer.step.metrics import Metrics
from trainer.step.randomness import Randomness
from trainer.step.trainable import TrainableVariables
from trainer.step.weighting import FixedWeighting, Weighting


@dataclass(frozen=True)
class Placement:
    """Where a step runs, and how it is compiled.

    Attributes:
      strategy: the run's strategy.
      per_host: whether a batch holds this host's examples alone, not the global batch.
      xla: whether XLA compiles the step.
      run_eagerly: `Trainer(run_eagerly=)`.
      eager: whether the step runs in Python, and nothing is traced.
    """

    strategy: tf.distribute.Strategy
    per_host: bool = False
    xla: bool = False
    run_eagerly: bool = False
    eager: bool = False

    def placed(self, per_host: bool, xla: bool) -> Placement:
        """Of a source's batches; eager also where `tf.config.run_functions_eagerly(True)` says so.

        Raises:
          ValueError: eager on several hosts.
        """
        eager = self.run_eagerly or tf.config.functions_run_eagerly()
        if eager and host_count(self.strategy) > 1:
            raise TermwiseError(
                "A step that runs eagerly cannot wait for other hosts. Run it on one host, or "
                "without run_eagerly= and tf.config.run_functions_eagerly()."
            )
        return Placement(self.strategy, per_host, xla and not eager, self.run_eagerly, eager)

    @property
    def replicas(self) -> int:
        return self.strategy.num_replicas_in_sync

    @property
    def precomputes_sums(self) -> bool:
        """Whether the terms' sums need a pass of their own, before that of the gradients.

        What XLA compiles on several replicas cannot wait for another replica.
        """
        return self.xla and self.replicas > 1

    def shard(self, batch, per_host: bool | None = None):
        """This replica's part of a batch, in replica context.

        Args:
          batch: the global batch, or this host's; of several sources one of each.
          per_host: whether it is this host's; as the placement says by default.
        Returns:
          The part, and `present`: float32 [], 1.0, or 0.0 where the part is padding; None where
          it is known to be 1.0. Of several sources a `Share` of each, and the main one's.
        """
        if self.replicas == 1:
            return batch, None
        if isinstance(batch, JointBatch):
            parts = [Share(*self.shard(part, per_host)) for part in batch]  # type: ignore[attr-defined]
            return type(batch)(*parts), parts[0].present
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        if self.per_host if per_host is None else per_host:
            local = local_replicas(self.strategy)
            index_on_host = index - host_index(self.strategy) * local
            return share(batch, index_on_host, local, maybe_empty=self.per_host)
        return share(batch, index, self.replicas)


class Discovery:
    """What the first trace of a step finds out: the terms, and the variables that train.

    Whoever traces makes one, hands it in with the program, and reads it afterwards. Each fact is
    written once; a later trace that finds other terms is an error.

    Args:
      hidden: `keras.Variable`s outside the model that train though no tape watches them by itself.
      told: names of networks outside the model of which the run has warned before.
    Attributes:
      layout: the terms of a training step; None before the first trace.
      trainables: the variables that train; None before the first backward pass was traced.
    """

    def __init__(self, hidden: tuple = (), told: frozenset[str] = frozenset()) -> None:
        self.layout: Layout | None = None
        self.trainables: TrainableVariables | None = None
        self.hidden, self.told = hidden, told
        self._candidates: TrainableVariables | None = None

    def candidates(self, find: Callable[[], TrainableVariables]) -> TrainableVariables:
        """The variables that train, or may: what `find` gives, called once for all replicas."""
        if self._candidates is None:
            self._candidates = find()
        return self.trainables or self._candidates

    @property
    def layout_found(self) -> Layout:
        """The terms. ValueError: nothing was traced yet."""
        if self.layout is None:
            raise TermwiseError("The terms are found by build(data) or fit(data). Call one first.")
        return self.layout

    @property
    def trainables_found(self) -> TrainableVariables:
        """The variables that train; none before the first trace."""
        return self.trainables or TrainableVariables()

    def settle(self, layout: Layout, trainables: TrainableVariables, reached) -> None:
        """Notes what a trace of a backward pass has found.

        Args:
          layout: the terms.
          trainables: the variables that may train.
          reached: the paths of those that some term reaches.
        Raises:
          ValueError: other terms than those of the first trace, or no variable is reached.
        """
        self.settle_layout(layout)
        if self.trainables is None:
            self.trainables = trainables.reached_by(reached, self.told)

    def note_unwatched(self, variables: list, model) -> bool:
        """Notes what no tape watches; whether some of it trains, which this trace has missed.

        Args:
          variables: of `find_unwatched`.
          model: the Keras model.
        """
        if variables and self.trainables is not None:
            switches = self.trainables.switches
            switches = Switches.of(model, [*switches.objects, *variables])
            self.trainables = replace(self.trainables, switches=switches)
        known = {id(variable) for variable in self.hidden}
        return any(v.trainable and id(v) not in known for v in variables)

    def settle_layout(self, layout: Layout) -> None:
        """Notes the terms of a trace.

        Raises:
          ValueError: these are not the terms of the first trace.
        """
        if self.layout is None:
            self.layout = layout
        elif layout != self.layout:
            raise TermwiseError(
                f"This data gives the terms {', '.join(layout.names)}, but the run has "
                f"{', '.join(self.layout.names)}. Give data of the same parts, or use another "
                "Trainer."
            )


@dataclass(frozen=True)
class StepProgram:
    """The static facts of a traced step; per-step tensors are arguments beside it.

    Attributes:
      model, objective: what is trained, and on what.
      forward: (Step) -> the model's outputs; the Trainer's, which a subclass may override.
      build: (StepProgram, spec of a batch) -> None; gives the model its variables.
      compute_terms: (Step) -> terms by name; likewise.
      counter: int64 variable, the global step. optimizers: of the groups. metrics: of training.
      randomness: the random state of the replicas.
      find_trainables: (variables that a tape watched, model) -> TrainableVariables.
      placement: where the step runs.
      discovery: what the first trace finds out.
      weighting: how the terms are weighed.
      class_weight: class id -> weight of the labels.
      hardest: which terms learn from the hardest examples alone.
      skips: whether steps that are not finite are left out.
      several_passes: whether groups may ask for several passes of the tape.
      means_by_examples: whether a row's means weigh a step by its examples.
      several_objectives: whether a step may take the gradients of several objectives: each pass
        is a trace of its own, and may leave out terms of the run.
      sources: the names of the sources that the run trains on, the main one first; none without.
      undrawn: those of which this program's steps have no batch.
      pauses: the terms whose scheduled weight is 0 for a while: they are absent there.
      idle: the terms that this program's steps leave out.
      trained: the groups that train; None: all.
      phase: the name of the second-order phase that the step is of; "" where it is of none.
      places: () -> (name, object) pairs that may hold variables: the model, losses, terms, weights
        and a subclass.
    """

    model: keras.Model
    objective: Objective
    forward: Callable[[Step], Any]
    build: Callable[[StepProgram, Any], None]
    compute_terms: Callable[[Step], dict]
    counter: tf.Variable
    optimizers: Optimizers
    metrics: Metrics
    randomness: Randomness
    find_trainables: Callable[[Any, keras.Model], TrainableVariables]
    placement: Placement
    discovery: Discovery
    weighting: Weighting = field(default_factory=FixedWeighting)
    class_weight: Mapping[int, float] = field(default_factory=dict)
    hardest: Hardest = field(default_factory=Hardest)
    skips: bool = False
    several_passes: bool = False
    means_by_examples: bool = False
    several_objectives: bool = False
    sources: tuple[str, ...] = ()
    undrawn: frozenset[str] = frozenset()
    pauses: Pauses = field(default_factory=Pauses)
    idle: frozenset[str] = frozenset()
    trained: tuple[str, ...] | None = None
    phase: str = ""
    places: Callable[[], list] = list

    @property
    def layout(self) -> Layout:
        """The terms of the run. ValueError: nothing was traced yet."""
        return self.discovery.layout_found

    @property
    def trainables(self) -> TrainableVariables:
        """The variables that train; none before the first trace."""
        return self.discovery.trainables_found

    @property
    def leaves_out(self) -> bool:
        """Whether steps lack terms of the run."""
        return bool(self.undrawn or self.idle)

    @property
    def hidden(self) -> list[tf.Variable]:
        """What trains though no tape watches it by itself.

        Keras made it as not trainable, and its `trainable` was set afterwards.
        """
        keras_variables = [*self.model.trainable_variables, *self.discovery.hidden]
        return [v.value for v in keras_variables if v.trainable and not v.value.trainable]

    @property
    def step(self) -> tf.Tensor:
        """int64 [], the global step, counted from 0."""
        return tf.convert_to_tensor(self.counter)

    def loss_scales(self, scales) -> dict:
        """path -> float32 [], by what its gradient is multiplied; {} where there are no scales.

        Args:
          scales: float32 [optimizers], or None.
        """
        if scales is None:
            return {}
        by_group = dict(zip(self.optimizers.of_group, tf.unstack(scales), strict=True))
        return {path: by_group[group] for path, group in self.trainables.owners.items()}

    @property
    def shares(self) -> dict[str, float]:
        """term -> the share of a batch that it learns from, for those that learn from less."""
        return self.hardest.shares(self.objective, self.layout.names)

    @property
    def reads_metrics(self) -> bool:
        """Whether the loop reads the metrics at the end of a log window; else the host does."""
        return self.placement.replicas == 1 and self.metrics.traceable


@dataclass(frozen=True)
class PhaseOfStep:
    """What a phase changes of a step.

    Attributes:
      name: of the phase, for errors.
      weights: name or pattern of terms -> weight, instead of the given ones; 0 leaves a term out.
      trains: the groups that train; None: all.
      optimizer: a second-order method over all data; None: none.
      optimizers: a Keras optimizer, or a dict by group, instead of the Trainer's; None: none.
    """

    name: str = ""
    weights: Mapping[str, Any] = field(default_factory=dict)
    trains: tuple[str, ...] | None = None
    optimizer: Any = None
    optimizers: Any = None

    @property
    def key(self) -> tuple:
        """What two phases that are alike have in common."""
        weights = [(name, identity_of(weight)) for name, weight in self.weights.items()]
        return self.name, tuple(weights), self.trains, self.optimizer

    def beside(self, weights: Mapping[str, Any]) -> PhaseOfStep:
        """The phase where other weights were set too; its own come first."""
        name = self.name or "set_weight()"
        return replace(self, name=name, weights={**weights, **self.weights}) if weights else self

    def of(self, program: StepProgram) -> StepProgram:
        """The program of a step in this phase.

        Raises:
          ValueError: a term or group that there is not.
        """
        program = program if self.optimizer is None else replace(program, phase=self.name)
        if not self.weights and self.trains is None:
            return program
        names = program.layout.names
        by = self.name if self.name.endswith(")") else f"phase {self.name!r}"
        weighed = {name: w for name, w in self.weights.items() if as_number(w) != 0}
        check_weights(program.objective.terms, weighed, by)
        objective = program.objective.reweighted(self.weights, names, by)
        constant = objective.constant_weights(names)
        before = program.objective.constant_weights(names)
        off = {name for name in names if constant[name] == 0 and before[name] != 0}
        self._check_groups(program)
        idle = program.idle | off
        return replace(program, objective=objective, idle=idle, trained=self.trains)

    def _check_groups(self, program: StepProgram) -> None:
        groups = set(program.trainables.groups.values()) - {WHOLE}
        for name in self.trains or ():
            if name not in groups:
                raise TermwiseError(
                    f"Phase {self.name!r} trains the group {name!r}; the groups are "
                    f"{', '.join(map(repr, sorted(groups))) or 'none'}: give Trainer(groups=)."
                )


NO_PHASE = PhaseOfStep()
