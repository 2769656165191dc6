"""Digits told apart although an adversary moves every pixel: adversarial regularization.

The classifier's loss is counted at the image and, by a term, at the image that a fast gradient
sign step (FGSM) or several steps of projected gradient descent (PGD) make of it. How much that is
worth is measured by an attack that shares no code with the term.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

import losses
from experiments.digits import split_digits
from experiments.experiment import Check, Experiment, fit_settings
from experiments.gallery.variants import checked_variant
from trainer import Trainer

EPSILON = 0.1  # by how much a pixel of 0 to 1 may be moved
ATTACK_STEPS = 20
# variant -> what the term adds to the classifier's loss
VARIANTS = {
    "plain": {},
    "fgsm": {"step_size": EPSILON},
    "pgd": {"step_size": EPSILON / 4, "steps": 7, "epsilon": EPSILON, "random_start": True},
}
SHOWN = 8  # attacked images in the picture


def scaled_digits():
    """The digits of `experiments.digits`, pixels from 0 to 1."""
    return {split: (x / 16, y) for split, (x, y) in split_digits().items()}


def build_model(config) -> keras.Model:
    """image [8, 8, 1], of 0 to 1 -> logits [10]."""
    hidden = [keras.layers.Dense(units, activation="relu") for units in config.model.hidden]
    ends = keras.layers.Flatten(), keras.layers.Dense(10, dtype="float32")
    return keras.Sequential([keras.Input((8, 8, 1)), ends[0], *hidden, ends[1]], name="digits")


def make_terms(config) -> list:
    """The adversarial term of `config.variant`; none where that is "plain"."""
    how = VARIANTS[checked_variant(config, VARIANTS)]
    if not how:
        return []
    weight, bounds = config.loss_weights.adversarial, (0.0, 1.0)
    return [
        losses.AdversarialRegularization(
            weight=weight, norm="infinity", clip=bounds, seed=config.seed, name="adversarial", **how
        )
    ]


def attack(model, images, labels, epsilon=EPSILON, steps=ATTACK_STEPS, seed=0):
    """The images, each pixel moved by at most epsilon so that the cross-entropy grows (PGD).

        x <- clip(x + epsilon / 4 * sign(gradient)),  `steps` times over, from a random start

    Args:
      model: images -> logits.
      images: float32 [images, 8, 8, 1] of 0 to 1.
      labels: int [images].
    Returns:
      float32 [images, 8, 8, 1] of 0 to 1.
    Source: Madry et al. 2018, eq. 3 and section 4.
    """
    images = tf.constant(images)
    lowest = tf.maximum(images - epsilon, 0.0)
    highest = tf.minimum(images + epsilon, 1.0)
    start = tf.random.stateless_uniform(tf.shape(images), (seed, 0), -epsilon, epsilon)
    moved = tf.clip_by_value(images + start, lowest, highest)
    for _ in range(steps):
        with tf.GradientTape() as tape:
            tape.watch(moved)
            logits = model(moved, training=False)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        slope = tape.gradient(loss, moved)
        moved = tf.clip_by_value(moved + epsilon / 4 * tf.sign(slope), lowest, highest)
    return moved.numpy()


def accuracy(model, images, labels) -> float:
    """The share of images that are told right."""
    return float((model(images, training=False).numpy().argmax(-1) == labels).mean())


def measure(model, data, variant) -> dict[str, Check]:
    """What is told right of a set, attacked and not; the plain variant is told and compared."""
    x, y = data
    attacked = accuracy(model, attack(model, x, y), y)
    overrun = accuracy(model, attack(model, x, y, epsilon=0.5), y)
    return {
        "accuracy": Check(accuracy(model, x, y), at_least=0.96),
        "accuracy under PGD-20": Check(attacked, at_least=None if variant == "plain" else 0.75),
        # an attack that may do anything fails only where gradients are hidden from it
        "accuracy under PGD-20 of 0.5": Check(overrun, at_most=0.1),
    }


def experiment(config, *, strategy, workdir) -> Experiment:
    """The classifier, with the adversarial term of `config.variant`.

    Args:
      config: ConfigDict of `experiments/configs/adversarial.py`.
      strategy: str or `tf.distribute.Strategy`.
      workdir: str, or None to keep nothing.
    """
    keras.utils.set_random_seed(config.seed)
    data = scaled_digits()
    learning_rate = keras.optimizers.schedules.CosineDecay(
        config.optimizer.learning_rate, config.steps
    )
    trainer = Trainer(
        lambda: build_model(config),
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, name="cross_entropy"),
        terms=make_terms(config),
        metrics=["accuracy"],
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
        check=lambda trainer: measure(trainer.model, data["test"], config.variant),
        picture=lambda trainer: draw(trainer.model, *data["test"]),
    )


def draw(model, images, labels):
    """The accuracy by how far pixels may be moved, and some images before and after."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    parts: Any = figure.subfigures(1, 2)
    left, right = parts
    axes = left.subplots()
    sizes = np.linspace(0, 0.3, 7)
    reached = [accuracy(model, attack(model, images, labels, float(e)), labels) for e in sizes]
    axes.plot(sizes, reached, marker="o")
    axes.axvline(EPSILON, color="tab:red", linestyle="--")
    axes.set(xlabel="largest move of a pixel (of 1)", ylabel="accuracy under PGD-20", ylim=(0, 1))
    shown = np.concatenate([images[:SHOWN], attack(model, images[:SHOWN], labels[:SHOWN])])
    guesses = model(shown, training=False).numpy().argmax(-1)
    for place, image, guess in zip(right.subplots(2, SHOWN).flat, shown, guesses, strict=True):
        place.imshow(image[:, :, 0], cmap="gray_r", vmin=0, vmax=1)
        place.set_title(str(guess), fontsize=8)
        place.axis("off")
    right.suptitle("images, the same attacked, and the guesses", fontsize=9)
    return figure
