"""Two handwritten digits laid over each other: which one is on the left, which on the right.

Two tasks share a convolutional trunk and each has a head of its own. How their gradients become
one direction is the configuration's `balancer`; `experiments.two_digits_table` compares several.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from experiments.digits import split_digits
from experiments.experiment import Experiment, fit_settings
from losses import balancing
from losses.errors import TermwiseError
from trainer import Trainer

SIDE = 12  # pixels of the canvas
PLACES = {"left": (0, 1), "right": (3, 4)}  # of a digit's first row, and of its first column
PAIRS = {"train": 12_000, "validation": 2_000, "test": 4_000}

BALANCERS: dict[str, Callable[[], balancing.Balancer | None]] = {
    "equal": lambda: None,  # both weights are 1
    "uncertainty": lambda: balancing.Uncertainty(kind="classification"),
    "pcgrad": balancing.PCGrad,
    "cagrad": balancing.CAGrad,
    "mgda": balancing.MGDA,
    "fairgrad": balancing.FairGrad,
}


def overlay(left, right):
    """The digits' images on one canvas, the brighter pixel of the two.

    Args:
      left, right: pairs (image [8, 8], (row, column) of its first pixel).
    Returns:
      [12, 12], in the dtype of the left image.
    """
    canvas = np.zeros((SIDE, SIDE), left[0].dtype)
    for image, (row, column) in (left, right):
        part = canvas[row : row + 8, column : column + 8]
        np.maximum(part, image, out=part)
    return canvas


def pair_digits(images, labels, count: int, seed: int):
    """Random pairs of digits, overlaid, each moved by one pixel or not at all in both directions.

    Args:
      images: [digits, 8, 8, 1], of which pairs are drawn with replacement.
      labels: int [digits].
      count: the number of pairs.
      seed: int; the same one gives the same pairs.
    Returns:
      (x [count, 12, 12, 1], {"left": int32 [count], "right": int32 [count]}).
    """
    draw = np.random.default_rng(seed)
    chosen = draw.integers(len(images), size=(count, 2))
    moved = draw.integers(2, size=(count, 2, 2))
    x = np.zeros((count, SIDE, SIDE, 1), images.dtype)
    for i in range(count):
        digits = (
            (images[chosen[i, k], :, :, 0], tuple(PLACES[task][m] for m in moved[i, k]))
            for k, task in enumerate(PLACES)
        )
        x[i, :, :, 0] = overlay(*digits)
    y = {task: labels[chosen[:, k]].astype("int32") for k, task in enumerate(PLACES)}
    return x, y


def load_pairs():
    """The pairs of each split, made of that split's digits alone, always the same ones.

    Returns:
      dict: "train", "validation", "test" -> what `pair_digits` gives.
    """
    return {
        split: pair_digits(x, y, PAIRS[split], seed=number)
        for number, (split, (x, y)) in enumerate(split_digits().items())
    }


def make_balancer(name: str):
    """The balancer of a name of `BALANCERS`; None for equal weights.

    Raises:
      ValueError: no such name.
    """
    if name not in BALANCERS:
        raise TermwiseError(f"balancer={name!r}: accepted are {', '.join(map(repr, BALANCERS))}.")
    return BALANCERS[name]()


def build_model(config) -> keras.Model:
    """image [12, 12, 1] -> the logits [10] of left and right."""
    image = keras.Input((SIDE, SIDE, 1), name="image")
    hidden = keras.layers.Rescaling(1 / 16)(image)
    for k, channels in enumerate(config.model.channels, 1):
        hidden = keras.layers.Conv2D(
            channels, 3, strides=2, padding="same", activation="relu", name=f"convolution_{k}"
        )(hidden)
    hidden = keras.layers.Flatten()(hidden)
    shared = keras.layers.Dense(config.model.shared, activation="relu", name="shared")(hidden)
    # float32 under any --precision: losses are computed of them
    heads = {task: keras.layers.Dense(10, name=task, dtype="float32")(shared) for task in PLACES}
    return keras.Model(image, heads, name="two_digits")


def experiment(config, *, strategy, workdir) -> Experiment:
    """As `config` says.

    Args:
      config: ConfigDict of `experiments/configs/two_digits.py`.
      strategy: str or `tf.distribute.Strategy`.
      workdir: str, or None to keep nothing.
    """
    keras.utils.set_random_seed(config.seed)
    data = load_pairs()
    learning_rate = keras.optimizers.schedules.CosineDecay(
        config.optimizer.learning_rate, config.steps
    )
    trainer = Trainer(
        lambda: build_model(config),
        optimizer=keras.optimizers.Adam(learning_rate),
        loss={
            task: keras.losses.SparseCategoricalCrossentropy(from_logits=True) for task in PLACES
        },
        metrics={task: ["accuracy"] for task in PLACES},
        balancer=make_balancer(config.balancer),
        gradient_diagnostics_every=config.gradient_diagnostics_every,
        strategy=strategy,
        workdir=workdir,
        seed=config.seed,
        config=config.to_dict(),
    )
    return Experiment(
        trainer,
        data["train"],
        data["validation"],
        data["test"],
        fit=fit_settings(config),
    )
