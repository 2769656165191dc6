"""Digits of which one is rare: 2 % of the training data, a tenth of what one wants to recognise.

Plain cross-entropy hardly pays for missing the rare digit. Three ways to make it pay:

    focal           -alpha_t (1 - p_t)² log p_t, alpha the class's weight
    class_weight    `fit(class_weight=)`: the class's weight times the cross-entropy
    sample_weight   the same weights, given as the third part of the data

A class's weight is examples / (classes · examples of the class). All train equally long on the same
examples; the seed moves the initial weights and the batches.
"""

from __future__ import annotations

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import losses
from experiments.experiment import Check, Experiment, fit_settings
from trainer import Trainer

RARE, SHARE = 8, 0.02
RECALL = "recall of the rare digit"


def rare_digits():
    """scikit-learn's digits in three parts; in the first the digit RARE has a share of SHARE.

    Returns:
      dict: "train", "validation", "test" -> (x float32 [examples, 64] of 0 to 1, y int32
      [examples]); always the same ones. The other parts have as many of every digit.
    """
    x, y = load_digits(return_X_y=True)
    x, y = (x / 16).astype("float32"), y.astype("int32")
    x, x_rest, y, y_rest = train_test_split(x, y, test_size=0.5, stratify=y, random_state=0)
    x_validation, x_test, y_validation, y_test = train_test_split(
        x_rest, y_rest, test_size=0.6, stratify=y_rest, random_state=0
    )
    others = np.flatnonzero(y != RARE)
    rare = np.flatnonzero(y == RARE)[: round(SHARE / (1 - SHARE) * len(others))]
    kept = np.sort(np.concatenate([others, rare]))
    return {
        "train": (x[kept], y[kept]),
        "validation": (x_validation, y_validation),
        "test": (x_test, y_test),
    }


def class_weights(y) -> np.ndarray:
    """float32 [10], of each class: all together weigh what they weigh in balanced data."""
    return (len(y) / (10 * np.bincount(y, minlength=10))).astype("float32")


def build_model(hidden: int) -> keras.Model:
    """x [64] -> the logits [10]."""
    return keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(hidden, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


def loss_of(config, weights):
    """The focal loss with the classes' weights, or plain cross-entropy."""
    if config.variant == "focal":
        return losses.SparseFocal(gamma=config.focal_gamma, alpha=weights.tolist())
    return losses.SparseCrossentropy(from_logits=True)


def checks(y, found, aimed: float | None) -> dict[str, Check]:
    """What was found of some digits; of the rare one, at least `aimed`."""
    rare, taken = y == RARE, found == RARE
    return {
        RECALL: Check(np.mean(taken[rare]), at_least=aimed),
        "precision of the rare digit": Check(np.sum(rare & taken) / max(1, np.sum(taken))),
        "accuracy": Check(np.mean(found == y)),
    }


def experiment(config, *, strategy, workdir) -> Experiment:
    """The objective of `config.variant`.

    Args:
      config: ConfigDict of `experiments/configs/imbalanced.py`.
      strategy: str or `tf.distribute.Strategy`.
      workdir: str, or None to keep nothing.
    """
    keras.utils.set_random_seed(config.seed)
    data = rare_digits()
    x, y = data["train"]
    weights = class_weights(y)
    rate = keras.optimizers.schedules.CosineDecay(config.optimizer.learning_rate, config.steps)
    trainer = Trainer(
        lambda: build_model(config.hidden),
        optimizer=keras.optimizers.Adam(rate),
        loss=loss_of(config, weights),
        metrics=["accuracy"],
        strategy=strategy,
        workdir=workdir,
        seed=config.seed,
        config=config.to_dict(),
    )
    fit = fit_settings(config)
    if config.variant == "class_weight":
        fit["class_weight"] = {digit: float(weight) for digit, weight in enumerate(weights)}
    x_test, y_test = data[config.tested]
    aimed = None if config.variant == "plain" else 0.5

    def check(trainer):
        return checks(y_test, trainer.predict(x_test).argmax(-1), aimed)

    def picture(trainer):
        return draw(config.variant, y_test, trainer.predict(x_test).argmax(-1))

    return Experiment(
        trainer,
        (x, y, weights[y]) if config.variant == "sample_weight" else (x, y),
        data["validation"],
        data["test"],
        fit=fit,
        check=check,
        picture=picture,
    )


def draw(variant: str, y, found):
    """The recall of each digit."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 2.6), layout="constrained")
    axes = figure.subplots()
    recall = [np.mean(found[y == digit] == digit) for digit in range(10)]
    axes.bar(range(10), recall, color=["tab:red" if k == RARE else "0.7" for k in range(10)])
    axes.set(xlabel="digit", ylabel="recall, test data", xticks=range(10), ylim=(0, 1))
    axes.set_title(f"{variant}; the digit {RARE} is {SHARE:.0%} of the training data")
    return figure
