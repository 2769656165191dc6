"""A training program as data: what both Keras and Termwise can be asked to do, and its parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

FEATURES, CLASSES, STEPS_OF_TIME, WORDS = 5, 3, 4, 11


@dataclass(frozen=True)
class Program:
    """What is trained, on what, how.

    Attributes:
      model: a key of `MODELS`.
      frozen: the layers that do not train, by name.
      regularizer: of the first kernel: None, "l1", "l2" or "orthogonal".
      activity: whether the first layer has an activity regularizer.
      loss: a key of `LOSSES`; of a model with two outputs that of the first.
      reduction: of the loss, as Keras calls it.
      weights: sample weights: None, "examples", or "some" (a third of them is 0).
      class_weight: whether classes have weights; of integer labels.
      optimizer: a class of `keras.optimizers`.
      settings: (name, value) pairs of its arguments.
      schedule: of the learning rate: None, "exponential" or "piecewise".
      callback: a key of `CALLBACKS`, or None.
      policy: of Keras dtypes.
      pipeline: whether the data is a `tf.data.Dataset`, else arrays.
      examples, batch: sizes; the last batch of an epoch may be short.
      steps: of the training.
      interrupted: the step after which another Trainer goes on, or None.
      jit_compile: of Termwise.
    """

    model: str = "dense"
    frozen: tuple[str, ...] = ()
    regularizer: str | None = None
    activity: bool = False
    loss: str = "mse"
    reduction: str = "sum_over_batch_size"
    weights: str | None = None
    class_weight: bool = False
    optimizer: str = "SGD"
    settings: tuple[tuple[str, Any], ...] = ()
    schedule: str | None = None
    callback: str | None = None
    policy: str = "float32"
    pipeline: bool = True
    examples: int = 16
    batch: int = 8
    steps: int = 4
    interrupted: int | None = None
    jit_compile: bool = False

    @property
    def labels(self) -> str:
        return LOSSES[self.loss].labels

    @property
    def accumulated(self) -> int | None:
        """Steps per update, where there are several."""
        return dict(self.settings).get("gradient_accumulation_steps")


class PoissonOfLogits(keras.losses.Poisson):
    """Of outputs made positive: the logarithm of others is no number, under Keras too."""

    def call(self, y_true, y_pred):
        return super().call(y_true, keras.ops.softplus(y_pred))


@dataclass(frozen=True)
class LossKind:
    """A loss: its Keras class, its arguments, the labels that it takes."""

    make: Callable[..., keras.losses.Loss]
    labels: str  # "numbers", "ids", "one-hot", "binary"
    arguments: dict = field(default_factory=dict)


LOSSES = {
    "mse": LossKind(keras.losses.MeanSquaredError, "numbers"),
    "mae": LossKind(keras.losses.MeanAbsoluteError, "numbers"),
    "huber": LossKind(keras.losses.Huber, "numbers", {"delta": 0.7}),
    "log_cosh": LossKind(keras.losses.LogCosh, "numbers"),
    "cosine": LossKind(keras.losses.CosineSimilarity, "numbers"),
    "sparse": LossKind(keras.losses.SparseCategoricalCrossentropy, "ids", {"from_logits": True}),
    "ignoring": LossKind(
        keras.losses.SparseCategoricalCrossentropy,
        "ids",
        {"from_logits": True, "ignore_class": 1},
    ),
    "crossentropy": LossKind(
        keras.losses.CategoricalCrossentropy,
        "one-hot",
        {"from_logits": True, "label_smoothing": 0.1},
    ),
    "focal": LossKind(keras.losses.CategoricalFocalCrossentropy, "one-hot", {"from_logits": True}),
    "binary": LossKind(keras.losses.BinaryCrossentropy, "binary", {"from_logits": True}),
    "hinge": LossKind(keras.losses.Hinge, "binary"),
    "poisson": LossKind(PoissonOfLogits, "binary"),
}


def make_loss(program: Program) -> Any:
    """As `Model.compile` takes it; of two outputs a dict."""
    kind = LOSSES[program.loss]
    loss = kind.make(reduction=program.reduction, **kind.arguments)
    return {"first": loss, "second": "mse"} if program.model == "two_outputs" else loss


def make_optimizer(program: Program) -> keras.optimizers.Optimizer:
    """With a learning rate, a schedule, or what the settings say."""
    settings = dict(program.settings)
    rate: Any = settings.pop("learning_rate", 0.02)
    if program.schedule == "exponential":
        rate = keras.optimizers.schedules.ExponentialDecay(rate, 2, 0.7)
    elif program.schedule == "piecewise":
        rate = keras.optimizers.schedules.PiecewiseConstantDecay([1, 3], [rate, rate / 2, rate])
    return getattr(keras.optimizers, program.optimizer)(learning_rate=rate, **settings)


def make_metrics(program: Program) -> Any:
    kinds = {"ids": "accuracy", "one-hot": "accuracy", "binary": "mae", "numbers": "mae"}
    name = kinds[program.labels]
    return {"first": [name]} if program.model == "two_outputs" else [name]


def make_callbacks(program: Program) -> list[keras.callbacks.Callback]:
    return [] if program.callback is None else [CALLBACKS[program.callback]()]


CALLBACKS: dict[str, Callable[[], keras.callbacks.Callback]] = {
    "rate": lambda: keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5**epoch),
    "plateau": lambda: keras.callbacks.ReduceLROnPlateau("val_loss", 0.1, 1, min_delta=1.0),
    "stopping": lambda: keras.callbacks.EarlyStopping("val_loss", 1.0, 1, mode="min"),
    "best": lambda: keras.callbacks.EarlyStopping(
        "val_loss", 1.0, 1, mode="min", restore_best_weights=True
    ),
}


def make_model(program: Program) -> keras.Model:
    """Of equal weights for equal programs."""
    keras.utils.set_random_seed(3)
    model = MODELS[program.model](program)
    for layer in model.layers:
        if layer.name in program.frozen:
            layer.trainable = False
    return model


def _first(program, **arguments) -> dict:
    regularizers = {
        "l1": keras.regularizers.L1(0.01),
        "l2": keras.regularizers.L2(0.01),
        "orthogonal": keras.regularizers.OrthogonalRegularizer(0.01),
    }
    if program.regularizer:
        arguments["kernel_regularizer"] = regularizers[program.regularizer]
    if program.activity:
        arguments["activity_regularizer"] = keras.regularizers.L2(0.01)
    return arguments


def _outputs(program, width=CLASSES, name="out"):
    return keras.layers.Dense(width, name=name, dtype="float32")


def _dense(program):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((FEATURES,)),
            layers.Dense(6, activation="tanh", name="hidden", **_first(program)),
            layers.Dense(6, activation="gelu", name="middle"),
            _outputs(program),
        ]
    )


def _normalized(program):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((FEATURES,)),
            layers.Dense(6, use_bias=False, name="hidden", **_first(program)),
            layers.BatchNormalization(synchronized=True, name="middle"),
            layers.Activation("tanh"),
            layers.LayerNormalization(),
            _outputs(program),
        ]
    )


def _convolutional(program):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((FEATURES,)),
            layers.Reshape((FEATURES, 1)),
            layers.Conv1D(4, 3, activation="tanh", name="hidden", **_first(program)),
            layers.Conv1D(3, 2, name="middle"),
            layers.GlobalAveragePooling1D(),
            _outputs(program),
        ]
    )


def _shared(program):
    layers = keras.layers
    x = keras.Input((FEATURES,))
    widened = layers.Dense(6, activation="tanh", name="hidden", **_first(program))(x)
    middle = layers.Dense(6, activation="tanh", name="middle")
    return keras.Model(x, _outputs(program)(middle(middle(widened))))


def _nested(program):
    layers = keras.layers
    x = keras.Input((FEATURES,))
    hidden = layers.Dense(6, activation="tanh", name="inner_hidden", **_first(program))(x)
    inner = keras.Model(x, layers.Dense(4)(hidden), name="hidden")
    y = keras.Input((FEATURES,))
    middle = layers.Dense(4, activation="tanh", name="middle")(inner(y))
    return keras.Model(y, _outputs(program)(middle))


def _recurrent(program):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((STEPS_OF_TIME,), dtype="int32"),
            layers.Embedding(WORDS, 4, mask_zero=True, name="hidden"),
            layers.GRU(5, name="middle", **_first(program)),
            _outputs(program),
        ]
    )


def _sequences(program):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((STEPS_OF_TIME,), dtype="int32"),
            layers.Embedding(WORDS, 4, mask_zero=True, name="hidden"),
            layers.LSTM(5, return_sequences=True, name="middle", **_first(program)),
            _outputs(program),
        ]
    )


@keras.saving.register_keras_serializable("termwise_differential")
class Counting(keras.layers.Layer):
    """Counts its calls in training, and adds a loss of its activations."""

    def build(self, shape):
        self.count = self.add_weight(shape=(), trainable=False, name="count")

    def call(self, x, training=False):
        if training:
            self.count.assign_add(1.0)
        self.add_loss(0.05 * keras.ops.mean(keras.ops.square(x)))
        return x


def _counting(program):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((FEATURES,)),
            layers.Dense(6, activation="tanh", name="hidden", **_first(program)),
            Counting(name="middle"),
            _outputs(program),
        ]
    )


def _two_outputs(program):
    layers = keras.layers
    x = keras.Input((FEATURES,))
    hidden = layers.Dense(6, activation="tanh", name="hidden", **_first(program))(x)
    middle = layers.Dense(6, activation="tanh", name="middle")(hidden)
    first = _outputs(program, name="first")(middle)
    return keras.Model(x, {"first": first, "second": _outputs(program, 1, "second")(hidden)})


MODELS: dict[str, Callable[[Program], keras.Model]] = {
    "dense": _dense,
    "normalized": _normalized,
    "convolutional": _convolutional,
    "shared": _shared,
    "nested": _nested,
    "recurrent": _recurrent,
    "sequences": _sequences,
    "counting": _counting,
    "two_outputs": _two_outputs,
}


def make_data(program: Program) -> tuple:
    """(x, y) or (x, y, sample weights), numpy; the same for equal programs."""
    rng = np.random.default_rng(7)
    n = program.examples
    shape = (n, STEPS_OF_TIME) if program.model == "sequences" else (n,)
    if program.model in ("recurrent", "sequences"):
        x = rng.integers(1, WORDS, (n, STEPS_OF_TIME)).astype("int32")
        lengths = rng.integers(1, STEPS_OF_TIME + 1, (n, 1))
        x[np.arange(STEPS_OF_TIME) >= lengths] = 0
    else:
        x = rng.normal(size=(n, FEATURES)).astype("float32")
    y: Any = _labels(rng, program.labels, shape)
    weights: Any = None
    if program.weights:
        weights = rng.uniform(0.5, 2, n).astype("float32")
        if program.weights == "some":
            weights[::3] = 0
    if program.model == "two_outputs":
        y = {"first": y, "second": rng.normal(size=(n, 1)).astype("float32")}
        weights = weights if weights is None else {"first": weights, "second": weights[::-1]}
    return (x, y) if weights is None else (x, y, weights)


def _labels(rng, kind, shape):
    ids = rng.integers(0, CLASSES, shape).astype("int32")
    if kind == "ids":
        return ids
    if kind == "one-hot":
        return np.eye(CLASSES, dtype="float32")[ids]
    if kind == "binary":
        return rng.integers(0, 2, (*shape, CLASSES)).astype("float32")
    return rng.normal(size=(*shape, CLASSES)).astype("float32")


def class_weights(program: Program) -> dict[int, float] | None:
    return {0: 0.5, 1: 1.0, 2: 2.5} if program.class_weight else None
