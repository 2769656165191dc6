"""The forward pass of one replica: from its part of a batch to the terms' sums."""

from __future__ import annotations

import contextlib
import functools
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from losses.distributed.gather import own_examples
from losses.errors import TermwiseTypeError, add_note
from losses.layers import layers_of
from losses.objective.class_ids import classes_of
from losses.objective.layout import Layout
from losses.objective.model_terms import overrides
from losses.objective.ratio import Ratio
from losses.objective.step import Step
from trainer.data.batch import examples_in, unpack
from trainer.data.class_weight import class_weights
from trainer.distributed.agreement import scope_of_all
from trainer.model.build import build_model
from trainer.step.program import StepProgram


class Forward(NamedTuple):
    """What one replica's forward pass gives.

    step: what the terms were given; terms: name -> Ratio; layout: of the terms.
    numerators, denominators: float32 [K], this replica's.
    tapped: the tensors that the weighting recorded.
    """

    step: Step
    terms: dict[str, Ratio]
    layout: Layout
    numerators: tf.Tensor
    denominators: tf.Tensor
    tapped: tuple

    def sums(self, present) -> tf.Tensor:
        """float32 [2K + 2]: numerators, denominators, examples, and 1 where they are not padding.

        Where a term may be absent, T more before the last two: `Layout.present`.

        Args:
          present: float32 [], 0 where the examples are padding; None: they are not.
        """
        examples: Any = tf.cast(examples_in(self.step.x), tf.float32)
        present = tf.ones([]) if present is None else present
        counts = tf.stack([examples * present, present])
        of_terms = self.layout.present(self.terms)
        parts = [self.numerators, self.denominators, *([] if of_terms is None else [of_terms])]
        return tf.concat([*parts, counts], 0)


def run_forward(program: StepProgram, weighting, batch, present, tape=None) -> Forward:
    """The forward pass of a training step.

    Args:
      program: what is traced.
      weighting: of this pass.
      batch, present: of `Placement.shard`.
      tape: that of the gradients, for what the weighting records; None records nothing.
    """
    tap = contextlib.nullcontext(()) if tape is None else weighting.tap(tape)
    with program.metrics.without_padding(present):
        with tap as recorded:
            step = make_step(program, batch, training=True)
            tapped = tuple(recorded)
        terms = make_terms(program, step, present)
    layout = Layout.of(terms)
    return Forward(step, terms, layout, *layout.pack(terms), tapped)


def stateless_forward(program: StepProgram, batch, present) -> Forward:
    """`run_forward` in a pass that changes nothing: no statistics move, no draws advance."""
    # reading a model's losses there asks for the values of the regularized variables
    regularized = [v for v in program.model.variables if getattr(v, "regularizer", None)]
    values = [(v, tf.convert_to_tensor(v.value)) for v in regularized]
    with keras.StatelessScope(values, collect_losses=True, initialize_variables=False):
        return run_forward(program, program.weighting, batch, present)


def build_by_call(program: StepProgram, spec) -> None:
    """Gives an unbuilt model its variables by a call of it; spec of one batch of data."""
    scope = functools.partial(scope_of_all, program.placement.strategy)
    build_model(program.model, scope, spec)


def build_by_forward(program: StepProgram, spec) -> None:
    """The same by a `forward()` of a user's own, which may call parts of the model alone.

    It is traced once, and changes nothing.
    """
    model, strategy = program.model, program.placement.strategy
    if model.built:
        return build_by_call(program, spec)
    if not overrides(model, "call") and all(layer.built for layer in layers_of(model)[1:]):
        return None
    try:
        with strategy.scope(), keras.StatelessScope():
            trace = tf.function(functools.partial(_outputs, program), autograph=False)
            trace.get_concrete_function(spec)
    except Exception as error:
        if not overrides(model, "call"):
            add_note(error, "(while building the model by forward())")
            raise
        build_by_call(program, spec)  # what forward() asks of a replica it cannot have here
    return None


def _outputs(program: StepProgram, batch):
    return make_step(program, batch, training=False).y_pred


def make_step(program: StepProgram, batch, training: bool) -> Step:
    """The `Step` of a batch, with the model's outputs."""
    program.randomness.enter()
    x, y, sample_weight = unpack(batch)
    step = Step(
        x=x,
        y=y,
        sample_weight=sample_weight,
        model=program.model,
        step=program.step,
        training=training,
        objective=program.objective,
        forward=program.forward,
    )
    step.y_pred = program.forward(step)
    if step.y_pred is None:
        raise TermwiseTypeError("forward() returned nothing. Return the model's outputs.")
    if program.class_weight and training:
        objective = program.objective
        classes = classes_of(objective.loss, step.y_pred, objective.output_names)
        step.sample_weight = class_weights(y, sample_weight, program.class_weight, classes)
    return step


def make_terms(program: StepProgram, step: Step, present) -> dict[str, Ratio]:
    """All terms of a step by name; none counts where the examples are padding."""
    # read before compute_terms(): another call of the model would clear them
    model_terms = program.objective.model_terms(step)
    accumulated = program.optimizers.accumulation if step.training else 1
    with own_examples(present, accumulated):  # a padding example is no one's pair
        computed = program.compute_terms(step)
    terms = program.objective.complete(computed, model_terms, step)
    if program.several_objectives and program.discovery.layout is not None:
        terms = program.discovery.layout.with_absent(terms)

    def weights_of(names):
        return program.objective.weights(names, step.step)

    terms.update(program.weighting.penalties(terms, weights_of))
    if present is not None:
        terms = {name: ratio.scaled(present) for name, ratio in terms.items()}
    return terms
