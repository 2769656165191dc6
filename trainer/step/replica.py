"""What one replica does with its part of a batch: forward pass, terms, gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from losses import Layout, Objective, Ratio, Step
from losses.distributed.gather import own_examples
from losses.distributed.hosts import host_index, local_replicas
from losses.errors import TermwiseError, TermwiseTypeError
from trainer.balancing.balancing import Balancing
from trainer.balancing.jacobian import find_layer, recorded
from trainer.data.batch import examples_in, share, unpack
from trainer.data.class_weight import class_weights
from trainer.distributed.reduce import sum_in_replica
from trainer.optimizers.optimizers import Optimizers
from trainer.step.gradients import Gradients, Surrogate
from trainer.step.metrics import Metrics
from trainer.step.moving_statistics import moving_variables
from trainer.step.randomness import Randomness
from trainer.step.trainable import Trained


class Record(NamedTuple):
    """What one step leaves for the ledger; the same on every replica.

    raw, weight, weighted: float32 [terms]; examples: float32 [], of the global batch;
    grad_norm: float32 [], of the gradient of the total.
    """

    raw: tf.Tensor
    weight: tf.Tensor
    weighted: tf.Tensor
    examples: tf.Tensor
    grad_norm: tf.Tensor


class Passed(NamedTuple):
    """What a forward and backward pass leaves on one replica.

    gradients: path -> gradient of this replica's share of the total.
    moving: path -> value of a moving statistic, times `alive`.
    sums: float32 [2K + 2], see `Replica.sums`; over all replicas, but this one's own after a first
      pass and where `Replica.adds_late`.
    raw, weights: float32 [terms], of the global batch; raw is not where the sums are not.
    rows: path -> [balanced terms, ...], the balanced terms' gradients one by one.
    inner: what a balancer derived on the way: float32 [balanced terms] factors and the Gramian
      they came of; None where it works on `rows`.
    """

    gradients: dict[str, Any]
    moving: dict[str, tf.Tensor]
    sums: tf.Tensor
    raw: tf.Tensor
    weights: tf.Tensor
    rows: dict[str, tf.Tensor]
    inner: Any


class Replica:
    """The part of the step that runs on every replica.

    Attributes:
      layout: the terms of a training step; None before the first trace.
      trained: the variables, found in the first trace.
      per_host: whether a batch holds this host's examples alone.
    """

    def __init__(
        self,
        trainer,
        objective: Objective,
        optimizers: Optimizers,
        metrics: tuple[Metrics, Metrics],
        groups=None,
        balancing: Balancing | None = None,
        randomness: str = "different",
    ):
        self.trainer = trainer
        self.objective = objective
        self.optimizers = optimizers
        self.train_metrics, self.eval_metrics = metrics
        self.trained = Trained(trainer, objective, optimizers, groups)
        self.gradients = Gradients(self.trained, optimizers)
        self.balancing = balancing
        self.randomness = Randomness(trainer.strategy, randomness)
        self.class_weight: dict = {}
        self.replicas = trainer.strategy.num_replicas_in_sync
        self.per_host = False
        self.layout: Layout | None = None
        self.eval_layout: Layout | None = None

    def share(self, batch, per_host: bool | None = None):
        """This replica's part of a batch, and 1.0, or 0.0 where it is lent (None: one replica)."""
        if self.replicas == 1:
            return batch, None
        strategy = self.trainer.strategy
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        if self.per_host if per_host is None else per_host:
            local = local_replicas(strategy)
            own = index - host_index(strategy) * local
            return share(batch, own, local, maybe_empty=self.per_host)
        return share(batch, index, self.replicas)

    def forward(self, batch, alive) -> tuple[Step, dict[str, Ratio]]:
        """A training step's forward pass and its terms by name."""
        step = self._step(batch, training=True)
        return step, self._terms(step, alive)

    def sums(self, batch, alive):
        """The sums that the gradients need, from a pass that changes nothing.

        Returns:
          float32 [2K + 2]: this replica's numerators (0 where no term has a function after the
          division), denominators, examples, and 1 where they are its own.
        """
        # reading a model's losses there asks for the values of the regularized variables
        regularized = [v for v in self.trainer.model.variables if getattr(v, "regularizer", None)]
        values = [(v, tf.convert_to_tensor(v.value)) for v in regularized]
        with keras.StatelessScope(values, collect_losses=True, initialize_variables=False):
            step, terms = self.forward(batch, alive)
        layout = self.layout = Layout.of(terms)
        numerators, denominators = layout.pack(terms)
        if layout.linear and self.balancing is None:
            numerators = tf.zeros_like(numerators)  # the compiler drops what they came of
        return self._sums(numerators, denominators, step, alive)

    def train(self, batch, alive, scales, totals=None, window=None, rows=False) -> Passed:
        """Gradients of this replica's share of the total, and what the record is made of.

        Args:
          batch, alive: of `share`.
          scales: float32 [optimizers], the loss scales, or None.
          totals: `sums` over all replicas, where no replica may wait for another; None: they
            are added up here.
          window: float32 [terms], the mean denominators of the accumulated steps, or None.
          rows: whether the balanced terms' gradients are wanted one by one.
        """
        balancing = self.balancing
        # a persistent tape makes TensorFlow differentiate loops (an LSTM's) as functions: slower,
        # but the only form of them that XLA compiles
        persistent = rows or self.trained.several_passes or self.trainer.loops.jit_compile
        with tf.GradientTape(persistent=persistent) as tape:
            with recorded(self._layer if rows else None, tape) as outputs:
                step = self._step(batch, training=True)
                layer_outputs = list(outputs)
            terms = self._terms(step, alive)
            layout = Layout.of(terms)
            numerators, denominators = layout.pack(terms)
            weights = self.objective.weights(layout.names, step.step)
            with tape.stop_recording():
                sums = self._sums(numerators, denominators, step, alive)
                late = totals is not None or self.adds_late(layout)
                if totals is None and late:
                    counted = self._total_of_counts(layout, terms, denominators, alive)
                    totals = tf.concat([tf.zeros_like(numerators), counted], 0)
                elif totals is None:
                    sums = totals = self.total(sums)
                size = layout.size
                tops, bottoms = totals[:size], totals[size : 2 * size]
                if self.replicas == 1:
                    tops, bottoms = numerators, denominators
                raw = layout.raw(tops, bottoms)
            inner = None
            if balancing is not None and balancing.by_values:
                inner = balancing.of_values(weights, raw, step.step), None
                weights = balancing.weighted(weights, inner[0])
            elif balancing is not None and not rows:
                weights = balancing.weighted(weights, tf.convert_to_tensor(balancing.factors))
            with tape.stop_recording():
                raw, seeds = layout.raw_and_cotangents(tops, bottoms, weights)
                own_raw = raw / self.replicas
                if late and layout.linear:
                    own_raw = layout.raw(numerators, bottoms)
                counts = None if window is None else layout.accumulation_factors(bottoms, window)
            # its gradient, summed over the replicas, is that of sum(weights * raw)
            shares, own = seeds * numerators, weights * own_raw
            scale = None if scales is None else tf.stop_gradient(scales[0])
            parts = layout.parts(terms, seeds) if rows else ()
            surrogate = Surrogate(layout, shares, own, scale, counts, parts)
        self.trained.find(tape, step.model)
        of_terms: dict = {}
        if balancing is not None and layer_outputs:
            values = balancing.values(weights, raw)
            gradients, inner = self.gradients.through(
                tape, surrogate, scales, balancing, layer_outputs, values, step.step, self.total
            )
            weights = balancing.weighted(weights, inner[0])
        elif balancing is not None and rows:
            gradients, of_terms = self.gradients.rows(tape, surrogate, scales, balancing)
        else:
            gradients = self.gradients.plain(tape, surrogate, scales)
        self.gradients.settle(gradients, of_terms)
        self.layout = layout
        self._count(step, alive, self.train_metrics)
        moving = self._moving(step.model, alive)
        return Passed(gradients, moving, sums, raw, weights, of_terms, inner)

    def evaluate(self, batch, valid=None):
        """This batch's sums over all replicas: float32 [K] numerators and denominators.

        Args:
          valid: float32 [], 0 where this host's data has ended and the batch counts for nothing.
        """
        batch, alive = self.share(batch)
        if valid is not None:
            alive = valid if alive is None else alive * valid
        step = self._step(batch, training=False)
        terms = self._terms(step, alive)
        self.eval_layout = Layout.of(terms)
        sums = self.total(tf.stack(self.eval_layout.pack(terms)))
        self._count(step, alive, self.eval_metrics)
        weights = self.objective.weights(self.eval_layout.names, step.step)
        if self.balancing is not None:
            weights = self.balancing.weighted_alike(self.eval_layout, weights)
        return sums[0], sums[1], weights

    def predict(self, batch):
        """This replica's outputs, and 0.0 where it has no examples (None: one replica).

        A host predicts whole batches itself, so that each ends with all outputs.
        """
        batch, alive = self.share(batch, per_host=True)
        if alive is None and self.replicas > 1:
            alive = tf.ones([])
        return self._step(batch, training=False).y_pred, alive

    @property
    def _layer(self):
        """The layer through whose output the gradients are balanced, or None."""
        if self.balancing is None:
            return None
        layer = find_layer(self.trainer.model, self.balancing.balancer.at)
        if layer is not None and self.balancing.balancer.needs == "jacobian":
            raise TermwiseError(
                f"{self.balancing.balancer!r} needs gradients by variables: at= takes a pattern of "
                "variable paths or a list of variables, not a layer."
            )
        return layer

    def values(self) -> dict[str, Any]:
        """A row's loss parameters (means of larger ones), metrics and learning rates, [] each.

        In a graph metrics are among them where `reads_metrics`; else `Metrics.results` has them.
        """
        values: dict[str, Any] = {
            f"loss_parameters/{name}": tf.reduce_mean(tf.cast(value, tf.float32))
            for name, value in self.trained.values().items()
        }
        if self.reads_metrics:
            metrics = self.train_metrics.tensors()
            values.update({f"metrics/{name}": value for name, value in metrics.items()})
        optimizers = self.optimizers.of_group
        for group, optimizer in optimizers.items():
            tag = "learning_rate" if len(optimizers) == 1 else f"learning_rate/{group}"
            values[tag] = tf.convert_to_tensor(optimizer.learning_rate)
        return values

    @property
    def reads_metrics(self) -> bool:
        """Whether the loop reads the metrics at the end of a log window; else the host does."""
        return self.replicas == 1 and self.train_metrics.traceable

    def _step(self, batch, training):
        self.randomness.enter()
        x, y, sample_weight = unpack(batch)
        if self.class_weight and training:
            sample_weight = class_weights(y, sample_weight, self.class_weight)
        step = Step(
            x=x,
            y=y,
            sample_weight=sample_weight,
            model=self.trainer.model,
            step=tf.convert_to_tensor(self.trainer.step),
            training=training,
            objective=self.objective,
            forward=self.trainer.forward,
        )
        step.y_pred = self.trainer.forward(step)
        if step.y_pred is None:
            raise TermwiseTypeError("forward() returned nothing. Return the model's outputs.")
        return step

    def _terms(self, step, alive):
        # read before compute_terms(): another call of the model would clear them
        model_terms = self.objective.model_terms(step)
        with own_examples(alive):  # a lent example is no one's pair
            computed = self.trainer.compute_terms(step)
        terms = self.objective.complete(computed, model_terms, step)
        if self.balancing is not None:
            penalties = self.balancing.penalties()
            terms.update({name: Ratio.once(value) for name, value in penalties.items()})
        if alive is not None:
            terms = {name: ratio.scaled(alive) for name, ratio in terms.items()}
        return terms

    def _sums(self, numerators, denominators, step, alive):
        examples = tf.cast(examples_in(step.x), tf.float32)
        alive = tf.ones([]) if alive is None else alive
        return tf.concat([numerators, denominators, tf.stack([examples * alive, alive])], 0)

    def total(self, value):
        """The sum of a tensor over all replicas, in replica context."""
        return sum_in_replica(value)

    def adds_late(self, layout) -> bool:
        """Whether the sums are added up with the gradients: these need the denominators only."""
        return self.replicas > 1 and layout.linear and self.balancing is None

    def _total_of_counts(self, layout, terms, denominators, alive):
        """The denominators [K] over all replicas."""
        if alive is None and not self.per_host:  # equal shares of one batch
            known = layout.static_denominators(terms)
            if known is not None:
                return tf.constant(known * self.replicas)
        return self.total(denominators)

    def _count(self, step, alive, metrics):
        if alive is None:
            metrics.update(step.y, step.y_pred)
            return

        def update():
            metrics.update(step.y, step.y_pred)
            return tf.constant(True)

        if metrics.metrics:
            tf.cond(alive > 0, update, lambda: tf.constant(False))

    def _moving(self, model, alive):
        if self.replicas == 1:
            return {}
        return {
            path: _times(tf.convert_to_tensor(variable.value), alive)
            for path, variable in moving_variables(model).items()
        }


def _times(value, alive):
    return value if alive is None else value * tf.cast(alive, value.dtype)
