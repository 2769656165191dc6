"""A worked research subclass: 100 labels for 1,078 digits, and two views that must agree.

Few images have a label, all have an appearance. Two random views of an image, a little shifted
and a little noisy, should be told to be the same digit: the distance of the two predictions is a
term of the objective that needs no label. `ConsistencyTrainer` is all of the method.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from experiments.digits import split_digits
from experiments.experiment import Experiment, fit_settings
from trainer import Trainer


class ConsistencyTrainer(Trainer):
    """Adds the term `consistency`: how far apart the predictions of two views are.

        raw = mean over images of |softmax(f(view 1)) - softmax(f(view 2))|²

    Source: Laine and Aila 2017 (the Π-model); there the weight rises from 0, as here.
    """

    config: dict  # of experiments/configs/consistency.py

    def build_model(self):
        model = self.config["model"]
        return keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Rescaling(1 / 16),
                keras.layers.Conv2D(model["channels"][0], 3, padding="same", activation="relu"),
                keras.layers.Conv2D(model["channels"][1], 3, padding="same", activation="relu"),
                keras.layers.MaxPooling2D(),
                keras.layers.Flatten(),
                keras.layers.Dense(model["hidden"], activation="relu"),
                keras.layers.Dropout(model["dropout"], seed=self.seed),
                keras.layers.Dense(10, dtype="float32"),  # of which losses are computed
            ]
        )

    def compute_terms(self, step):
        terms = super().compute_terms(step)
        noise = self.config["noise"]
        first, second = (
            tf.nn.softmax(self.model(view(step.x, noise, (k, step.step)), training=step.training))
            for k in (1, 2)
        )
        terms["consistency"] = tf.reduce_sum(tf.square(first - second), axis=-1)  # [examples]
        return terms


def view(images, noise, seed):
    """The images, each moved by one pixel or not at all, with noise.

    Args:
      images: float32 [examples, 8, 8, 1].
      noise: float, its standard deviation in grey levels.
      seed: two integers; the same ones give the same views.
    """
    shift_seed, noise_seed = tf.unstack(tf.random.split(tf.cast(tf.stack(seed), tf.int64)))
    padded = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]])
    corners = [(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)]  # where it stays, down, up, right, left
    moved = tf.stack([padded[:, row : row + 8, column : column + 8] for row, column in corners])
    choice = tf.random.stateless_uniform(
        tf.shape(images)[:1], shift_seed, 0, len(corners), dtype=tf.int32
    )
    chosen = tf.gather_nd(moved, tf.stack([choice, tf.range(tf.size(choice))], axis=-1))
    return chosen + noise * tf.random.stateless_normal(tf.shape(images), noise_seed)


def labelled(y, count, seed):
    """float32 [examples]: 1 for `count` examples, as many of each digit, 0 for the others."""
    draw = np.random.default_rng(seed)
    mask = np.zeros(len(y), "float32")
    for digit in range(10):
        mask[draw.permutation(np.flatnonzero(y == digit))[: count // 10]] = 1
    return mask


def experiment(config, *, strategy, workdir) -> Experiment:
    """As `config` says; a label that is not to be seen has a sample weight of 0."""
    keras.utils.set_random_seed(config.seed)
    data = split_digits()
    x, y = data["train"]
    weight = config.loss_weights.consistency
    trainer = ConsistencyTrainer(
        optimizer=keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(config.optimizer.learning_rate, config.steps)
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="mean_with_sample_weight", name="cross_entropy"
        ),
        loss_weights={
            "consistency": keras.optimizers.schedules.PolynomialDecay(
                0.0, config.ramp_steps, weight
            )
        },
        metrics=["accuracy"],
        strategy=strategy,
        workdir=workdir,
        seed=config.seed,
        config=config.to_dict(),
    )
    return Experiment(
        trainer,
        (x, y, labelled(y, config.labelled, config.seed)),
        data["validation"],
        data["test"],
        fit=fit_settings(config),
    )
