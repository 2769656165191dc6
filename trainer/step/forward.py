"""The forward pass of one replica: from its part of a batch to the terms' sums."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from losses.distributed.gather import own_examples
from losses.errors import TermwiseError, TermwiseTypeError, add_note
from losses.layers import layers_of
from losses.objective.class_ids import classes_of
from losses.objective.layout import Layout
from losses.objective.model_terms import overrides
from losses.objective.ratio import Ratio
from losses.objective.step import Step
from losses.terms.hardest import keep_hardest
from trainer.data.batch import Share, examples_in, shares_of, unpack
from trainer.data.given.class_weight import class_weights
from trainer.distributed.agreement import scope_of_all
from trainer.model.build import build_model
from trainer.model.variables import tensor_variable
from trainer.step.moving_statistics import moving_variables
from trainer.step.program import StepProgram


class Forward(NamedTuple):
    """What one replica's forward pass gives.

    step: what the terms were given; terms: name -> Ratio; layout: of the terms.
    numerators, denominators: float32 [K], this replica's.
    tapped: the tensors that the weighting recorded.
    even: whether every replica has an equal share of each source's batch.
    """

    step: Step
    terms: dict[str, Ratio]
    layout: Layout
    numerators: tf.Tensor
    denominators: tf.Tensor
    tapped: tuple
    even: bool = True

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


def run_forward(
    program: StepProgram, weighting, batch, present, tape=None, training: bool = True
) -> Forward:
    """The forward pass of a training step.

    Args:
      program: what is traced.
      weighting: of this pass.
      batch, present: of `Placement.shard`.
      tape: that of the gradients, for what the weighting records; None records nothing.
      training: False for the pass of an evaluation.
    """
    tap = contextlib.nullcontext(()) if tape is None else weighting.tap(tape)
    with program.metrics.without_padding(present):
        with tap as recorded:
            step = make_step(program, batch, training, present)
            tapped = tuple(recorded)
        terms = make_terms(program, step, present)
    layout = Layout.of(terms)
    even = all(each.present is None for each in step.sources.values())
    return Forward(step, terms, layout, *layout.pack(terms), tapped, even)


def stateless_forward(program: StepProgram, batch, present, training: bool = True) -> Forward:
    """`run_forward` in a pass that changes nothing: no statistics move, no draws advance."""
    # reading a model's losses there asks for the values of the regularized variables
    regularized = [v for v in program.model.variables if getattr(v, "regularizer", None)]
    values = [(v, tf.convert_to_tensor(v.value)) for v in regularized]
    with keras.StatelessScope(values, collect_losses=True, initialize_variables=False):
        return run_forward(program, program.weighting, batch, present, training=training)


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


def make_step(program: StepProgram, batch, training: bool, present=None) -> Step:
    """The `Step` of a batch, with the model's outputs; of several sources with the main one's.

    Args:
      batch, present: of `Placement.shard`.
      training: whether the model trains.
    """
    program.randomness.enter()
    shares = shares_of(batch, present)
    if None in shares and program.sources:  # data without names are those of the main source
        shares = {program.sources[0]: shares[None]}
    steps = {name: _step_of(program, name, part, training) for name, part in shares.items()}
    named = {name: each for name, each in steps.items() if name is not None}
    for each in named.values():
        each.with_sources(named, program.undrawn, program.sources)
    step = next(iter(steps.values()))
    step.y_pred = program.forward(step)
    if step.y_pred is None:
        raise TermwiseTypeError("forward() returned nothing. Return the model's outputs.")
    if program.class_weight and training:
        objective = program.objective
        classes = classes_of(objective.loss, step.y_pred, objective.output_names)
        step.sample_weight = class_weights(
            step.y, step.sample_weight, program.class_weight, classes
        )
    return step


def _step_of(program: StepProgram, name: str | None, part: Share, training: bool) -> Step:
    """The step of one source; but for the main one its outputs are made when they are read."""
    x, y, sample_weight = unpack(part.batch)
    return Step(
        x=x,
        y=y,
        sample_weight=sample_weight,
        model=program.model,
        step=program.step,
        training=training,
        objective=program.objective,
        forward=program.forward,
        source=name,
        present=part.present,
        outputs=_other_outputs(program) if name is not None else None,
    )


def _without_pauses(program: StepProgram, terms: dict[str, Ratio], step: Step) -> dict[str, Ratio]:
    """The terms of a training step but for those that pause."""
    if not step.training:
        return terms
    pausing = program.pauses.weights
    return {
        name: ratio.paused(program.pauses.counts(name, step.step)) if name in pausing else ratio
        for name, ratio in terms.items()
        if name not in program.idle
    }


def _other_outputs(program: StepProgram) -> Callable[[Step], Any]:
    """(step of a source) -> the model's outputs, made once, for all terms that ask.

    It is a pass as the main one's is: dropout draws, and moving statistics move, but not for
    padding. What it adds by `add_loss` is no term: those are of the main source's pass.
    """
    made: list = []
    begun: list = []

    def outputs(step: Step):
        if not begun:
            begun.append(step)  # a forward() that reads step.y_pred is given None, as in the main
            made.append(_by_pass(program, step))
        return made[0] if made else None

    return outputs


def _by_pass(program: StepProgram, step: Step):
    moving: dict = {}
    if step.present is not None and step.training:
        moving = moving_variables(program.placement.strategy, program.model, program.places())
    before = {name: tf.convert_to_tensor(tensor_variable(v)) for name, v in moving.items()}
    with program.metrics.without_padding(step.present):
        outputs = program.forward(step)
    if outputs is None:
        raise TermwiseTypeError("forward() returned nothing. Return the model's outputs.")
    for name, variable in moving.items():
        variable = tensor_variable(variable)
        now = tf.convert_to_tensor(variable)
        variable.assign(tf.where(step.present > 0, now, before[name]))
    return outputs


def _hardest(program: StepProgram, terms: dict[str, Ratio], step: Step) -> dict[str, Ratio]:
    """The terms of a step that learn from the hardest examples of their source alone."""
    partly = program.several_objectives or program.leaves_out
    layout = program.discovery.layout if partly else None
    shares = program.hardest.shares(program.objective, terms, layout.names if layout else ())
    if shares:
        _check_hardest(program, next(iter(shares)))
    hardest: dict[str, Ratio] = {}
    for name, share in shares.items():
        with own_examples(step.of_source(terms[name].source).present):
            hardest[name] = keep_hardest(name, terms[name], share).placed_as(terms[name])
    return hardest


def _check_hardest(program: StepProgram, term: str) -> None:
    """Raises ValueError where the hardest examples cannot be told exactly."""
    if program.optimizers.accumulation > 1:
        raise TermwiseError(
            f"hardest= of term {term!r}: the hardest examples of "
            f"{program.optimizers.accumulation} accumulated steps are known after the last of them "
            "alone. Drop gradient_accumulation_steps, or hardest=."
        )
    if program.placement.precomputes_sums:
        raise TermwiseError(
            f"hardest= of term {term!r} compares the examples of all replicas, for which what XLA "
            "compiles cannot wait. Pass jit_compile=False, or train on one replica."
        )


def make_terms(program: StepProgram, step: Step, present) -> dict[str, Ratio]:
    """All terms of a step by name; none counts where the examples are padding."""
    # read before compute_terms(): another call of the model would clear them
    model_terms = program.objective.model_terms(step)
    step.without_terms(program.idle)
    accumulated = program.optimizers.accumulation if step.training else 1
    with own_examples(present, accumulated):  # a padding example is no one's pair
        computed = program.compute_terms(step)
    terms = program.objective.complete(computed, model_terms, step)
    if step.training:
        terms.update(_hardest(program, terms, step))
    terms = _without_pauses(program, terms, step)
    leaves_out = program.several_objectives or program.leaves_out
    if leaves_out and program.discovery.layout is not None:
        terms = program.discovery.layout.with_absent(terms)

    def weights_of(names):
        return program.objective.weights(names, step.step)

    terms.update(program.weighting.penalties(terms, weights_of))
    if present is not None:
        terms = {name: r if r.placed else r.scaled(present) for name, r in terms.items()}
    return terms
