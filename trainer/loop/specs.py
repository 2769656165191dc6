"""What a step is traced with: the specs of its inputs, or the inputs themselves in Python."""

from __future__ import annotations

import tensorflow as tf

from trainer.loop.eager import first_batch
from trainer.step.program import StepProgram


def specs_of_step(program: StepProgram, means) -> tuple:
    """Specs of the loss scales and of the mean denominators; themselves for what runs in Python.

    Args:
      means: the spec of the means, or None.
    """
    scales = program.optimizers.scales()
    if not program.placement.eager:
        return _spec_of(scales), means
    return scales, None if means is None else tf.ones(means.shape)


def means_spec(program: StepProgram) -> tf.TensorSpec:
    """The spec of the mean denominators of accumulated steps."""
    return tf.TensorSpec([len(program.layout.names)], tf.float32)


def to_trace_with(program: StepProgram, source):
    """The spec of a batch; the first batch itself for what runs in Python."""
    return first_batch(source) if program.placement.eager else source.element_spec


def _spec_of(tensor):
    return None if tensor is None else tf.TensorSpec(tensor.shape, tensor.dtype)


def local_spec(program: StepProgram, counts):
    results = program.placement.strategy.experimental_local_results
    return tf.TensorSpec(results(counts)[0].shape, tf.float32)


def of_any_size(spec):
    """The structure of batches of any size: a model is not built for one of them."""
    return tf.nest.map_structure(
        lambda part: (
            tf.TensorSpec([None, *part.shape[1:]], part.dtype)
            if isinstance(part, tf.TensorSpec) and part.shape.rank
            else part
        ),
        spec,
    )
