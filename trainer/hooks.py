"""What a subclass of `Trainer` overrides, and what it does by default."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from losses import Step
from losses.errors import TermwiseError
from trainer.model.build import call_model


class Hooks(keras.callbacks.Callback):
    """The methods of a `Trainer` that research changes; each has the natural default."""

    _model: keras.Model
    objective: Any
    loops: Any
    step: Any  # a property of the Trainer

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
        return call_model(self._model, step.x, step.training)

    def compute_terms(self, step: Step) -> dict[str, Any]:
        """The terms of a step by name, in replica context.

        An override that adds `terms["name"] = ...` (one value per example, a scalar or a
        `losses.Ratio`) is all that a new term needs.
        """
        return self.objective.compute_terms(step)

    def train_step(self, batch):
        """One update from one global batch, in cross-replica context, inside the loop.

        Returns the `Record` of `compute_gradients`, which fills the ledger.
        """
        gradients, record = self.compute_gradients(batch)
        self.apply_gradients(gradients, record)
        return record

    def compute_gradients(self, batch):
        """Gradients of the total, summed over the replicas: path -> gradient; and a Record."""
        return self.loops.compute_gradients(batch)

    def apply_gradients(self, gradients, record) -> None:
        """One update of every group that is due."""
        replica = self.loops.replica
        finite = tf.math.is_finite(record.grad_norm) if self.loops.skipping else None
        step = tf.convert_to_tensor(self.step)
        replica.optimizers.apply(gradients, replica.trained.variables, step, finite)
