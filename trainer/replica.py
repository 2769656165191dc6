"""What one replica does with its part of a batch: forward pass, terms, gradients."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from losses import Layout, Objective, Step
from losses.gather import own_examples
from trainer.data import class_weights, examples_in, share, unpack
from trainer.groups import WHOLE, partition
from trainer.metrics import Metrics
from trainer.optimizers import Optimizers
from trainer.parameters import by_path, find_parameters, name_parameters, read, tensor_variable


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


class Replica:
    """The part of the step that runs on every replica, traced once.

    The first trace finds what nobody declared: the terms, and the loss parameters they read.

    Attributes:
      layout: the terms of a training step; None before the first trace.
      variables: path -> variable that the total reaches.
      parameters: path -> loss parameter, among `variables`.
      owners: path -> the optimizer's group.
    """

    def __init__(
        self,
        trainer,
        objective: Objective,
        optimizers: Optimizers,
        metrics: tuple[Metrics, Metrics],
        groups=None,
    ):
        self.trainer = trainer
        self.objective = objective
        self.optimizers = optimizers
        self.train_metrics, self.eval_metrics = metrics
        self.groups = groups
        self.class_weight: dict = {}
        self.replicas = trainer.strategy.num_replicas_in_sync
        self.layout: Layout | None = None
        self.eval_layout: Layout | None = None
        self.variables: dict = {}
        self.parameters: dict = {}
        self.owners: dict[str, str] = {}
        self._groups_of: dict[str, str] = {}

    def train(self, batch, scales):
        """Gradients of this replica's share of the total, and the record of the step.

        Args:
          batch: the global batch.
          scales: float32 [optimizers], the loss scales, or None.
        Returns:
          dict path -> gradient, to be summed over the replicas; Record without its norm.
        """
        with tf.GradientTape(persistent=True) as tape:
            step, alive = self._step(batch, training=True)
            terms = self._terms(step, alive)
            layout = Layout.of(terms)
            numerators, denominators = layout.pack(terms)
            weights = self.objective.weights(layout.names, step.step)
            with tape.stop_recording():
                sums = self._sum(tf.stack([numerators, denominators]))
                raw, seeds = layout.raw_and_seeds(sums[0], sums[1], weights)
            # its gradient, summed over the replicas, is that of sum(weights * raw)
            shares = seeds * numerators
            own = weights * raw / self.replicas
        names = [path for path, _ in self._candidates(tape, step)]
        gradients = self._gradients(tape, names, layout, shares, own, scales)
        self.layout = layout
        self._count(step, alive, self.train_metrics)
        examples = tf.cast(examples_in(batch), tf.float32)
        return gradients, Record(raw, weights, weights * raw, examples, tf.zeros([]))

    def evaluate(self, batch):
        """This batch's sums over all replicas: float32 [K] numerators and denominators."""
        step, alive = self._step(batch, training=False)
        terms = self._terms(step, alive)
        self.eval_layout = Layout.of(terms)
        sums = self._sum(tf.stack(self.eval_layout.pack(terms)))
        self._count(step, alive, self.eval_metrics)
        return sums[0], sums[1], self.objective.weights(self.eval_layout.names, step.step)

    def predict(self, batch):
        """This replica's outputs, and 0.0 where it has no examples (None: one replica)."""
        step, alive = self._step(batch, training=False)
        return step.y_pred, alive

    def values(self) -> dict[str, float]:
        """A row's loss parameters (means of larger ones), metrics and learning rates."""
        values = {
            f"loss_parameters/{name}": float(np.mean(read(variable)))
            for name, variable in self.parameters.items()
        }
        values.update({f"metrics/{k}": v for k, v in self.train_metrics.results().items()})
        optimizers = self.optimizers.of_group
        for group, optimizer in optimizers.items():
            tag = "learning_rate" if len(optimizers) == 1 else f"learning_rate/{group}"
            values[tag] = float(read(optimizer.learning_rate))
        return values

    def _step(self, batch, training):
        context = tf.distribute.get_replica_context()
        batch, alive = share(batch, context.replica_id_in_sync_group, self.replicas)
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
            raise TypeError("forward() returned nothing. Return the model's outputs.")
        return step, alive

    def _terms(self, step, alive):
        # read before compute_terms(): another call of the model would clear them
        model_terms = self.objective.model_terms(step)
        with own_examples(alive):  # a lent example is no one's pair
            computed = self.trainer.compute_terms(step)
        terms = self.objective.complete(computed, model_terms, step)
        if alive is not None:
            terms = {name: ratio.scaled(alive) for name, ratio in terms.items()}
        return terms

    def _sum(self, value):
        if self.replicas == 1:
            return value
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)

    def _count(self, step, alive, metrics):
        if alive is None:
            metrics.update(step.y, step.y_pred)
            return

        def update():
            metrics.update(step.y, step.y_pred)
            return tf.constant(True)

        if metrics.metrics:
            tf.cond(alive > 0, update, lambda: tf.constant(False))

    def _candidates(self, tape, step):
        """Every variable the step may train, by path; finds the loss parameters once."""
        if not self.variables:
            model = by_path(step.model.trainable_variables)
            found = find_parameters(tape.watched_variables(), step.model)
            places = [
                *self.objective.places(),
                (self.trainer.name, type(self.trainer).compute_terms),
                (self.trainer.name, self.trainer),
            ]
            self.parameters = name_parameters(found, places)
            self.parameters = {
                f"{name} (loss)" if name in model else name: variable
                for name, variable in self.parameters.items()
            }
            self.variables = {**model, **self.parameters}
            members = partition(self.groups, self.variables)
            groups = {path: group for group, paths in members.items() for path in paths}
            loose = [path for path in model if path not in groups]
            if loose:
                raise ValueError(
                    f"Variables in no group: {', '.join(loose)}. Add them to one of groups= "
                    f"({', '.join(members)}); a group without an optimizer is frozen."
                )
            for path in self.variables:
                parameter = path if path in self.parameters else None
                owner = self.optimizers.owner(groups.get(path), parameter)
                if owner is not None:
                    self.owners[path] = owner
            self._groups_of = groups
        return [(path, self.variables[path]) for path in self.owners]

    def _gradients(self, tape, names, layout, shares, own, scales):
        """path -> gradient; one pass for every set of terms that train the same groups."""
        passes: dict[tuple, list[str]] = {}
        trains = {d.name: d.trains or () for d in self.objective.described or []}
        groups = set(self._groups_of.values()) - {WHOLE}
        for name, only in trains.items():
            if only and not set(only) <= groups:
                raise ValueError(
                    f"Term {name!r} trains {', '.join(map(repr, only))}; the groups are "
                    f"{', '.join(map(repr, sorted(groups))) or 'none: pass groups='}."
                )
        for path in names:
            group = self._groups_of.get(path)
            mask = tuple(
                group is None or not trains.get(term) or group in trains[term]
                for term in layout.names
            )
            passes.setdefault(mask, []).append(path)
        order = list(self.optimizers.of_group)
        found = {}
        for mask, paths in passes.items():
            whole = all(mask)
            with tape:
                if whole:
                    total = tf.reduce_sum(shares) + tf.reduce_sum(own)
                else:
                    on_terms = tf.constant(np.asarray(mask, np.float32))
                    on_sums = tf.gather(on_terms, layout.of_sum)
                    total = tf.reduce_sum(shares * on_sums) + tf.reduce_sum(own * on_terms)
                if scales is not None:
                    total *= tf.stop_gradient(scales[0])
            variables = [self.variables[path] for path in paths]
            gradients = tape.gradient(total, [tensor_variable(v) for v in variables])
            for path, variable, gradient in zip(paths, variables, gradients, strict=True):
                if gradient is None:
                    continue
                factor = -1.0 if getattr(variable, "maximize", False) else None
                index = order.index(self.owners[path])
                if scales is not None and index:
                    factor = (factor or 1.0) * scales[index] / scales[0]
                found[path] = gradient if factor is None else _times(gradient, factor)
        self._settle(found)
        return found

    def _settle(self, reached):
        """Keeps the variables that some term reaches; says which the model has in vain."""
        if not reached:
            raise ValueError(
                "No term depends on any trainable variable. Check that the losses use y_pred, and "
                "that the model or a group has trainable variables and an optimizer."
            )
        unreached = [path for path in self.owners if path not in reached]
        idle = [path for path in unreached if path not in self.parameters]
        if idle:
            warnings.warn(
                f"No term reaches {', '.join(idle)}: they stay as they are.", stacklevel=2
            )
        for path in unreached:
            self.parameters.pop(path, None)
            del self.owners[path]


def _times(gradient, factor):
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(gradient.values * factor, gradient.indices, gradient.dense_shape)
    return gradient * tf.cast(factor, gradient.dtype)
