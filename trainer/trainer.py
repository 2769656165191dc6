"""The Trainer: what its users construct, call and override; the walk of a batch starts here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from losses.balancing.balancer import Balancer
from losses.objective.term import listed_terms
from losses.objective.weights import Weight
from losses.terms.hardest import Hardest
from trainer.balancing.balanced_terms import check_balancer
from trainer.balancing.diagnostics import check_diagnostics_every
from trainer.balancing.helps import check_helps
from trainer.data.given import FitData, checked_class_weight, fit_data, read_data
from trainer.data.open import default_batch, reading_batch
from trainer.debugging.nonfinite import check_mode
from trainer.debugging.profile import Profile
from trainer.distributed import resolve_strategy, scope_of_all
from trainer.fitting.fit import FitRequest, run_fit
from trainer.fitting.phases import Phase, check_phases, phases_of_step
from trainer.fitting.plan import plan_fit
from trainer.fitting.validation import best_by, open_validation
from trainer.hooks import check_methods, checked_record, overridden
from trainer.ledger.describe import describe_terms
from trainer.ledger.history import History
from trainer.loop.jit_choice import JitChoice
from trainer.loop.traced_step import Asked
from trainer.model.build import compiled_arguments, make_model
from trainer.persistence.workdir import Workdir, checked_config
from trainer.reading import Reading
from trainer.run.assemble import RunSettings, UserFunctions, make_run


class Trainer(Reading):
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
      helps_every, helps_for: steps between looks at what each term does for validation; by default
        for its whole objective, else for the terms that are named.
      on_nonfinite: "raise" stops with the term's name and the step; "skip" leaves the step out;
        "restore" goes back to the last checkpoint, and on past the data.
      row_means: of a row over "steps" alike, or "examples": a short batch counts less, as in Keras.
      config: a mapping of plain values, kept as config.json and shown in TensorBoard.
      seed: int of the shuffling of arrays; `keras.utils.set_random_seed` seeds the weights.
      replica_randomness: "different" or "same" draws (dropout masks) on the replicas.
      init_from: a workdir or checkpoint whose weights a new run starts with.
      init_loss_parameters: whether it takes those of the same name too.
      phases: `trainer.Phase` objects of every `fit`: spans that set weights, what trains, the rate.
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
        helps_every: int | None = None,
        helps_for: str | Iterable[str] | None = None,
        on_nonfinite: str = "raise",
        row_means: str = "steps",
        config: Mapping | None = None,
        seed: int = 0,
        replica_randomness: str = "different",
        init_from: str | Path | None = None,
        init_loss_parameters: bool = True,
        phases: Iterable[Phase] = (),
        name: str | None = None,
    ):
        super().__init__()
        check_methods(type(self))
        check_balancer(balancer)
        check_diagnostics_every(gradient_diagnostics_every)
        check_helps(helps_every, helps_for)
        self._set(phases=check_phases(phases), weights={}, history=None)
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
            helps=(helps_every, helps_for),
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
            train_step=lambda batch: checked_record(self.train_step(batch)),
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
        return self._run.programs.evaluated.optimizers.optimizer

    @property
    def loss_parameters(self) -> dict[str, Any]:
        """name -> variable; empty before `build` or `fit` has found them."""
        return dict(self._run.program.trainables.parameters)

    def describe(self) -> str:
        """The table of terms: name, from, weight; and the loss parameters."""
        programs, program = self._run.programs, self._run.program
        parameters = self.loss_parameters if programs.prepared else None
        networks = program.trainables.networks
        return describe_terms(program.objective, parameters, networks, programs.shares)

    def set_weight(self, term: str, weight) -> None:
        """Gives a term another weight, in evaluation from now on and in the next `fit`.

        Args:
          term: its name, or a pattern; one that is no term's is an error here, or in the next fit.
          weight: as in `loss_weights=`; 0 leaves the term out, absent and not computed. The weight
            of a phase comes before it.
        Raises:
          ValueError, TypeError: no term of that name; a weight that cannot be one.
        """
        Weight(weight, term)
        weights = {**self._parts["weights"], term: weight}
        self._run.programs.reweigh(weights)
        self._set(weights=weights)

    def build(
        self, data=None, y=None, *further, batch_size=None, class_weight=None, **as_in_keras
    ) -> Trainer:
        """Traces one step of data as `fit` takes it, so that `describe()` is complete."""
        data, _ = read_data(Trainer.build, data, y, further, as_in_keras, False)
        source = self._open(data, reading_batch(data, batch_size), static=True)
        self._run.traced(source, Asked(checked_class_weight(class_weight)))
        return self

    def fit(
        self,
        data=None,
        y=None,
        *further,
        steps: int | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        validation_data=None,
        validation_sets: Mapping[str, Any] | None = None,
        log_every: int | None = None,
        validate_every: int | None = None,
        checkpoint_every: int | str | None = None,
        class_weight: Mapping[int, float] | None = None,
        hardest: float | Mapping[str, float] | None = None,
        callbacks: Iterable[keras.callbacks.Callback] = (),
        steps_per_loop: int | None = None,
        keep_last: int | None = 3,
        keep_best: int = 0,
        best_metric: str = "total",
        shuffle: bool = True,
        augment: Callable | None = None,
        profile_steps: tuple[int, int] | None = None,
        phases: Iterable[Phase] | None = None,
        verbose: bool = True,
        **as_in_keras,
    ) -> History:
        """Trains to the global step `steps` (or to `epochs` passes), from where the run stands.

        Args:
          data: a `tf.data.Dataset` of global batches, or arrays with `batch_size`; x, (x,),
            (x, y) or (x, y, sample_weight); or `trainer.Sources` of these by name.
          y: labels; what stands before them is x.
          steps, epochs: one of them; the same call after an interruption does what is left.
          batch_size: the global batch, for arrays; of several sources a dict by name, as are
            `shuffle` and `augment`.
          validation_data: evaluated every `validate_every` steps, and at the end.
          validation_sets: name -> data, evaluated likewise; their rows have split "eval/<name>".
          log_every: steps per row of the ledger; 100, or an epoch with `epochs`.
          validate_every: steps; one interval is an epoch of the callbacks. An epoch with
            `epochs`, else only the end.
          checkpoint_every: steps, or "auto": as often as what a checkpoint costs makes it pay. The
            end is always saved.
          class_weight: class id -> weight.
          hardest: the share of a batch, its hardest examples, that each compiled loss learns from;
            or a dict by term.
          callbacks: Keras callbacks.
          steps_per_loop: most steps in one call of the loop; by default what two seconds hold.
          keep_last: checkpoints that stay; None keeps all.
          keep_best: checkpoints that stay besides, the best by `best_metric`: a tag of the
            evaluation's rows, without validation data of the training rows; `"<set>:<tag>"` of one
            of the `validation_sets`.
          shuffle: arrays are drawn without replacement, anew each epoch.
          augment: for arrays, a function (example, seed) -> example of one example of the data
            and its int32 [2] seed, for `tf.random.stateless_*`; see `trainer.augmenting`.
          profile_steps: (first, last); the steps after `first` up to `last` are profiled, into
            the workdir's TensorBoard folder, and a line says where their time went.
          phases: `trainer.Phase` objects, one after another; those of the constructor by default.
          verbose: print the run's line, progress and ledger.
          as_in_keras: x, sample_weight, validation_split, validation_batch_size, steps_per_epoch as
            in `keras.Model.fit`; what else is given there is refused with what to write instead.
        Returns:
          History; `.rows` are the lines of metrics.jsonl. `trainer.history` is the same, and is
          there after an interrupt or an error too.
        """
        weights, shares = checked_class_weight(class_weight), Hardest.of(hardest)
        looked_at = validation_data, validation_sets
        given = fit_data(Trainer.fit, data, y, further, as_in_keras, looked_at)
        source = self._open(given.data, batch_size, augment, shuffle=shuffle, static=True)
        source = self._run.state.data.again(source)
        validation = self._open_validation(given, validation_sets, source)
        best = best_by(best_metric, validation)
        course = self._parts["phases"] if phases is None else check_phases(phases)
        plan = plan_fit(
            source,
            steps=steps,
            epochs=epochs,
            steps_per_epoch=given.steps_per_epoch,
            log_every=log_every,
            validate_every=validate_every,
            checkpoint_every=checkpoint_every,
            steps_per_loop=steps_per_loop,
        )
        run = self._run
        first, later = phases_of_step(course, self._parts["weights"])
        asked = Asked(weights, plan.steps, first, later, shares)
        profile = Profile(profile_steps, self.workdir, plan.steps, run.hosts.chief)
        request = FitRequest(
            source=source,
            validation=validation,
            phases=course,
            step=run.traced(source, asked),
            asked=asked,
            weights=self._parts["weights"],
            plan=plan,
            keep=dict(keep_last=keep_last, keep_best=keep_best, best_metric=best.tag),
            best_split=best.split,
            events=self,
            callbacks=callbacks,
            describe=self.describe,
            profile=profile,
            verbose=verbose,
        )
        self._set(history=request.history)
        return run_fit(run, request)

    def _open_validation(self, given: FitData, sets: Mapping | None, source) -> dict[str, Any]:
        """split -> source of the data that are evaluated beside a source that trains."""

        def opened(data, what):
            size = given.validation_batch_size
            size = default_batch(data, source.batch_sizes) if size is None else size
            return self._open(data, size, what=what)

        return open_validation(given.validation_data, sets, opened)
