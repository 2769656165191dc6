"""Sequences with 100 outputs, of which few matter: weights per output and per example in the loss.

A recurrent network of known weights makes the labels; a much smaller LSTM learns them, and cannot
learn all. What it should learn is said inside the loss:

    loss = sum_ij s_i d_j (y_ij - ŷ_ij)² / sum_ij s_i d_j

d_j falls from output to output; s_i is an example's precision: half of the labels are noisy. With
`config.variant` "labels" the products s_i d_j come with the labels, one weight for each element;
with "loss" d is an argument of the loss and s the sample weights: both are the same objective.
"unweighted" is plain squared error. What is exported knows no weights.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import losses
from experiments.experiment import Check, Experiment, fit_settings
from trainer import Trainer

STEPS, FEATURES, OUTPUTS = 10, 4, 100
OF_OUTPUT = 1.0 / (1.0 + np.arange(OUTPUTS)) ** 1.5  # d_j


def sequences(seed: int, examples: int, noisy: bool = True):
    """x float32 [examples, 10, 4], y float32 [examples, 100], s float32 [examples].

    The network that makes y is always the same; the noise of half of the labels has size 1, and
    their weight s is a tenth of the others'.
    """
    network, random = np.random.default_rng(2024), np.random.default_rng(seed)
    kernel = network.normal(size=(FEATURES, 32))
    recurrent = np.linalg.qr(network.normal(size=(32, 32)))[0] * 0.9
    output = network.normal(size=(32, OUTPUTS)) / np.sqrt(32)
    x = random.normal(size=(examples, STEPS, FEATURES))
    state = np.zeros((examples, 32))
    for step in range(STEPS):
        state = np.tanh(x[:, step] @ kernel * 0.5 + state @ recurrent)
    s = np.where(random.random(examples) < 0.5, 1.0, 0.1)
    y = state @ output
    if noisy:
        y = y + random.normal(size=y.shape) * (s < 1)[:, None]
    return x.astype("float32"), y.astype("float32"), s.astype("float32")


def data_of(variant: str, x, y, s):
    """The data as the loss of a variant takes them."""
    if variant == "labels":
        return x, {"target": y, "weights": (s[:, None] * OF_OUTPUT).astype("float32")}
    return (x, y, s) if variant == "loss" else (x, y)


def loss_of(variant: str):
    """The loss of a variant."""
    if variant == "unweighted":
        return "mse"
    weights = None if variant == "labels" else OF_OUTPUT.tolist()
    return losses.WeightedMSE(weights=weights, reduction_point="batch")


def build_model(units: int) -> keras.Model:
    """x [10, 4] -> [100]."""
    return keras.Sequential(
        [
            keras.Input((STEPS, FEATURES)),
            keras.layers.LSTM(units, name="memory"),
            keras.layers.Dense(OUTPUTS, name="outputs"),
        ]
    )


def exported_outputs(trainer, x):
    """The outputs of the exported model, once as TensorFlow serves it and once as Keras loads it.

    The exported model knows no weights, and neither the labels nor the loss.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = trainer.export(Path(folder, "export"))
        served = tf.saved_model.load(path)
        return served.serve(x).numpy(), keras.models.load_model(path / "model.keras").predict(
            x, verbose=0
        )


def experiment(config, *, strategy, workdir) -> Experiment:
    """The objective of `config.variant`.

    Args:
      config: ConfigDict of `experiments/configs/weighted_sequence.py`.
      strategy: str or `tf.distribute.Strategy`.
      workdir: str, or None to keep nothing.
    """
    keras.utils.set_random_seed(config.seed)
    train, validation = (
        data_of(config.variant, *sequences(1000 * part + config.seed, examples))
        for part, examples in ((1, 2000), (2, 500))
    )
    rate = keras.optimizers.schedules.CosineDecay(config.optimizer.learning_rate, config.steps)
    trainer = Trainer(
        lambda: build_model(config.units),
        optimizer=keras.optimizers.Adam(rate),
        loss=loss_of(config.variant),
        strategy=strategy,
        workdir=workdir,
        seed=config.seed,
        config=config.to_dict(),
    )
    x, y, _ = sequences(3000 + config.seed, 1000, noisy=False)  # the test: what is true, and alike

    def check(trainer):
        predicted = trainer.predict(x)
        served, loaded = exported_outputs(trainer, x)
        error = np.mean((predicted - y) ** 2, axis=0)
        return {
            "weighted error": Check(np.average(error, weights=OF_OUTPUT)),
            "error, all outputs alike": Check(error.mean()),
            "exported: largest difference": Check(
                max(np.abs(served - predicted).max(), np.abs(loaded - predicted).max()),
                at_most=1e-5,
            ),
        }

    def picture(trainer):
        return draw(config.variant, np.mean((trainer.predict(x) - y) ** 2, axis=0))

    return Experiment(
        trainer, train, validation, fit=fit_settings(config), check=check, picture=picture
    )


def draw(variant: str, error):
    """Each output's error beside its weight."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(error, ".", label="squared error, test data")
    axes.plot(OF_OUTPUT, color="0.6", label="weight")
    axes.set(xlabel="output", yscale="log", title=variant)
    axes.legend()
    return figure
