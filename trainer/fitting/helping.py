"""Measures what each term does for validation, on the host, between two calls of the loop."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from trainer.balancing.helps import Helps
from trainer.loop.programs import TracedStep
from trainer.loop.train_step import TrainPasses
from trainer.optimizers.step_sizes import check_known, step_sizes
from trainer.run.run import Run

MOST_BATCHES = 32  # of the validation data; each costs a forward and a backward pass


def check_measurable(run: Run, source, validation) -> None:
    """Raises ValueError where a fit cannot measure what `helps_every=` asks for."""
    if run.programs.helps is None:
        return
    if validation is None:
        raise TermwiseError(
            f"helps_every={run.programs.helps.every} measures what the terms do for validation. "
            "Give fit() validation_data=."
        )
    if validation.names:
        raise TermwiseError(
            "helps_every= measures by validation data of the main source alone, and these "
            f"hold the sources {', '.join(map(repr, validation.names))}. Give those of "
            f"{validation.names[0]!r}."
        )
    dense = all(isinstance(s, tf.TensorSpec) for s in tf.nest.flatten(source.element_spec))
    if not source.indexed and not dense:
        raise TermwiseError(
            f"helps_every= looks at the last batch again, and a pipeline's batch is kept where it "
            f"is dense; {source.what} yields {source.element_spec}. Give dense batches."
        )
    check_known(run.program.optimizers.of_group.values())


class Helping:
    """Measures, where a step asks for it and it is due, what the terms do for validation.

    Args:
      run: what is trained.
      validation: the data; None where nothing is measured.
    """

    def __init__(self, run: Run, validation):
        self._run, self._validation = run, validation
        self._measurement: Measurement | None = None

    def next_stop(self, traced: TracedStep, step: int, due: int) -> int:
        """The next step at which something is due: `due`, or a measurement before."""
        return due if traced.helps is None else min(due, traced.helps.next_stop(step))

    def measure(self, traced: TracedStep, source, step: int, data_start: int, loop) -> None:
        """Measures by the last batch of an open loop, where it is due at a step.

        Args:
          source: the data, as they are drawn now.
          data_start: the step at which the data began.
        """
        if traced.helps is None or not traced.helps.due(step):
            return
        if self._measurement is None or self._measurement.step is not traced:
            self._measurement = Measurement(self._run, traced, self._validation)
        batch = source.batch_again(step - 1 - data_start, loop.last_batch)
        self._measurement.take(batch, step)


class Measurement:
    """The passes that measure `Helps`, traced once for a step and the validation data.

    Args:
      run: what is trained.
      step: its traced step.
      validation: the source of validation data.
    """

    def __init__(self, run: Run, step: TracedStep, validation):
        assert step.helps is not None
        self.helps: Helps = step.helps
        self.step, self._validation = step, validation
        program = step.program
        self._strategy = program.placement.strategy
        # an evaluation's pass; XLA on several replicas could not add up what they count
        placement = program.placement.placed(validation.per_host, False)
        looking = TrainPasses(replace(program, placement=placement))
        self._terms = self._traced(self._gradients_of_terms)
        self._products = self._traced(lambda terms, *batch: self._product(looking, terms, *batch))

    def take(self, batch, number: int) -> None:
        """Measures with a training batch, after so many steps; the mean over validation batches."""
        terms, rows, examples = self._terms(batch), [], []
        spec = self._validation.element_spec
        for seen in itertools.islice(self._validation.batches(), MOST_BATCHES):
            tensors = tf.nest.flatten(seen, expand_composites=True)
            size = len(tf.nest.flatten(spec, expand_composites=True))
            packed = tf.nest.pack_sequence_as(spec, tensors[:size], expand_composites=True)
            product, count = self._products(terms, packed, *tensors[size:])
            rows.append(product.numpy())
            examples.append(float(count))
        self.helps.keep(np.asarray(rows, np.float64), np.asarray(examples), number)

    def _traced(self, function):
        eager = self.step.program.placement.eager
        return function if eager else tf.function(function, autograph=False)

    def _gradients_of_terms(self, batch) -> dict:
        """path -> [T, ...], what an update of each term alone would add to a variable."""
        program, passes = self.step.program, self.step.passes
        rows = passes.jacobian(batch, passes.precomputed(batch))
        sizes, trainables = step_sizes(program.optimizers), program.trainables
        groups = {line.name: line.trains or () for line in program.objective.described or []}
        passes_of = trainables.passes(program.layout, groups, program.optimizers.accumulates)
        trained = {path: mask for (mask, _), paths in passes_of.items() for path in paths}
        updates = {}
        for path, of_path in rows.items():
            row = self._strategy.experimental_local_results(of_path)[0]
            rises = getattr(trainables.variables[path], "maximize", False)
            mask = np.asarray(trained[path], np.float32) * (1.0 if rises else -1.0)
            mask = np.reshape(mask, [-1] + [1] * (row.shape.rank - 1))
            updates[path] = row * tf.cast(mask, row.dtype) * tf.cast(sizes[path], row.dtype)
        return updates

    def _product(self, passes: TrainPasses, updates: dict, *batch):
        """float64 [T], the terms' updates times the gradient of validation; and its examples."""
        gradients, examples = passes.validation(self.helps.chosen, *batch)
        local, products = self._strategy.experimental_local_results, []
        for path, update in updates.items():
            flat = tf.reshape(tf.cast(update, tf.float64), [tf.shape(update)[0], -1])
            slope = tf.reshape(tf.cast(local(gradients[path])[0], tf.float64), [-1])
            products.append(tf.linalg.matvec(flat, slope))
        return tf.add_n(products), local(examples)[0]
