"""One replica, no further terms: training equals `Model.fit` on the same batches."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import Trainer

STEPS = 12


def dense_model(**output):
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="tanh", kernel_initializer=_init(1)),
            keras.layers.Dense(3, kernel_initializer=_init(2), **output),
        ]
    )


def regularized_model():
    l2 = keras.regularizers.L2(0.01)
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(
                8,
                activation="tanh",
                kernel_initializer=_init(1),
                kernel_regularizer=l2,
                activity_regularizer=keras.regularizers.L1(0.01),
            ),
            keras.layers.Dense(3, kernel_initializer=_init(2), bias_regularizer=l2),
        ]
    )


def normalized_model():
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, kernel_initializer=_init(1)),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3, seed=5),
            keras.layers.Dense(3, kernel_initializer=_init(2)),
        ]
    )


def masked_model():
    return keras.Sequential(
        [
            keras.Input((7,), dtype="int32"),
            keras.layers.Embedding(11, 5, mask_zero=True, embeddings_initializer=_init(3)),
            keras.layers.GRU(
                4,
                return_sequences=True,
                kernel_initializer=_init(4),
                recurrent_initializer=_init(5),
            ),
            keras.layers.Dense(3, kernel_initializer=_init(2)),
        ]
    )


def two_headed_model():
    x = keras.Input((6,))
    h = keras.layers.Dense(8, activation="tanh", kernel_initializer=_init(1))(x)
    a = keras.layers.Dense(3, name="a", kernel_initializer=_init(2))(h)
    b = keras.layers.Dense(1, name="b", kernel_initializer=_init(3))(h)
    return keras.Model(x, {"a": a, "b": b})


def two_listed_model():
    inner = two_headed_model()
    return keras.Model(inner.inputs, [inner.output["a"], inner.output["b"]])


def _init(seed):
    return keras.initializers.GlorotUniform(seed=seed)


def regression(batches=4, batch=9, short=5):
    rng = np.random.default_rng(0)
    n = batch * (batches - 1) + short
    x = rng.normal(size=(n, 6)).astype("float32")
    return x, rng.normal(size=(n, 3)).astype("float32"), rng, n, batch


def plain():
    x, y, _, _, batch = regression()
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch)


def even():
    x, y, _, _, batch = regression()
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch, drop_remainder=True)


def weighted():
    x, y, rng, n, batch = regression()
    w = rng.uniform(0, 3, n).astype("float32")
    return tf.data.Dataset.from_tensor_slices((x, y, w)).batch(batch)


def labelled():
    x, y, _, _, batch = regression()
    return tf.data.Dataset.from_tensor_slices((x, y.argmax(-1))).batch(batch)


def sequences(weights=None):
    _, _, rng, n, batch = regression()
    x = rng.integers(0, 11, (n, 7)).astype("int32")
    y = rng.integers(0, 3, (n, 7)).astype("int32")
    if weights is None:
        return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch)
    w = rng.uniform(0.5, 2, (n, 7)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((x, y, w)).batch(batch)


def two_labels(kind=dict):
    x, y, rng, n, batch = regression()
    b = rng.normal(size=(n, 1)).astype("float32")
    labels = {"a": y, "b": b} if kind is dict else (y, b)
    return tf.data.Dataset.from_tensor_slices((x, labels)).batch(batch)


def sgd(**arguments):
    return keras.optimizers.SGD(0.05, momentum=0.9, **arguments)


def adam(**arguments):
    return keras.optimizers.Adam(0.01, **arguments)


def scheduled():
    return keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 10))


class Custom(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return tf.reduce_mean(tf.abs(y_true - y_pred) ** 1.5, -1)


sparse = keras.losses.SparseCategoricalCrossentropy

CASES = {
    "sgd with momentum": dict(optimizer=sgd, loss="mse"),
    "adam": dict(optimizer=adam, loss="mse"),
    "clip by norm": dict(optimizer=lambda: sgd(clipnorm=0.05), loss="mse"),
    "clip by value": dict(optimizer=lambda: adam(clipvalue=0.01), loss="mse"),
    "clip by global norm": dict(optimizer=lambda: sgd(global_clipnorm=0.1), loss="mse"),
    "moving averages": dict(optimizer=lambda: adam(use_ema=True, ema_momentum=0.8), loss="mse"),
    "moving averages that overwrite": dict(
        optimizer=lambda: sgd(use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=3),
        loss="mse",
    ),
    "weight decay": dict(
        optimizer=lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1), loss="mse"
    ),
    "a learning-rate schedule": dict(optimizer=scheduled, loss="mse"),
    # over even batches: of uneven ones Keras takes the mean of means (test_accumulation.py)
    "gradient accumulation": dict(
        optimizer=lambda: adam(gradient_accumulation_steps=3), loss="mse", data=even
    ),
    "sample weights": dict(optimizer=adam, loss="mse", data=weighted),
    "weights' mean": dict(
        optimizer=adam,
        loss=lambda: keras.losses.Huber(reduction="mean_with_sample_weight"),
        data=weighted,
    ),
    "a sum": dict(optimizer=adam, loss=lambda: keras.losses.MeanAbsoluteError(reduction="sum")),
    "class weights": dict(
        optimizer=adam,
        loss=lambda: sparse(from_logits=True),
        data=labelled,
        fit=dict(class_weight={0: 0.2, 2: 3.0}),
    ),
    "an ignored class": dict(
        optimizer=adam, loss=lambda: sparse(from_logits=True, ignore_class=1), data=labelled
    ),
    "a function": dict(
        optimizer=adam, loss=lambda: lambda t, p: tf.reduce_mean(tf.square(t - p), axis=-1)
    ),
    "a scalar function": dict(
        optimizer=adam, loss=lambda: lambda t, p: tf.sqrt(tf.reduce_mean(tf.square(t - p)))
    ),
    "a scalar function with weights": dict(
        optimizer=adam,
        loss=lambda: lambda t, p: tf.sqrt(tf.reduce_mean(tf.square(t - p))),
        data=weighted,
    ),
    "a Loss subclass": dict(optimizer=adam, loss=Custom),
    "regularizers": dict(optimizer=adam, loss="mse", model=regularized_model),
    "batch normalization and dropout": dict(optimizer=adam, loss="mse", model=normalized_model),
    "a mask": dict(
        optimizer=adam,
        loss=lambda: sparse(from_logits=True),
        model=masked_model,
        data=sequences,
    ),
    "a mask and weights per time step": dict(
        optimizer=adam,
        loss=lambda: sparse(from_logits=True, reduction="mean_with_sample_weight"),
        model=masked_model,
        data=lambda: sequences("some"),
    ),
    "two outputs by name": dict(
        optimizer=adam,
        loss=lambda: {"a": "mse", "b": "mae"},
        loss_weights={"a": 0.3, "b": 2.0},
        model=two_headed_model,
        data=two_labels,
    ),
    "two outputs in a list": dict(
        optimizer=adam,
        loss=lambda: ["mse", "mae"],
        loss_weights=[0.3, 2.0],
        model=two_listed_model,
        data=lambda: two_labels(tuple),
    ),
    "one loss for two outputs": dict(
        optimizer=adam, loss="mse", model=two_headed_model, data=two_labels
    ),
    "a loss for one of two outputs": dict(
        optimizer=adam,
        loss=lambda: {"a": "mse", "b": None},
        model=two_headed_model,
        data=two_labels,
    ),
    "loss scaling": dict(
        optimizer=lambda: keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(0.05), initial_scale=2.0**10, dynamic_growth_steps=4
        ),
        loss="mse",
    ),
    "a static loss scale": dict(optimizer=lambda: adam(loss_scale_factor=64.0), loss="mse"),
}


class LossOfEachStep(keras.callbacks.Callback):
    """Keras shows the mean since the epoch began; begun anew at each step it is the step's."""

    def __init__(self):
        super().__init__()
        self.losses = []

    def on_train_batch_begin(self, batch, logs=None):
        self.model.reset_metrics()

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(logs["loss"]))


