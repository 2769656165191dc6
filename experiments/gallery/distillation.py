"""A small student learns from a large teacher, which is frozen inside a term.

First the teacher is trained, a convolutional network, on all labels of the training digits. Then
the student, one layer of few units, learns from 200 labels, and from what the teacher says of all
images: not only which digit it is, but how much each of the others looks like it. Variant `alone`
leaves the teacher out.
"""

from __future__ import annotations

import keras
import tensorflow as tf

import losses
from experiments.consistency import labelled
from experiments.digits import split_digits
from experiments.experiment import Check, Experiment, fit_settings
from experiments.gallery.variants import checked_variant
from trainer import Sources, Trainer

VARIANTS = ("distilled", "alone")
LEAST = 0.94  # the accuracy that every seed reached


def cross_entropy():
    """Of a digit and logits."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, name="cross_entropy")


def build_teacher(config) -> keras.Model:
    """image [8, 8, 1] -> logits [10], by two convolutions."""
    layers = [keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 16)]
    for channels in config.teacher.channels:
        layers.append(keras.layers.Conv2D(channels, 3, padding="same", activation="relu"))
    layers += [keras.layers.MaxPooling2D(), keras.layers.Flatten()]
    return keras.Sequential([*layers, keras.layers.Dense(10, dtype="float32")], name="teacher")


def build_student(config) -> keras.Model:
    """image [8, 8, 1] -> logits [10], by one hidden layer."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Rescaling(1 / 16),
            keras.layers.Flatten(),
            keras.layers.Dense(config.student.hidden, activation="relu"),
            # float32 under any --precision: losses are computed of it
            keras.layers.Dense(10, dtype="float32"),
        ],
        name="student",
    )


def trained_teacher(config, data, strategy) -> keras.Model:
    """The teacher, trained on all labels and frozen; the same one for a seed."""
    trainer = Trainer(
        lambda: build_teacher(config),
        optimizer=keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(
                config.teacher.learning_rate, config.teacher.steps
            )
        ),
        loss=cross_entropy(),
        strategy=strategy,
        seed=config.seed,
    )
    trainer.fit(data, steps=config.teacher.steps, batch_size=config.batch_size, verbose=False)
    trainer.model.trainable = False
    return trainer.model


def distillation(teacher, temperature: float, weight: float) -> losses.Term:
    """The term: T² times the divergence of the student's distribution from the teacher's.

        raw = T² mean over images of sum_k p_k (log p_k - log q_k)

    p = softmax(teacher / T), q = softmax(student / T). T² keeps the gradient's size whatever T is.
    Source: Hinton, Vinyals and Dean 2015, section 2.
    """

    def distill(step):
        told = tf.nn.log_softmax(teacher(step.x, training=False) / temperature)
        own = tf.nn.log_softmax(step.y_pred / temperature)
        return temperature**2 * tf.reduce_sum(tf.exp(told) * (told - own), axis=-1)

    return losses.term(distill, source="unlabelled", weight=weight)


def check(trainer, config, test) -> dict[str, Check]:
    """The share of the test images whose digit the student tells."""
    least = LEAST if config.variant == VARIANTS[0] else None
    return {"test accuracy": Check(trainer.evaluate(test)["metrics/accuracy"], at_least=least)}


def picture(trainer, test):
    """Which digit is told for which, on the test images."""
    from matplotlib.figure import Figure

    x, y = test
    counts = tf.math.confusion_matrix(y, trainer.predict(x).argmax(axis=-1), 10).numpy()
    figure = Figure(figsize=(4, 4))
    axes = figure.subplots()
    axes.imshow(counts, cmap="Blues")
    for row, column in zip(*counts.nonzero(), strict=True):
        axes.text(column, row, counts[row, column], ha="center", va="center", fontsize=7)
    axes.set(xlabel="told", ylabel="digit", xticks=range(10), yticks=range(10))
    return figure


def experiment(config, *, strategy, workdir) -> Experiment:
    """As `config` says; the teacher is trained here, before the student.

    Args:
      config: ConfigDict of `experiments/configs/distillation.py`.
      strategy: str or `tf.distribute.Strategy`.
      workdir: str, or None to keep nothing.
    Raises:
      ValueError: a variant that is none of `VARIANTS`.
    """
    checked_variant(config, VARIANTS)
    keras.utils.set_random_seed(config.seed)
    data = split_digits()
    x, y = data["train"]
    terms = []
    if config.variant == "distilled":
        teacher = trained_teacher(config, (x, y), strategy)
        terms.append(distillation(teacher, config.temperature, config.loss_weights.distill))
    keras.utils.set_random_seed(config.seed)  # the student begins alike in both variants
    known = labelled(y, config.labelled, config.seed) > 0
    trainer = Trainer(
        lambda: build_student(config),
        optimizer=keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(config.optimizer.learning_rate, config.steps)
        ),
        loss=cross_entropy(),
        terms=terms,
        metrics=["accuracy"],
        strategy=strategy,
        workdir=workdir,
        seed=config.seed,
        config=config.to_dict(),
    )
    sizes = {"labelled": config.batch_size, "unlabelled": config.batch_size}
    return Experiment(
        trainer,
        Sources(labelled=(x[known], y[known]), unlabelled=(x,)),
        data["validation"],
        data["test"],
        fit={**fit_settings(config), "batch_size": sizes},
        check=lambda trainer: check(trainer, config, data["test"]),
        picture=lambda trainer: picture(trainer, data["test"]),
    )
