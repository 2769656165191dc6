"""Cases in which one replica and several must agree: small models, uneven batches, 20 steps.

The 97 examples come as batches of 1, 63 and 33, over and over: the first batch leaves all replicas
but one without examples. The tests train each case on one replica and on several, in one process
and in two; `python -m benchmarks.parity` shows what `Model.fit` makes of the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import losses
from benchmarks.replica_models import adding, dense, masked, normalized, regularized

SIZES = (1, 63, 33)
STEPS = 20
EXAMPLES = sum(SIZES)


def vectors(weights: bool = True):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(EXAMPLES, 6)), rng.normal(size=(EXAMPLES, 2))
    weight = rng.uniform(0, 3, EXAMPLES)
    data = x.astype("float32"), y.astype("float32"), weight.astype("float32")
    return data if weights else data[:2]


def classes():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, EXAMPLES)
    y[::5] = -1  # ignored
    return rng.normal(size=(EXAMPLES, 6)).astype("float32"), y.astype("int32")


def two_classes():
    x, y = classes()
    return x, np.abs(y)


def sentences():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 9, (EXAMPLES, 5)).astype("int32")
    x[:50, 1:] = 0  # nearly everything valid is on the last replica
    return x, rng.normal(size=(EXAMPLES, 5, 2)).astype("float32")


def with_an_inf():
    x, y, weight = vectors()
    x[70, 0] = 1e38  # overflows when squared: in the last batch, on one replica
    return x, y, weight


def batches(data) -> tf.data.Dataset:
    """The examples as batches of `SIZES`."""
    whole = tf.data.Dataset.from_tensor_slices(data)
    dataset, done = None, 0
    for size in SIZES:
        part = whole.skip(done).take(size).batch(size)
        # one shape for all, as a pipeline of unequal batches has
        part = part.map(_loose)
        dataset = part if dataset is None else dataset.concatenate(part)
        done += size
    return dataset


def with_others(data):
    """With a second source, of which every other step draws one example, then 40, then 2."""
    from trainer import Sources

    x = np.random.default_rng(1).normal(size=(43, 6)).astype("float32")
    parts = [tf.data.Dataset.from_tensors(x[a:b]) for a, b in ((0, 1), (1, 41), (41, 43))]
    other = parts[0].concatenate(parts[1]).concatenate(parts[2])
    other = other.map(lambda x: tf.ensure_shape(x, [None, 6]))
    return Sources(main=data, other=other).every(other=2)


def _loose(*batch):
    return tuple(tf.ensure_shape(part, [None, *part.shape[1:]]) for part in batch)


class Root(losses.Term):
    """A square root after the global reduction."""

    def call(self, step):
        squared = tf.reduce_sum(tf.square(step.y_pred))
        count = tf.cast(tf.size(step.y_pred), tf.float32)
        return losses.Ratio(squared, count, after=tf.sqrt)


def size(step):
    return tf.reduce_mean(tf.square(step.y_pred), axis=-1)


def sgd(**arguments):
    return keras.optimizers.SGD(0.05, momentum=0.9, **arguments)


def adam(**arguments):
    return keras.optimizers.Adam(0.01, **arguments)


@dataclass(frozen=True)
class Case:
    """One case: functions that make its parts anew."""

    model: Callable = regularized
    data: Callable = vectors
    optimizer: Callable[[], Any] = sgd
    loss: Callable[[], Any] = lambda: "mse"
    arguments: Callable[[], dict] = dict  # further ones, of Trainer
    fit: dict = field(default_factory=dict)  # and of fit
    together: Callable = lambda data: data  # the batches with those of other sources
    keras: bool = True  # whether Model.fit can express it


def _reduction(kind):
    return Case(loss=lambda: keras.losses.MeanSquaredError(reduction=kind))


def _terms(*terms):
    return lambda: {"terms": [make() for make in terms]}


CASES: dict[str, Case] = {
    "sum_over_batch_size": _reduction("sum_over_batch_size"),
    "mean": _reduction("mean"),
    "mean_with_sample_weight": _reduction("mean_with_sample_weight"),
    "sum": Case(
        loss=lambda: keras.losses.MeanSquaredError(reduction="sum"),
        optimizer=lambda: keras.optimizers.SGD(0.001),
    ),
    "a scalar loss": Case(
        loss=lambda: lambda t, p: tf.reduce_mean(tf.abs(t - p)), data=lambda: vectors(False)
    ),
    "a mask": Case(masked, sentences),
    "ignore_class": Case(
        dense,
        classes,
        loss=lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1),
    ),
    "class weights": Case(
        dense,
        two_classes,
        loss=lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        fit={"class_weight": {0: 0.5, 1: 3.0}},
    ),
    "add_loss of a mean": Case(adding),
    "add_loss of a sum": Case(
        lambda: adding(True),
        arguments=lambda: {"add_loss_sums": ["adds"]},
        optimizer=lambda: keras.optimizers.SGD(0.002),
    ),
    "a batch-level root": Case(arguments=_terms(lambda: Root(0.3)), keras=False),
    "a constraint": Case(
        arguments=_terms(lambda: losses.Constraint(size, at_most=0.1, rate=0.5, average=0.9)),
        keras=False,
    ),
    "several sources": Case(
        arguments=lambda: {"terms": [losses.term(size, source="other", weight=0.3)]},
        together=with_others,
        keras=False,
    ),
    "a contrastive loss": Case(dense, two_classes, loss=lambda: losses.SupCon(temperature=0.5)),
    "clipping by value": Case(optimizer=lambda: sgd(clipvalue=0.02)),
    "clipping by norm": Case(optimizer=lambda: sgd(clipnorm=0.05)),
    "clipping by global norm": Case(optimizer=lambda: sgd(global_clipnorm=0.1)),
    "accumulation": Case(optimizer=lambda: sgd(gradient_accumulation_steps=2)),
    "moving averages that overwrite": Case(
        optimizer=lambda: adam(use_ema=True, ema_overwrite_frequency=3)
    ),
    "weight decay": Case(optimizer=lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1)),
    "a loss scale": Case(
        optimizer=lambda: keras.optimizers.LossScaleOptimizer(
            sgd(), initial_scale=1024.0, dynamic_growth_steps=4
        )
    ),
    "an inf on one replica": Case(
        dense,
        with_an_inf,
        optimizer=lambda: keras.optimizers.LossScaleOptimizer(sgd(), initial_scale=1024.0),
    ),
    "a scheduled weight": Case(
        arguments=lambda: {
            "loss_weights": keras.optimizers.schedules.PolynomialDecay(2.0, 10, 0.5)
        },
        keras=False,
    ),
    "a weight that learns": Case(
        arguments=lambda: {"loss_weights": losses.UncertaintyWeight()}, keras=False
    ),
    "a weight that learns, clipped with the others": Case(
        optimizer=lambda: sgd(global_clipnorm=0.1),
        arguments=lambda: {"loss_weights": losses.UncertaintyWeight()},
        keras=False,
    ),
    "several optimizers": Case(
        optimizer=lambda: {"first": sgd(), "second": adam()},
        arguments=lambda: {
            "groups": {"first": "hidden/*", "second": "out/*"},
            "update_every": {"second": 2},
        },
        keras=False,
    ),
    # not Adam: the bias before a normalization has no gradient but rounding, which Adam would
    # make whole steps of (2.8e-3 in that bias and the mean that follows it, 1e-6 elsewhere)
    "synchronized normalization": Case(normalized),
}


def train(case: Case, strategy, *, steps=STEPS, jit_compile=False, data=None):
    """Trains a case with Termwise.

    Args:
      data: instead of the case's own batches.
    Returns:
      rows of the ledger, one per step; weights and optimizer slots by name, numpy.
    """
    from trainer import Trainer

    keras.utils.set_random_seed(0)
    trainer = Trainer(
        case.model,
        optimizer=case.optimizer(),
        loss=case.loss(),
        metrics=["mae"] if case.data in (vectors, sentences) else None,
        strategy=strategy,
        jit_compile=jit_compile,
        **case.arguments(),
    )
    data = case.together(batches(case.data()))
    history = trainer.fit(data, steps=steps, log_every=1, verbose=False, **case.fit)
    held = {v.path: np.asarray(tf.convert_to_tensor(v)) for v in trainer.model.weights}
    optimizers = (
        trainer.optimizer if isinstance(trainer.optimizer, dict) else {"": trainer.optimizer}
    )
    for group, optimizer in optimizers.items():
        for index, variable in enumerate(optimizer.variables):
            held[f"slot {group} {index} {variable.name}"] = np.asarray(
                tf.convert_to_tensor(variable)
            )
    return history.rows, held


def differences(one, other) -> tuple[float, float]:
    """The largest relative difference of the ledgers, and of the weights and slots.

    Args:
      one, other: of `train`; `one` is the reference.
    Returns:
      max |a - b| / max(|b|, 0.1) over total, raw and weights of terms, metrics, loss parameters;
      max |a - b| / max(|b|, 1) over the variables.
    """
    rows = 0.0
    for mine, theirs in zip(other[0], one[0], strict=True):
        for key, value in theirs.items():
            if key.startswith(
                ("raw/", "terms/", "total", "metrics/", "weight/", "loss_param", "multiplier/")
            ):
                found = mine[key]
                if value is None or found is None:
                    rows = max(rows, 0.0 if value is found else np.inf)
                else:
                    rows = max(rows, abs(found - value) / max(abs(value), 0.1))
    weights = max(
        float(np.max(np.abs(other[1][name] - value) / np.maximum(np.abs(value), 1.0), initial=0.0))
        for name, value in one[1].items()
    )
    return rows, weights
