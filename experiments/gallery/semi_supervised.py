"""100 labels for 1,078 digits: a mean teacher tells the student what the others are.

Two sources: 100 images with labels, and all images without. The teacher is the student with
averaged weights. It looks at a view of an unlabelled image, the student at another one with a part
erased: the student is to say what the teacher says. For comparison, variant `labels_alone` leaves
the term out, and `all_labels` trains on every label.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

import losses
from experiments.consistency import labelled, view
from experiments.digits import split_digits
from experiments.experiment import Check, Experiment, fit_settings
from experiments.gallery.pictures import draw_told
from experiments.gallery.variants import checked_variant
from trainer import Sources, Trainer

VARIANTS = ("mean_teacher", "labels_alone", "all_labels")
SIDE = 8  # pixels of an image
LEAST = 0.96  # the accuracy that every seed reached


def build_model(config) -> keras.Model:
    """image [8, 8, 1] of 0 to 16 -> the logits [10]."""
    layers = [keras.Input((SIDE, SIDE, 1)), keras.layers.Rescaling(1 / 16)]
    for channels in config.model.channels:
        layers.append(keras.layers.Conv2D(channels, 3, padding="same", activation="relu"))
    layers += [keras.layers.MaxPooling2D(), keras.layers.Flatten()]
    layers += [keras.layers.Dense(config.model.hidden, activation="relu")]
    # float32 under any --precision: losses are computed of it
    return keras.Sequential([*layers, keras.layers.Dense(10, dtype="float32")])


def erased(images, seed):
    """The images, each with a square of 3x3 pixels at a random place set to 0.

    Args:
      images: float32 [examples, 8, 8, 1].
      seed: two integers; the same ones give the same squares.
    """
    corner = tf.random.stateless_uniform([tf.shape(images)[0], 2], seed, 0, SIDE - 2, tf.int32)
    apart = tf.range(SIDE)[None, None] - corner[..., None]  # [examples, 2, 8]
    rows, columns = tf.unstack((apart >= 0) & (apart < 3), axis=1)
    inside = rows[:, :, None] & columns[:, None, :]
    return tf.where(inside[..., None], 0.0, images)


def agreement(config) -> losses.MeanTeacher:
    """The term: how far the student's prediction is from the teacher's.

        raw = mean over images of |softmax(student(view 2)) - softmax(teacher(view 1))|²

    Source: Tarvainen and Valpola 2017; the weight rises from 0, as there.
    """

    def agree(step, teacher):
        first, second = (view(step.x, config.noise, (k, step.step)) for k in (1, 2))
        second = erased(second, (3, tf.cast(step.step, tf.int32)))
        told = tf.nn.softmax(teacher(first))
        return tf.reduce_sum(tf.square(tf.nn.softmax(step.forward(second)) - told), axis=-1)

    return losses.MeanTeacher(
        agree,
        decay=config.decay,
        weight=losses.schedules.Linear(0.0, config.loss_weights.agree, config.ramp_steps),
        source="unlabelled",
    )


def check(trainer, config, test) -> dict[str, Check]:
    """The share of the test images whose digit is told."""
    least = LEAST if config.variant == VARIANTS[0] else None
    return {"test accuracy": Check(trainer.evaluate(test)["metrics/accuracy"], at_least=least)}


def experiment(config, *, strategy, workdir) -> Experiment:
    """As `config` says.

    Args:
      config: ConfigDict of `experiments/configs/semi_supervised.py`.
      strategy: str or `tf.distribute.Strategy`.
      workdir: str, or None to keep nothing.
    Raises:
      ValueError: a variant that is none of `VARIANTS`.
    """
    checked_variant(config, VARIANTS)
    keras.utils.set_random_seed(config.seed)
    data = split_digits()
    x, y = data["train"]
    known = labelled(y, config.labelled, config.seed) > 0
    if config.variant == "all_labels":
        known = np.ones_like(known)
    learns = config.variant == "mean_teacher"
    trainer = Trainer(
        lambda: build_model(config),
        optimizer=keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(config.optimizer.learning_rate, config.steps)
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, name="cross_entropy"),
        terms=[agreement(config)] if learns else [],
        metrics=["accuracy"],
        strategy=strategy,
        workdir=workdir,
        seed=config.seed,
        config=config.to_dict(),
    )
    sources: dict[str, tuple] = {"labelled": (x[known], y[known])}
    sizes = {"labelled": config.batch_size}
    if learns:
        sources["unlabelled"], sizes["unlabelled"] = (x,), config.unlabelled_batch

    def moved(example, seed):
        image, label = example
        return view(image[None], config.noise, seed)[0], label

    return Experiment(
        trainer,
        Sources(**sources),
        data["validation"],
        data["test"],
        fit={**fit_settings(config), "batch_size": sizes, "augment": {"labelled": moved}},
        check=lambda trainer: check(trainer, config, data["test"]),
        picture=lambda trainer: draw_told(trainer, data["test"]),
    )
