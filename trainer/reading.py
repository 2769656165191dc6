"""What a `Trainer` does beside training: it reads data, looks at a run, and hands on its model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import tensorflow as tf

from losses.errors import TermwiseError
from losses.terms.hardest import Hardest
from trainer.data.given import METHODS, checked_class_weight, read_data
from trainer.data.open import open_sources, reading_batch
from trainer.debugging.bad_values import evaluate_told, examples_told
from trainer.debugging.replay import replay as replay_step
from trainer.debugging.trial import TRIED, TriedStep, check_tried, try_step
from trainer.fitting.course import Course, phase_at
from trainer.hooks import Hooks
from trainer.ledger.examples import Examples
from trainer.loop.traced_step import Asked
from trainer.model.export import Export
from trainer.model.variables import owned_variables
from trainer.persistence.checkpoint import system_error
from trainer.persistence.files import refusal, replace_whole
from trainer.run.evaluate import follow, predict, prepare_model, prepare_reading
from trainer.run.events import ReadingEvents


def export_model(model, path, outputs=None) -> Path:
    """Writes an inference model: a SavedModel folder that holds `model.keras` as well.

    A path that ends in ".keras" gets that file alone. The export is written beside the target and
    renamed, so that the target is whole or what it was. An earlier export, or an empty folder, is
    replaced; anything else that stands there is left as it is, a model that somebody saved too.

    Raises:
      FileExistsError: something else than an earlier export has this path.
      OSError: it cannot be written; what stood there still does.
    """
    export = Export.of(model, path, outputs)
    target = Path(os.path.realpath(path))  # of a link, what it leads to
    try:
        replace_whole(target, export.write, export.check)
    except (OSError, tf.errors.OpError) as error:
        raise refusal(path, system_error(error)) from error
    export.warn(target)
    return export.path


class Reading(Hooks):
    """The methods of a `Trainer` that train nothing."""

    if not TYPE_CHECKING:  # a mistyped name stays one for who checks types

        def __getattr__(self, name: str):
            """An error that says what to write, of what a Keras model has and a Trainer has not."""
            if name not in METHODS:
                return object.__getattribute__(self, name)  # raises, of a property its own error
            raise AttributeError(f"A {type(self).__name__} has no {name}: {METHODS[name]}.")

    def restore(self) -> int:
        """Gives a run that has trained nothing yet the state of its workdir's newest checkpoint.

        Without a checkpoint it is what the run starts with, `init_from` included. `evaluate` and
        `predict` do so by themselves; call it to look at `loss_parameters` or the model's weights.
        The next `fit` restores once more: what is set by hand is set behind a fit.

        Returns:
          int, the step at which the run stands.
        Raises:
          ValueError: the run is not built; call `build(data)` before.
        """
        if not self._run.programs.prepared:
            raise TermwiseError("restore(): the run is not built. Call trainer.build(data) first.")
        prepare_model(self._run)
        return self._run.state.step

    def evaluate(
        self,
        data=None,
        y=None,
        *further,
        batch_size: int | None = None,
        steps: int | None = None,
        **as_in_keras,
    ) -> dict:
        """Every term and metric over a dataset, exact over its examples however it is batched.

        Args:
          data, y: as in `fit`.
          batch_size: for arrays; 64 by default.
          steps: batches to take; all by default.
          as_in_keras: x, sample_weight and callbacks as in `keras.Model.evaluate`.
        Returns:
          dict: total, terms/*, raw/*, weight/*, metrics/*.
        """
        data, callbacks = read_data(Reading.evaluate, data, y, further, as_in_keras)
        source = self._open(data, reading_batch(data, batch_size))
        prepare_reading(self._run, source, steps)
        return evaluate_told(self._run, source, steps, self._events("test", callbacks))

    def examples(
        self, data=None, y=None, *further, top: int | None = None, batch_size=None, **as_in_keras
    ) -> Examples:
        """Every example's value of every term, in the order of the data, by `evaluate`'s weights.

        Args:
          data, y: as in `fit`; of one source.
          top: how many of the hardest examples of each term are wanted, with what they are.
          batch_size: for arrays; 64 by default.
        Returns:
          `Examples`, a dict: term -> numpy [examples]; with `top` -> list of `Example`.
        """
        data, _ = read_data(Reading.examples, data, y, further, as_in_keras, False)
        source = self._open(data, reading_batch(data, batch_size))
        return examples_told(self._run, source, top)

    def predict(self, data=None, *further, batch_size: int | None = None, **as_in_keras):
        """The model's outputs for every example, in order.

        Args:
          data: as in `fit`; labels are not used.
          batch_size: for arrays; 64 by default.
          as_in_keras: x and callbacks as in `keras.Model.predict`.
        Returns:
          numpy arrays [examples, ...] in the outputs' structure.
        """
        data, callbacks = read_data(Reading.predict, data, None, further, as_in_keras)
        source = self._open(data, reading_batch(data, batch_size))
        return predict(self._run, source, self._events("predict", callbacks))

    def _events(self, kind: str, callbacks) -> ReadingEvents:
        """Those of a pass over data, told to the Trainer and to callbacks."""
        return ReadingEvents.with_callbacks(kind, self, callbacks, self.model)

    def follow(self, poll_seconds: float = 5.0) -> Iterator[int]:
        """Restores each new checkpoint of a run that another process trains, until it is done.

        Args:
          poll_seconds: between two looks into the workdir.
        Yields:
          int, the step of the checkpoint that is restored; `evaluate` then reads it.
        """
        return follow(self._run, poll_seconds)

    def replay(
        self,
        data,
        step: int,
        *,
        batch_size: int | None = None,
        augment=None,
        hardest=None,
        class_weight=None,
    ) -> str:
        """A look at one step of an earlier run: each term's raw value, weight and gradient norm.

        Trains from the workdir's newest checkpoint up to it; the arguments as `fit` was given them.
        Phases are those of the constructor.

        Raises:
          ValueError: a step behind the checkpoint's phase, or a phase that there is not.
        """
        source = self._open(data, batch_size, augment, shuffle=True, static=True)
        run = self._run
        asked = Asked(checked_class_weight(class_weight), hardest=Hardest.of(hardest))
        run.traced(source, asked)
        run.decide_jit(source, asked)
        run.restore()
        host = run.state.host
        phase = phase_at(self._parts["phases"], host, step).beside(self._parts["weights"])
        return replay_step(run, source.drawn_as(host.rates), step, replace(asked, phase=phase))

    def try_step(
        self,
        data=None,
        y=None,
        *further,
        batch_size: int | dict | None = None,
        class_weight=None,
        hardest=None,
        **as_in_keras,
    ) -> TriedStep:
        """A look at a training step of one batch before any is taken; it changes nothing.

        Each term's values, raw value, weight, gradient norm and the variables it reaches, by the
        step that `fit` traces, at the run's present weights and in its present phase.

        Args:
          data, y: one batch, or data as in `fit`, of which the first batch is tried; a pipeline
            that shuffles is refused, as another reading of it would draw on.
          batch_size: for arrays; by default all that are given, up to 1024 examples.
          class_weight, hardest: as in `fit`.
          as_in_keras: x and sample_weight.
        Returns:
          `TriedStep`, shown as a table; its `examples` hold each example's value of each term.
        Raises:
          ValueError, TypeError: what `fit` would raise of these data before its first step.
        """
        data, _ = read_data(Reading.try_step, data, y, further, as_in_keras, False)
        size = TRIED if batch_size is None and not isinstance(data, tf.data.Dataset) else batch_size
        shuffle = batch_size is not None
        source = self._open(data, size, shuffle=shuffle, static=True)
        check_tried(source, batch_size)
        run = self._run
        phase = Course.of(self._parts["phases"], run.state.host).of_step
        phase = replace(phase.beside(self._parts["weights"]), optimizer=None, optimizers=None)
        weights, shares = checked_class_weight(class_weight), Hardest.of(hardest)
        return try_step(run, source, Asked(weights, phase=phase, hardest=shares))

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
        """The source of data as `fit` takes it; arguments of `open_sources`."""
        arguments = {"shuffle": False, "static": False, "what": "data", **arguments}
        run = self._run
        return open_sources(
            data,
            batch_size=batch_size,
            augment=augment,
            seed=run.seed,
            hosts=run.hosts,
            **arguments,
        )

    def _owned_variables(self) -> list:
        """The variables of terms, and those of networks that a subclass keeps."""
        return owned_variables(self.terms, vars(self).values(), self.model)
