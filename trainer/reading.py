"""What a `Trainer` does beside training: it reads data, looks at a run, and hands on its model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from losses.errors import TermwiseError
from losses.terms.hardest import Hardest
from trainer.data.open import open_sources, reading_batch
from trainer.debugging.bad_values import evaluate_told, examples_told
from trainer.debugging.replay import replay
from trainer.hooks import Hooks
from trainer.ledger.examples import Examples
from trainer.loop.traced_step import Asked
from trainer.model.export import export_model
from trainer.model.variables import owned_variables
from trainer.run.evaluate import follow, predict, prepare_model, prepare_reading
from trainer.run.events import ReadingEvents


class Reading(Hooks):
    """The methods of a `Trainer` that train nothing."""

    def restore(self) -> int:
        """Gives a run that has trained nothing yet the state of its workdir's newest checkpoint.

        Without a checkpoint it is what the run starts with, `init_from` included. `evaluate` and
        `predict` do so by themselves; call it to look at `loss_parameters` or the model's weights.

        Returns:
          int, the step at which the run stands.
        Raises:
          ValueError: the run is not built; call `build(data)` before.
        """
        if not self._run.programs.prepared:
            raise TermwiseError("restore(): the run is not built. Call trainer.build(data) first.")
        prepare_model(self._run)
        return self._run.state.step

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

    def examples(self, data, *, top: int | None = None, batch_size: int | None = None) -> Examples:
        """Every example's value of every term, in the order of the data, by `evaluate`'s weights.

        Args:
          data: as in `fit`; of one source.
          top: how many of the hardest examples of each term are wanted, with what they are.
          batch_size: for arrays; 64 by default.
        Returns:
          `Examples`, a dict: term -> numpy [examples]; with `top` -> list of `Example`.
        """
        source = self._open(data, reading_batch(data, batch_size))
        return examples_told(self._run, source, top)

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

    def replay(
        self, data, step: int, *, batch_size: int | None = None, augment=None, hardest=None
    ) -> str:
        """A look at one step of an earlier run: each term's raw value, weight and gradient norm.

        Trains from the workdir's newest checkpoint up to it; the arguments as `fit` was given them.
        """
        source = self._open(data, batch_size, augment, shuffle=True, static=True)
        run = self._run
        asked = Asked(hardest=Hardest.of(hardest))
        run.traced(source, asked)
        run.decide_jit(source, asked)
        run.restore()
        return replay(run, source, step, asked)

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
