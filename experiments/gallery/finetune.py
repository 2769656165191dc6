"""A network that knows clean digits learns those of a bad scanner from three labels each.

First the network is trained on the clean digits, with all labels. A new run begins with its
weights (`init_from`) on images that are dim and noisy. In the phase `head` the convolutions are
frozen, while the last layer learns; in the phase `all` they train too, at a part of its rate. Both
optimizers keep moving averages of the weights, which evaluation uses. Variant `scratch` trains the
same network for as many steps from random weights, with one rate and without phases.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import keras
import numpy as np

from experiments.digits import split_digits
from experiments.experiment import Check, Experiment, fit_settings
from experiments.gallery.pictures import draw_told
from experiments.gallery.variants import checked_variant
from trainer import Phase, Trainer

VARIANTS = ("finetuned", "scratch")
LEAST = 0.8  # the accuracy that every seed reached
NOISE = 2.0  # of the scanner, in grey levels of 16


def build_model(config) -> keras.Model:
    """image [8, 8, 1] -> logits [10]; the layers that are to be kept are `backbone`."""
    layers = [keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 16)]
    for channels in config.model.channels:
        layers.append(keras.layers.Conv2D(channels, 3, padding="same", activation="relu"))
    layers += [keras.layers.MaxPooling2D(), keras.layers.Flatten()]
    layers += [keras.layers.Dense(config.model.hidden, activation="relu")]
    backbone = keras.Sequential(layers, name="backbone")
    head = keras.layers.Dense(10, name="head", dtype="float32")
    return keras.Sequential([keras.Input((8, 8, 1)), backbone, head])


def cross_entropy():
    """Of a digit and logits."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, name="cross_entropy")


def scanned(data, seed: int):
    """The examples as a bad scanner sees them: half the contrast on grey, with noise.

    Args:
      data: x [examples, 8, 8, 1] of 0 to 16, y.
      seed: int; the same one gives the same noise.
    """
    x, y = data
    noise = np.random.default_rng(seed).normal(0, NOISE, x.shape)
    return np.clip(x / 2 + 4 + noise, 0, 16).astype("float32"), y


def few(data, each: int, seed: int):
    """So many examples of each label, drawn by a seed."""
    x, y = data
    draw = np.random.default_rng(seed)
    chosen = [draw.permutation(np.flatnonzero(y == k))[:each] for k in np.unique(y)]
    return x[np.concatenate(chosen)], y[np.concatenate(chosen)]


def pretrained(config, data, strategy, folder) -> Path:
    """The folder of a run on the clean digits, which is trained here unless it was before."""
    trainer = Trainer(
        lambda: build_model(config),
        optimizer=keras.optimizers.Adam(config.optimizer.learning_rate),
        loss=cross_entropy(),
        strategy=strategy,
        workdir=folder,
        seed=config.seed,
    )
    trainer.fit(data, steps=config.pretraining_steps, batch_size=128, verbose=False)
    return folder


def make_optimizer(config, rate: float):
    """Adam whose weights are averaged over about 1 / (1 - momentum) updates for evaluation."""
    return keras.optimizers.Adam(rate, use_ema=True, ema_momentum=config.ema_momentum)


def course(config, data, strategy, workdir) -> dict:
    """The arguments of the Trainer in which the variants differ."""
    rate = config.optimizer.learning_rate
    if config.variant == "scratch":
        return {"optimizer": make_optimizer(config, rate)}
    folder = Path(workdir or tempfile.mkdtemp()) / "pretrained"
    return {
        "init_from": pretrained(config, data, strategy, folder),
        "groups": {"backbone": "*backbone/*", "head": "*head/*"},
        "optimizer": {
            "backbone": make_optimizer(config, rate * config.optimizer.backbone),
            "head": make_optimizer(config, rate),
        },
        "phases": [Phase("head", until=config.head_steps, trains="head"), Phase("all")],
    }


def check(trainer, config, test) -> dict[str, Check]:
    """The share of the scanned test images whose digit is told, by the averaged weights."""
    least = LEAST if config.variant == VARIANTS[0] else None
    return {"test accuracy": Check(trainer.evaluate(test)["metrics/accuracy"], at_least=least)}


def experiment(config, *, strategy, workdir) -> Experiment:
    """As `config` says; the network is trained on clean digits here, before the run on the others.

    Args:
      config: ConfigDict of `experiments/configs/finetune.py`.
      strategy: str or `tf.distribute.Strategy`.
      workdir: str, or None to keep nothing.
    Raises:
      ValueError: a variant that is none of `VARIANTS`.
    """
    checked_variant(config, VARIANTS)
    keras.utils.set_random_seed(config.seed)
    data = split_digits()
    arguments = course(config, data["train"], strategy, workdir)
    trainer = Trainer(
        lambda: build_model(config),
        loss=cross_entropy(),
        metrics=["accuracy"],
        strategy=strategy,
        workdir=workdir,
        seed=config.seed,
        config=config.to_dict(),
        **arguments,
    )
    train, validation, test = (
        scanned(data[split], seed) for seed, split in enumerate(("train", "validation", "test"))
    )
    return Experiment(
        trainer,
        few(train, config.each, config.seed),
        validation,
        test,
        fit=fit_settings(config),
        check=lambda trainer: check(trainer, config, test),
        picture=lambda trainer: draw_told(trainer, test),
    )
