"""The Trainer: what its users construct, call and override; the walk of a batch starts here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from losses.balancing.balancer import Balancer
from losses.objective.term import listed_terms
from trainer.balancing.balanced_terms import check_balancer
from trainer.balancing.diagnostics import check_diagnostics_every
from trainer.data.augment import augmented
from trainer.data.class_weight import checked_class_weight
from trainer.data.open import default_batch, open_data, reading_batch
from trainer.debugging.bad_values import evaluate_told
from trainer.debugging.nonfinite import check_mode
from trainer.debugging.profile import Profile
from trainer.debugging.replay import replay
from trainer.distributed import resolve_strategy, scope_of_all
from trainer.fitting.fit import FitRequest, run_fit
from trainer.fitting.plan import plan_fit
from trainer.hooks import Hooks, overridden
from trainer.ledger.describe import describe_terms
from trainer.ledger.history import History
from trainer.loop.jit_choice import JitChoice
from trainer.model.build import compiled_arguments, make_model
from trainer.model.export import export_model
from trainer.model.variables import owned_variables
from trainer.persistence.workdir import Workdir, checked_config
from trainer.run.assemble import RunSettings, UserFunctions, make_run
from trainer.run.evaluate import follow, predict, prepare_model, prepare_reading
from trainer.run.events import ReadingEvents


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
      metrics, weighted_metrics: as in `Model.compile`.
      strategy: "auto", "one_device", "mirrored", or a `tf.distribute.Strategy`.
      workdir: the folder of the run; None keeps nothing on disk.
      jit_compile: compile the step with XLA; "auto" times both before the run's first step.
      run_eagerly: run each step in Python, untraced, to step through it.
      groups: group name -> pattern of variable paths (or a list, a layer, variables).
      update_every: group name -> steps between its updates.
      loss_parameter_optimizer: for the loss parameters; the model's own by default.
      add_loss_sums: patterns of layer paths whose `add_loss` is a sum over examples.
      gradient_diagnostics_every: steps between looks at norm, cosines, share of terms' gradients.
      on_nonfinite: "raise" stops with the term's name and the step; "skip" leaves the step out;
        "restore" goes back to the last checkpoint, and on past the data.
      row_means: of a row over "steps" alike, or "examples": a short batch counts less, as in Keras.
      config: a mapping of plain values, kept as config.json and shown in TensorBoard.
      seed: int of the shuffling of arrays; `keras.utils.set_random_seed` seeds the weights.
      replica_randomness: "different" or "same" draws (dropout masks) on the replicas.
      init_from: a workdir or checkpoint whose weights a new run starts with.
      init_loss_parameters: whether it takes those of the same name too.
      name: the run's name; the workdir's by default.
    Attributes:
      model, optimizer, strategy, step, loss_parameters: of the run, as the properties say.
      terms: the `losses.Term` objects.
      name, config, seed: as they were given.
      workdir: the run's folder, or None.
    A subclass may set any other attribute. Layers and variables among them are saved with the run,
    and train where a term reads them.
    Raises:
      ValueError, TypeError: an argument that cannot work, before anything is built; an attribute
        of a public name that a subclass sets.
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
        weighted_metrics: Any = None,
        strategy: str | tf.distribute.Strategy = "auto",
        workdir: str | Path | None = None,
        jit_compile: bool | str = False,
        run_eagerly: bool = False,
        groups: Mapping | None = None,
        update_every: Mapping[str, int] | None = None,
        loss_parameter_optimizer: Any = None,
        add_loss_sums: Iterable[str] = (),
        gradient_diagnostics_every: int | None = None,
        on_nonfinite: str = "raise",
        row_means: str = "steps",
        config: Mapping | None = None,
        seed: int = 0,
        replica_randomness: str = "different",
        init_from: str | Path | None = None,
        init_loss_parameters: bool = True,
        name: str | None = None,
    ):
        super().__init__()
        check_balancer(balancer)
        check_diagnostics_every(gradient_diagnostics_every)
        jit, mode = JitChoice(jit_compile, run_eagerly), check_mode(on_nonfinite, workdir)
        self._set(strategy=resolve_strategy(strategy))
        folder = None if workdir is None else Workdir(workdir)
        name = name or (folder.path.name if folder else "model")
        self._set(workdir=folder, name=name, config=checked_config(config), seed=seed)
        with scope_of_all(self.strategy):
            self._set(model=make_model(model, self.build_model, self.strategy))
            self._set(terms=listed_terms(terms, self.build_terms()))
        settings = RunSettings(
            loss=loss,
            loss_weights=loss_weights,
            add_loss_sums=add_loss_sums,
            optimizer=optimizer,
            groups=groups,
            update_every=update_every,
            loss_parameter_optimizer=loss_parameter_optimizer,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            balancer=balancer,
            diagnostics_every=gradient_diagnostics_every,
            replica_randomness=replica_randomness,
            jit=jit,
            on_nonfinite=mode,
            row_means=row_means,
            init_from=init_from,
            init_loss_parameters=init_loss_parameters,
            run_eagerly=run_eagerly,
        )
        self._set(run=make_run(self._parts, settings, self._user_functions()))

    def _user_functions(self) -> UserFunctions:
        """What the run is made of that a subclass may override."""
        return UserFunctions(
            forward=self.forward,
            compute_terms=self.compute_terms,
            train_step=lambda batch: self.train_step(batch),
            owned_variables=self._owned_variables,
            open_data=self._open,
            # where loss parameters may be held, for their names
            places=[(self.name, type(self).compute_terms), (self.name, self)],
            overridden=overridden(type(self)),
        )

    @classmethod
    def from_compiled(cls, model: keras.Model, **arguments) -> Trainer:
        """A Trainer with the optimizer, losses, loss weights and metrics of a compiled model.

        Further arguments of the constructor win over the model's. ValueError: not compiled.
        """
        return cls(model, **{**compiled_arguments(model), **arguments})

    def set_model(self, model) -> None:
        """As a callback the Trainer keeps its own model."""

    @property
    def optimizer(self):
        """The optimizer in use; a dict by group where there are groups."""
        return self._run.program.optimizers.optimizer

    @property
    def loss_parameters(self) -> dict[str, Any]:
        """name -> variable; empty before `build` or `fit` has found them."""
        return dict(self._run.program.trainables.parameters)

    def describe(self) -> str:
        """The table of terms: name, from, weight; and the loss parameters."""
        run = self._run
        parameters = self.loss_parameters if run.programs.prepared else None
        return describe_terms(run.program.objective, parameters, run.program.trainables.networks)

    def build(self, data, *, batch_size: int | None = None, class_weight=None) -> Trainer:
        """Traces one step of data as `fit` takes it, so that `describe()` is complete."""
        source = self._open(data, reading_batch(data, batch_size), static=True)
        self._run.traced(source, checked_class_weight(class_weight))
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
        class_weight = checked_class_weight(class_weight)
        source = self._open(data, batch_size, augment, shuffle=shuffle, static=True)
        source = self._run.state.data.again(source)
        validation = None
        if validation_data is not None:
            size = default_batch(validation_data, source.batch_size)
            validation = self._open(validation_data, size, what="validation_data")
        plan = plan_fit(
            source,
            steps=steps,
            epochs=epochs,
            log_every=log_every,
            validate_every=validate_every,
            checkpoint_every=checkpoint_every,
            steps_per_loop=steps_per_loop,
        )
        run = self._run
        profile = Profile(profile_steps, self.workdir, plan.steps, run.hosts.chief)
        request = FitRequest(
            source=source,
            validation=validation,
            step=run.traced(source, class_weight),
            class_weight=class_weight,
            plan=plan,
            keep=dict(keep_last=keep_last, keep_best=keep_best, best_metric=best_metric),
            events=self,
            callbacks=callbacks,
            describe=self.describe,
            profile=profile,
            verbose=verbose,
        )
        return run_fit(run, request)

    def evaluate(self, data, *, batch_size: int | None = None, steps: int | None = None) -> dict:
        """Every term and metric over a dataset, exact over its examples however it is batched.

        Args:
          data: as in `fit`.
          batch_size: for arrays; 64 by default.
          steps: batches to take; all by default.
        Returns:
          dict: total, terms/*, raw/*, weight/*, metrics/*.
        """
        source = self._open(data, reading_batch(data, batch_size))
        prepare_reading(self._run, source, steps)
        return evaluate_told(self._run, source, steps, ReadingEvents.of("test", [self], self))

    def predict(self, data, *, batch_size: int | None = None):
        """The model's outputs for every example, in order.

        Args:
          data: as in `fit`; labels are not used.
          batch_size: for arrays; 64 by default.
        Returns:
          numpy arrays [examples, ...] in the outputs' structure.
        """
        source = self._open(data, reading_batch(data, batch_size))
        return predict(self._run, source, ReadingEvents.of("predict", [self], self))

    def follow(self, poll_seconds: float = 5.0) -> Iterator[int]:
        """Restores each new checkpoint of a run that another process trains, until it is done.

        Args:
          poll_seconds: between two looks into the workdir.
        Yields:
          int, the step of the checkpoint that is restored; `evaluate` then reads it.
        """
        return follow(self._run, poll_seconds)

    def replay(self, data, step: int, *, batch_size: int | None = None, augment=None) -> str:
        """A look at one step of an earlier run: each term's raw value, weight and gradient norm.

        Trains from the workdir's newest checkpoint up to it; `data` as `fit` was given it.
        """
        source = self._open(data, batch_size, augment, shuffle=True, static=True)
        run = self._run
        run.traced(source)
        run.decide_jit(source)
        run.restore()
        return replay(run, source, step)

    def export(self, path, *, outputs=None) -> Path:
        """Writes the inference model alone: no labels, no loss parameters.

        Args:
          path: a folder (a SavedModel that also holds model.keras), or a path ending in .keras.
          outputs: names of layers to export instead of the model's outputs.
        Returns:
          The path.
        """
        prepare_model(self._run)
        program = self._run.program
        with program.optimizers.averages(program.trainables.variables):
            return export_model(self.model, path, outputs)

    def _open(self, data, batch_size, augment=None, **arguments):
        """The source of data as `fit` takes it; arguments of `open_data`."""
        shared: dict = dict(batch_size=batch_size, seed=self.seed, hosts=self._run.hosts)
        source = open_data(data, **shared, **arguments)
        source.passed = None if source.indexed else data
        return augmented(source, augment, self.seed)

    def _owned_variables(self) -> list:
        """The variables of terms, and those of networks that a subclass keeps."""
        return owned_variables(self.terms, vars(self).values(), self.model)
