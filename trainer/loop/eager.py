"""Steps that run in Python, nothing of them traced: breakpoints and prints meet values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from trainer.errors import OF_INPUT, reading_failure
from trainer.model.variables import tensor_variable


@dataclass(frozen=True)
class PythonPass:
    """A forward and backward pass that ran, as far as a traced one is looked at.

    Attributes:
      structured_outputs: what it gave.
      variables: what it may have read or written: the model's, on every replica.
    """

    structured_outputs: Any
    variables: list

    @classmethod
    def of(cls, outputs, program) -> PythonPass:
        return cls(outputs, parts_of(program.placement.strategy, program.model.variables))


@dataclass(frozen=True)
class PythonStep:
    """A training step as Python code, called as a traced one is.

    Attributes:
      train_step: batch, further tensors -> StepLine.
      spec: of a batch.
    """

    train_step: Callable
    spec: Any

    def __call__(self, *tensors):
        size = len(tf.nest.flatten(self.spec, expand_composites=True))
        batch = tf.nest.pack_sequence_as(self.spec, tensors[:size], expand_composites=True)
        return self.train_step(batch, *tensors[size:])


def first_batch(source):
    """The first batch of a source, by which a run in Python finds its terms and variables.

    Raises:
      ValueError: it cannot be read.
    """
    try:
        return source.first_batch()
    except OF_INPUT as error:
        raise reading_failure(source, error) from error


def parts_of(strategy, variables) -> list[tf.Variable]:
    """The variables' parts on all devices of this process."""
    results = strategy.experimental_local_results
    return [part for variable in variables for part in results(tensor_variable(variable))]
