"""A line through points of which 30 % are wrong: robust losses find it, squared error does not.

    y = x β + β₀ + noise of size 0.1;  30 % of the labels are off by 2 to 10, up or down

Four losses fit the same linear model: squared error; Charbonnier's, which is near the absolute
error; the likelihood of Student's t with learned tails and scale; Barron's adaptive loss, which
learns its shape. The coefficients are known, so that what each loss finds can be measured.
"""

from __future__ import annotations

import keras
import numpy as np

import losses
from experiments.experiment import Check, Experiment, fit_settings
from trainer import Trainer

TRUE = np.array([1.5, -2.0, 3.0, -1.0, 2.5, 2.0])  # the last is the intercept
NOISE, OUTLIERS = 0.1, 0.3

LOSSES = {
    "squared": lambda: "mse",
    "charbonnier": lambda: losses.Charbonnier(epsilon=NOISE),
    "student_t": lambda: losses.StudentTNLL(trainable=True),
    "adaptive": lambda: losses.AdaptiveRobust(num_channels=1),
}


def contaminated_line(seed: int, examples: int = 2000):
    """x float32 [examples, 5], y float32 [examples, 1], and which are outliers, bool [examples]."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(examples, 5))
    y = x @ TRUE[:-1] + TRUE[-1] + random.normal(scale=NOISE, size=examples)
    outlier = random.permutation(examples) < OUTLIERS * examples
    sign = np.where(random.random(examples) < 0.6, 1, -1)  # more of them up: a bias, not only noise
    y = y + outlier * sign * random.uniform(2.0, 10.0, size=examples)
    return x.astype("float32"), y[:, None].astype("float32"), outlier


def coefficients(model) -> np.ndarray:
    """float64 [6], as TRUE has them."""
    line = model.get_layer("line")
    return np.append(line.kernel.numpy()[:, 0], line.bias.numpy()).astype("float64")


def experiment(config, *, strategy, workdir) -> Experiment:
    """The loss of `config.loss`, on all examples at once.

    Args:
      config: ConfigDict of `experiments/configs/robust_regression.py`.
      strategy: str or `tf.distribute.Strategy`.
      workdir: str, or None to keep nothing.
    """
    keras.utils.set_random_seed(config.seed)
    x, y, outlier = contaminated_line(config.seed)
    rate = keras.optimizers.schedules.CosineDecay(config.optimizer.learning_rate, config.steps)
    trainer = Trainer(
        lambda: keras.Sequential([keras.Input((5,)), keras.layers.Dense(1, name="line")]),
        optimizer=keras.optimizers.Adam(rate),
        loss=LOSSES[config.loss](),
        strategy=strategy,
        workdir=workdir,
        seed=config.seed,
        config=config.to_dict(),
    )
    bound = None if config.loss == "squared" else 0.02

    def check(trainer):
        off = np.abs(coefficients(trainer.model) / TRUE - 1)
        return {"largest relative error of a coefficient": Check(off.max(), at_most=bound)}

    def picture(trainer):
        return draw(config.loss, y - trainer.predict(x), outlier)

    return Experiment(trainer, (x, y), fit=fit_settings(config), check=check, picture=picture)


def draw(loss: str, residuals, outlier):
    """How far the labels lie from the line that was found, outliers apart."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    bins = np.linspace(-11, 11, 89).tolist()
    axes.hist(
        [residuals[~outlier, 0], residuals[outlier, 0]],
        bins,
        stacked=True,
        label=["70 % of the labels", "30 % that are wrong"],
        color=["tab:blue", "tab:red"],
    )
    axes.set(xlabel="label - line that was found", ylabel="examples", yscale="log", title=loss)
    axes.legend(fontsize=8)
    return figure
