"""A parameter `a` inside a loss of one's own, trained with the model: downhill, or uphill.

Downhill, `a` is the size of the noise, and the loss a Gaussian likelihood:

    loss = (y - ŷ)² / (2 a²) + log a        least at   a² = mean (y - ŷ)²

Uphill, `a` is a weight that grows with the error, as self-adaptive weights do:

    loss = a (y - ŷ)² - a² / 2              greatest at   a = mean (y - ŷ)²

In both the model is a line whose best coefficients are those of least squares, so that the whole
solution is known: numpy gives it. Nothing is declared: the Trainer finds `a`, trains, logs and
saves it.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

import losses
from experiments.experiment import Check, Experiment, fit_settings
from trainer import Trainer

TRUE = np.array([1.5, -2.0, 0.5])  # of the data that are generated


class NoiseOfItsOwn(keras.losses.Loss):
    """(y - ŷ)² / (2 a²) + log a, in which `a` is trained."""

    def __init__(self, a=1.0, name="noise_of_its_own"):
        super().__init__(name=name)
        self.a = losses.Parameter("a", a, constraint="non_neg")

    def call(self, y_true, y_pred):
        a = tf.convert_to_tensor(self.a)
        return tf.square(y_true - y_pred) / (2 * tf.square(a)) + tf.math.log(a)


class WeightOfItsOwn(keras.losses.Loss):
    """a (y - ŷ)² - a² / 2, which the model descends and `a` ascends."""

    def __init__(self, a=1.0, name="weight_of_its_own"):
        super().__init__(name=name)
        self.a = losses.Parameter("a", a, maximize=True)

    def call(self, y_true, y_pred):
        a = tf.convert_to_tensor(self.a)
        return a * tf.square(y_true - y_pred) - tf.square(a) / 2


LOSSES = {"descent": NoiseOfItsOwn, "ascent": WeightOfItsOwn}


def noisy_line(seed: int, examples: int = 256):
    """x float32 [examples, 3], y float32 [examples, 1]: a line of TRUE, with noise of size 0.7."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(examples, 3))
    y = x @ TRUE + 0.25 + random.normal(scale=0.7, size=examples)
    return x.astype("float32"), y[:, None].astype("float32")


def solution(x, y, direction: str):
    """The coefficients [4], that of the intercept last, and `a`, by least squares in float64."""
    columns = np.column_stack([x, np.ones(len(x))]).astype("float64")
    coefficients = np.linalg.lstsq(columns, y[:, 0].astype("float64"), rcond=None)[0]
    error = np.mean((y[:, 0] - columns @ coefficients) ** 2)
    return coefficients, np.sqrt(error) if direction == "descent" else error


def experiment(config, *, strategy, workdir) -> Experiment:
    """The loss of `config.direction`, on all examples at once.

    Args:
      config: ConfigDict of `experiments/configs/trainable_loss.py`.
      strategy: str or `tf.distribute.Strategy`.
      workdir: str, or None to keep nothing.
    """
    keras.utils.set_random_seed(config.seed)
    x, y = noisy_line(config.seed)
    coefficients, best = solution(x, y, config.direction)
    rate = keras.optimizers.schedules.CosineDecay(config.optimizer.learning_rate, config.steps)
    trainer = Trainer(
        lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="line")]),
        optimizer=keras.optimizers.Adam(rate),
        loss=LOSSES[config.direction](config.start),
        strategy=strategy,
        workdir=workdir,
        seed=config.seed,
        config=config.to_dict(),
    )

    def check(trainer):
        (a,) = trainer.loss_parameters.values()
        line = trainer.model.get_layer("line")
        found = np.append(line.kernel.numpy()[:, 0], line.bias.numpy())
        return {
            "a": Check(a.numpy()),
            "a: distance from the solution": Check(abs(a.numpy() - best), at_most=1e-3),
            "coefficients: largest distance": Check(
                np.abs(found - coefficients).max(), at_most=1e-3
            ),
        }

    def picture(trainer):
        (a,) = trainer.loss_parameters.values()
        return draw(config.direction, np.mean((y - trainer.predict(x)) ** 2), a.numpy())

    return Experiment(trainer, (x, y), fit=fit_settings(config), check=check, picture=picture)


def draw(direction: str, error: float, a: float):
    """The loss as a function of `a`, at the model that was found, and the `a` that was found."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    at = np.linspace(0.4, 1.6, 200) * a
    if direction == "descent":
        value = error / (2 * at**2) + np.log(at)
    else:
        value = at * error - at**2 / 2
    axes.plot(at, value, label="loss at the model found")
    axes.axvline(a, color="tab:red", linestyle="--", label=f"a found: {a:.4f}")
    axes.set(xlabel="a", ylabel="loss", title=direction)
    axes.legend()
    return figure