# both say that nothing reaches output b
@pytest.mark.filterwarnings("ignore:Gradients do not exist", "ignore:No term reaches")
@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", CASES)
def test_training_equals_model_fit(name):
    case = CASES[name]
    build, data = case.get("model", dense_model), case.get("data", plain)()
    loss = case["loss"]() if callable(case["loss"]) else case["loss"]
    other_loss = case["loss"]() if callable(case["loss"]) else case["loss"]
    weights = case.get("loss_weights")
    arguments = case.get("fit", {})

    model = build()
    model.compile(optimizer=case["optimizer"](), loss=other_loss, loss_weights=weights)
    recorder = LossOfEachStep()
    model.fit(
        data.repeat(),
        epochs=1,
        steps_per_epoch=STEPS,
        verbose=0,
        shuffle=False,
        callbacks=[recorder],
        **arguments,
    )

    ours = build()
    trainer = Trainer(ours, optimizer=case["optimizer"](), loss=loss, loss_weights=weights)
    history = trainer.fit(data, steps=STEPS, log_every=1, verbose=False, **arguments)

    totals = [row["total"] for row in history.rows]
    np.testing.assert_allclose(totals, recorder.losses, rtol=1e-6, atol=1e-7)
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    program = trainer._run.program
    with program.optimizers.averages(program.trainables.variables):
        # fit ends with the averages in place of the weights
        for mine, theirs in zip(ours.weights, model.weights, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-6, err_msg=mine.path)
    assert int(inner.iterations) == int(
        getattr(trainer.optimizer, "inner_optimizer", trainer.optimizer).iterations
    )
