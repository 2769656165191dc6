"""Metrics as Keras has them: late variables, weights, those of layers; on one replica and two."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import Trainer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(17, 4)).astype("float32")  # 8, 8 and 1: the second replica's last is padding
Y = (RNG.random((17, 3)) > 0.5).astype("float32")
W = RNG.uniform(0.0, 3.0, 17).astype("float32")
FIT = dict(epochs=1, batch_size=8, shuffle=False, verbose=False)


def make():
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "sigmoid")])


def measured(values):
    return {k.removeprefix("metrics/"): v for k, v in values.items() if k.startswith("metrics/")}


class Powers(keras.metrics.Metric):
    """A user's own: an argument that no configuration has, variables made at the first update."""

    def __init__(self, power, **arguments):
        super().__init__(**arguments)
        self.power, self.total = power, None

    def update_state(self, y_true, y_pred, sample_weight=None):
        if self.total is None:
            self.total = self.add_variable((), "zeros", name="total")
            self.weight = self.add_variable((), "zeros", name="weight")
        values = tf.reduce_mean(tf.abs(y_true - y_pred) ** self.power, -1)
        weight = tf.ones_like(values) if sample_weight is None else sample_weight
        self.total.assign_add(tf.reduce_sum(weight * values))
        self.weight.assign_add(tf.reduce_sum(weight))

    def result(self):
        return self.total / self.weight


def test_metrics_that_are_built_late_are_those_of_all_examples_on_two_replicas(two_replicas):
    trainer = Trainer(
        make,
        optimizer=keras.optimizers.SGD(0.0),
        loss="mse",
        metrics=[keras.metrics.F1Score(threshold=0.5), keras.metrics.R2Score(), Powers(3.0)],
        weighted_metrics=[Powers(2.0)],
        strategy=two_replicas,
    )
    found = measured(trainer.evaluate((X, Y, W), batch_size=8))
    errors = np.abs(trainer.predict(X) - Y)
    chosen = trainer.predict(X) > 0.5
    both = (chosen & (Y == 1)).sum(0)
    f1 = 2 * both / (chosen.sum(0) + (Y == 1).sum(0))
    r2 = 1 - (errors**2).sum(0) / ((Y - Y.mean(0)) ** 2).sum(0)
    expected = {
        **{f"f1_score/{index}": value for index, value in enumerate(f1)},
        "r2_score": r2.mean(),
        "powers": (errors**3).mean(),
        "weighted_powers": np.sum(W * (errors**2).mean(-1)) / W.sum(),
    }
    assert found == pytest.approx(expected, rel=1e-5)
    row = trainer.fit((X, Y, W), **FIT).rows[-1]
    assert measured(row) == pytest.approx(expected, rel=1e-5)


def test_xla_on_two_replicas_refuses_what_is_built_late(two_replicas):
    arguments = dict(optimizer="sgd", loss="mse", strategy=two_replicas, jit_compile=True)
    late = Trainer(make, metrics=[keras.metrics.F1Score()], **arguments)
    with pytest.raises(ValueError, match=r"variables at the first update.*pass jit_compile=False"):
        late.build((X, Y))
    Trainer(make, metrics=[keras.metrics.Precision()], **arguments).build((X, Y))


class Activity(keras.layers.Layer):
    """A layer that measures what it is given, as Keras's guides do; one metric is never updated."""

    def __init__(self):
        super().__init__()
        self.mean = keras.metrics.Mean(name="activity")
        self.never = keras.metrics.Mean(name="never")

    def call(self, x):
        self.mean.update_state(x)
        return x


def active():
    return keras.Sequential([keras.Input((4,)), Activity(), keras.layers.Dense(3)])


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_metric_of_a_layer_is_that_of_its_own_window_and_split(replicas, two_replicas):
    strategy = two_replicas if replicas == 2 else "one_device"
    trainer = Trainer(active, optimizer="sgd", loss="mse", strategy=strategy)
    data, held_out = (X, Y), (X[:5], Y[:5])
    fit = dict(steps=6, log_every=3, validate_every=2, validation_data=held_out)
    rows = trainer.fit(data, batch_size=8, shuffle=False, verbose=False, **fit).rows
    found = {
        split: [measured(r) for r in rows if r["split"] == split] for split in ("train", "eval")
    }
    assert found == {
        "train": [{"activity": pytest.approx(X.mean(), rel=1e-5)}] * 2,
        "eval": [{"activity": pytest.approx(X[:5].mean(), rel=1e-5)}] * 3,
    }


def test_weighted_metrics_are_weighted_by_output():
    inputs = keras.Input((4,))
    outputs = [keras.layers.Dense(1, name=name)(inputs) for name in ("a", "b")]
    trainer = Trainer(
        keras.Model(inputs, outputs),
        loss="mse",
        metrics={"a": "mae"},
        weighted_metrics={"a": ["mae"], "b": "mae"},
    )
    labels = Y[:, :1], Y[:, 1:2]
    found = measured(trainer.evaluate((X, labels, (W, W[::-1].copy()))))
    a, b = (np.abs(p - y)[:, 0] for p, y in zip(trainer.predict(X), labels, strict=True))
    assert found == pytest.approx(
        {
            "a_mae": a.mean(),
            "a_weighted_mae": np.sum(W * a) / W.sum(),
            "b_mae": np.sum(W[::-1] * b) / W.sum(),
        },
        rel=1e-5,
    )


def test_a_metric_is_called_alike_whatever_the_process_has_made():
    def names():
        return tuple(Trainer(make(), loss="mse", metrics=[Powers(1.0)]).evaluate((X, Y)))

    assert names() == names() and "metrics/powers" in names()


class Locked(Powers):
    def __init__(self):
        super().__init__(1.0)
        self.lock = threading.Lock()


def test_what_cannot_be_copied_is_named():
    with pytest.raises(ValueError, match="holds a Locked whose lock cannot be copied"):
        Trainer(make(), loss="mse", metrics=[Locked()])


def test_a_metric_shares_the_layers_it_reads():
    class Seen(Powers):
        def update_state(self, y_true, y_pred, sample_weight=None):
            super().update_state(self.net(y_true), self.net(y_pred))

    metric, net = Seen(1.0), keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    metric.net = net
    trainer = Trainer(make(), loss="mse", metrics=[metric])
    found = trainer.evaluate((X, Y))["metrics/seen"]
    expected = np.abs(net(Y) - net(trainer.predict(X))).mean()
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("metric", ["mse", keras.metrics.MeanSquaredError()])
def test_a_metric_of_keras_does_not_cut_complex_numbers(metric):
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Lambda(lambda x: tf.complex(x[:, :3], 1.0 + x[:, :3]))]
    )
    own = Trainer(model, loss=lambda t, p: tf.abs(p) ** 2, metrics=[lambda t, p: tf.abs(p)])
    found = own.evaluate((X, Y))["metrics/metric"]
    assert found == pytest.approx(np.abs(own.predict(X)).mean(), rel=1e-5)
    with pytest.raises(TypeError, match="takes real numbers, but the label or output is complex"):
        Trainer(model, loss=lambda t, p: tf.abs(p), metrics=[metric]).evaluate((X, Y))
