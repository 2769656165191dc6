"""The Trainer: what its users construct, call and override; the walk of a batch starts here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from losses import Objective
from losses.balancing.balancer import Balancer
from losses.errors import TermwiseError
from losses.objective.objective import NOTHING
from losses.objective.term import listed_terms
from trainer.balancing.balancing import Balancing
from trainer.balancing.diagnostics import Diagnostics
from trainer.data.augment import augmented
from trainer.data.source import default_batch, open_data
from trainer.debugging.nonfinite import check_mode, replay
from trainer.debugging.profile import Profile
from trainer.distributed.hosts import Hosts
from trainer.distributed.strategies import resolve_strategy
from trainer.fitting.evaluate import evaluate, open_for_reading, predict
from trainer.fitting.fit import run_fit
from trainer.fitting.plan import plan_fit
from trainer.hooks import Hooks
from trainer.ledger.describe import describe_terms
from trainer.ledger.history import History
from trainer.loop.eval_loop import EvalLoops
from trainer.loop.first_trace import trace
from trainer.loop.jit_choice import check_jit_compile, decide
from trainer.loop.train_loop import Loops
from trainer.model.build import (
    compiled_arguments,
    make_model,
    may_add_losses,
    output_names,
)
from trainer.model.export import export_model
from trainer.optimizers.optimizers import Optimizers, needs_scale
from trainer.persistence.run_state import State
from trainer.persistence.workdir import Workdir, checked_config
from trainer.step.metrics import Metrics
from trainer.step.replica import Replica


class Trainer(Hooks):
    """Trains a Keras model on an objective in which every term is explicit.

        total = sum over terms of weight * raw

    A subclass overrides `build_model`, `build_terms`, `forward`, `compute_terms`, `train_step`
    or any event of `keras.callbacks.Callback` (`on_epoch_end`, ...).

    Args:
      model: a Keras model, or a function that builds one, called inside the strategy's scope.
        None where a subclass has `build_model`.
      optimizer: as in `Model.compile`; with `groups`, a dict by group.
      loss: as in `Model.compile`.
      loss_weights: as in `Model.compile`; may name any term, and hold functions of the step,
        variables and trainable weights.
      terms: `losses.Term` objects.
      balancer: of `losses.balancing`; derives the terms' weights, or the direction, from their
        values or gradients.
      metrics: as in `Model.compile`.
      strategy: "auto", "one_device", "mirrored", or a `tf.distribute.Strategy`.
      workdir: the folder of the run; None keeps nothing on disk.
      jit_compile: compile the step with XLA; "auto" times both before the run's first step.
      groups: group name -> pattern of variable paths (or a list, a layer, variables).
      update_every: group name -> steps between its updates.
      loss_parameter_optimizer: for the loss parameters; the model's own by default.
      add_loss_sums: patterns of layer paths whose `add_loss` is a sum over examples.
      gradient_diagnostics_every: steps between measurements of each term's gradient: its norm,
        its cosine with the others', its share of the update.
      on_nonfinite: "raise" stops with the term's name and the step; "skip" leaves the step out;
        "restore" goes back to the last checkpoint, and on past the data.
      config: a mapping of plain values, kept as config.json and shown in TensorBoard.
      seed: int of the shuffling of arrays; `keras.utils.set_random_seed` seeds the weights.
      replica_randomness: "different" or "same" draws (dropout masks) on the replicas.
      init_from: a workdir or checkpoint whose weights a new run starts with.
      init_loss_parameters: whether it takes those of the same name too.
      name: the run's name; the workdir's by default.
    Raises:
      ValueError, TypeError: an argument that cannot work, before anything is built.
      RuntimeError: made inside a strategy's scope.
    """

    def __init__(
        self,
        model: keras.Model | Callable[[], keras.Model] | None = None,
        *,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        terms: Iterable = (),
        balancer: Balancer | None = None,
        metrics: Any = None,
        strategy: str | tf.distribute.Strategy = "auto",
        workdir: str | Path | None = None,
        jit_compile: bool | str = False,
        groups: Mapping | None = None,
        update_every: Mapping[str, int] | None = None,
        loss_parameter_optimizer: Any = None,
        add_loss_sums: Iterable[str] = (),
        gradient_diagnostics_every: int | None = None,
        on_nonfinite: str = "raise",
        config: Mapping | None = None,
        seed: int = 0,
        replica_randomness: str = "different",
        init_from: str | Path | None = None,
        init_loss_parameters: bool = True,
        name: str | None = None,
    ):
        super().__init__()
        self.on_nonfinite = check_mode(on_nonfinite, workdir)
        self.jit_compile = check_jit_compile(jit_compile)
        self.compiling: dict | None = None  # what "auto" has found
        self.strategy = resolve_strategy(strategy)
        self.hosts = Hosts(self.strategy)
        self.workdir = None if workdir is None else Workdir(workdir)
        self.name = name or (self.workdir.path.name if self.workdir else "model")
        self.config = checked_config(config)
        self.seed = seed
        self.init_from, self.init_loss_parameters = init_from, init_loss_parameters
        with self.strategy.scope():
            self._model = make_model(model, self.build_model, self.strategy)
            self.terms = [*self.build_terms(), *listed_terms(terms)]
        names = output_names(self._model)
        given: dict = dict(loss=loss, loss_weights=loss_weights, add_loss_sums=add_loss_sums)
        self.objective = Objective(**given, terms=self.terms, output_names=names)
        computes = type(self).compute_terms is not Trainer.compute_terms
        if self.objective.empty and not computes and not may_add_losses(self._model):
            raise TermwiseError(NOTHING)
        parts: dict = dict(
            groups=groups, update_every=update_every, scaled=needs_scale(self._model)
        )
        parts["loss_parameter_optimizer"] = loss_parameter_optimizer
        optimizers = Optimizers(self.strategy, optimizer, **parts)
        with self.strategy.scope():
            both = Metrics(metrics, names), Metrics(metrics, names)
        balancing = None if balancer is None else Balancing(balancer, self.strategy)
        replica = Replica(
            self, self.objective, optimizers, both, groups, balancing, replica_randomness
        )
        skipping = on_nonfinite == "skip" or optimizers.scaled
        diagnostics = Diagnostics.make(gradient_diagnostics_every, self.strategy)
        compiled = self.jit_compile is True
        settings: dict = dict(jit_compile=compiled, skipping=skipping, diagnostics=diagnostics)
        self.loops = Loops(self, replica, **settings)
        self.reading = EvalLoops(replica, self.strategy, jit_compile=compiled)
        self.state = State(self)

    @classmethod
    def from_compiled(cls, model: keras.Model, **arguments) -> Trainer:
        """A Trainer with the optimizer, losses, loss weights and metrics of a compiled model.

        Further arguments of the constructor win over the model's. ValueError: not compiled.
        """
        return cls(model, **{**compiled_arguments(model), **arguments})

    @property
    def model(self) -> keras.Model:
        return self._model

    @property
    def step(self) -> tf.Variable:
        """int64 [], the global step: how many batches the run has seen."""
        return self.state.step

    def set_model(self, model) -> None:
        """As a callback the Trainer keeps its own model."""

    @property
    def optimizer(self):
        """The optimizer in use; a dict by group where there are groups."""
        return self.loops.replica.optimizers.optimizer

    @property
    def loss_parameters(self) -> dict[str, Any]:
        """name -> variable; empty before `build` or `fit` has found them."""
        return dict(self.loops.replica.trained.parameters)

    def describe(self) -> str:
        """The table of terms: name, from, weight; and the loss parameters."""
        found = self.loss_parameters if self.loops.prepared else None
        return describe_terms(self.objective, found)

    def build(self, data, *, batch_size: int | None = None, class_weight=None) -> Trainer:
        """Traces one step of data as `fit` takes it, so that `describe()` is complete."""
        size = batch_size or default_batch(data)
        trace(self, self.open(data, size, static=True), class_weight)
        return self

    def fit(
        self,
        data,
        *,
        steps: int | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        validation_data=None,
        log_every: int | None = None,
        validate_every: int | None = None,
        checkpoint_every: int | None = None,
        class_weight: Mapping[int, float] | None = None,
        callbacks: Iterable[keras.callbacks.Callback] = (),
        steps_per_loop: int | None = None,
        keep_last: int | None = 3,
        keep_best: int = 0,
        best_metric: str = "total",
        shuffle: bool = True,
        augment: Callable | None = None,
        profile_steps: tuple[int, int] | None = None,
        verbose: bool = True,
    ) -> History:
        """Trains to the global step `steps` (or to `epochs` passes), from where the run stands.

        Args:
          data: a `tf.data.Dataset` of global batches, or arrays with `batch_size`; x, (x,),
            (x, y) or (x, y, sample_weight).
          steps, epochs: one of them; the same call after an interruption does what is left.
          batch_size: the global batch, for arrays.
          validation_data: evaluated every `validate_every` steps, and at the end.
          log_every: steps per row of the ledger; 100, or an epoch with `epochs`.
          validate_every: steps; one interval is an epoch of the callbacks. An epoch with
            `epochs`, else only the end.
          checkpoint_every: steps; the end is always saved.
          class_weight: class id -> weight.
          callbacks: Keras callbacks.
          steps_per_loop: most steps in one call of the loop; by default what two seconds hold.
          keep_last: checkpoints that stay; None keeps all.
          keep_best: checkpoints that stay besides, the best by `best_metric`: a tag of the
            evaluation's rows, without validation data of the training rows.
          shuffle: arrays are drawn without replacement, anew each epoch.
          augment: for arrays, a function (example, seed) -> example of one example of the data
            and its int32 [2] seed, for `tf.random.stateless_*`; see `trainer.augmenting`.
          profile_steps: (first, last); the steps after `first` up to `last` are profiled, into
            the workdir's TensorBoard folder, and a line says where their time went.
          verbose: print the run's line, progress and ledger.
        Returns:
          History; `.rows` are the lines of metrics.jsonl.
        """
        source = self.open(data, batch_size, augment, shuffle=shuffle, static=True)
        validation = None
        if validation_data is not None:
            size = default_batch(validation_data, source.batch_size)
            validation = self.open(validation_data, size, what="validation_data")
        plan = plan_fit(
            source,
            steps=steps,
            epochs=epochs,
            log_every=log_every,
            validate_every=validate_every,
            checkpoint_every=checkpoint_every,
            steps_per_loop=steps_per_loop,
        )
        profile = Profile(profile_steps, self.workdir, plan.steps, self.hosts.chief)
        trace(self, source, class_weight)
        return run_fit(
            self,
            source,
            validation,
            plan,
            keep=dict(keep_last=keep_last, keep_best=keep_best, best_metric=best_metric),
            callbacks=callbacks,
            verbose=verbose,
            profile=profile,
        )

    def evaluate(self, data, *, batch_size: int | None = None, steps: int | None = None) -> dict:
        """Every term and metric over a dataset, exact over its examples however it is batched.

        Args:
          data: as in `fit`.
          batch_size: for arrays; 64 by default.
          steps: batches to take; all by default.
        Returns:
          dict: total, terms/*, raw/*, weight/*, metrics/*.
        """
        source = open_for_reading(self, data, batch_size, steps)
        return evaluate(self, source, steps)

    def predict(self, data, *, batch_size: int | None = None):
        """The model's outputs for every example, in order.

        Args:
          data: as in `fit`; labels are not used.
          batch_size: for arrays; 64 by default.
        Returns:
          numpy arrays [examples, ...] in the outputs' structure.
        """
        return predict(self, open_for_reading(self, data, batch_size))

    def replay(self, data, step: int, *, batch_size: int | None = None, augment=None) -> str:
        """A look at one step of an earlier run: each term's raw value, weight and gradient norm.

        Trains from the workdir's newest checkpoint up to it; `data` as `fit` was given it.
        """
        source = self.open(data, batch_size, augment, shuffle=True, static=True)
        trace(self, source)
        decide(self, source)
        self.state.restore(self.state.open_checkpoints(None, writes=False))
        return replay(self, source, step)

    def export(self, path, *, outputs=None) -> Path:
        """Writes the inference model alone: no labels, no loss parameters.

        Args:
          path: a folder (a SavedModel that also holds model.keras), or a path ending in .keras.
          outputs: names of layers to export instead of the model's outputs.
        Returns:
          The path.
        """
        replica = self.loops.replica
        with replica.optimizers.averages(replica.trained.variables):
            return export_model(self._model, path, outputs)

    def open(self, data, batch_size, augment=None, **arguments):
        """A `Stream` or `Resident` source of data as `fit` takes it; arguments of `open_data`."""
        given: dict = dict(batch_size=batch_size, seed=self.seed, hosts=self.hosts)
        source = open_data(data, **given, **arguments)
        return augmented(source, augment, self.seed, self.loops)
