"""What a subclass of `Trainer` overrides, and what it does by default."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from losses import Step
from losses.errors import TermwiseError
from trainer.loop.train_step import apply_gradients, compute_gradients, current_context
from trainer.model.build import call_model


class Hooks(keras.callbacks.Callback):
    """The methods of a `Trainer` that research changes; each has the natural default."""

    model: Any  # a property of the Trainer
    _run: Any  # the parts of the run

    def build_model(self) -> keras.Model:
        """The model, when the constructor is given none; called inside the strategy's scope."""
        raise TermwiseError(
            f"{type(self).__name__} was given no model. Pass model=, or override build_model()."
        )

    def build_terms(self) -> Iterable:
        """`losses.Term` objects beside those of `terms=`; called inside the strategy's scope."""
        return ()

    def forward(self, step: Step):
        """The model's outputs of a step's inputs, in replica context."""
        return call_model(self.model, step.x, step.training)

    def compute_terms(self, step: Step) -> dict[str, Any]:
        """The terms of a step by name, in replica context.

        An override that adds `terms["name"] = ...` (one value per example, a scalar or a
        `losses.Ratio`) is all that a new term needs.
        """
        return self._run.program.objective.compute_terms(step)

    def train_step(self, batch):
        """One update from one global batch, in cross-replica context, inside the loop.

        Returns the `StepRecord` of `compute_gradients`, which fills the ledger.
        """
        gradients, record = self.compute_gradients(batch)
        self.apply_gradients(gradients, record)
        return record

    def compute_gradients(self, batch):
        """Gradients of the total, summed over the replicas: path -> gradient; and a StepRecord."""
        return compute_gradients(current_context(), batch)

    def apply_gradients(self, gradients, record) -> None:
        """One update of every group that is due."""
        apply_gradients(current_context(), gradients, record)
