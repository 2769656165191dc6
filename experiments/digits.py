"""The quickstart: a small classifier of handwritten digits with four kinds of term.

A convolutional network embeds an 8x8 image; from the embedding it tells the digit and draws the
image again. The terms: a focal loss of the digit, L2 of the embedding's kernel, an activity
regularizer of the embedding, and the likelihood of the drawn pixels under a noise whose size
that term learns.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import losses
from experiments.experiment import Experiment, fit_settings
from trainer import Trainer


class Reconstruction(losses.Term):
    """Negative log-likelihood of the image under Gaussian noise of a learned size.

        raw = mean over pixels of (s + (x - x̂)² exp(-s)) / 2

    The log-variance s is a loss parameter. It tends to the logarithm of the mean squared error:
    the noise that the drawing really leaves.

    Args:
      weight: as in `losses.Term`.
      log_variance: float, where s starts.
    """

    def __init__(self, weight=1.0, name="reconstruction", log_variance=0.0):
        super().__init__(weight, name)
        self.log_variance = self.add_weight("log_variance", initializer=log_variance)

    def call(self, step):
        s = tf.cast(self.log_variance, step.y_pred["pixels"].dtype)
        pixels = step.y_pred["pixels"]
        squared_error = tf.square(tf.cast(step.x, pixels.dtype) - pixels)
        return tf.reduce_mean(s + squared_error * tf.exp(-s), axis=(1, 2, 3)) / 2


def split_digits():
    """scikit-learn's 1,797 real digits in three parts, each with as many of every digit.

    Returns:
      dict: "train", "validation", "test" -> (x float32 [examples, 8, 8, 1] of 0 to 16,
      y int32 [examples]) of 1078, 359 and 360 examples, always the same ones.
    """
    digits = load_digits()
    x = digits.images[..., np.newaxis].astype("float32")
    y = digits.target.astype("int32")
    x_train, x_rest, y_train, y_rest = train_test_split(
        x, y, test_size=0.4, stratify=y, random_state=0
    )
    x_validation, x_test, y_validation, y_test = train_test_split(
        x_rest, y_rest, test_size=0.5, stratify=y_rest, random_state=0
    )
    return {
        "train": (x_train, y_train),
        "validation": (x_validation, y_validation),
        "test": (x_test, y_test),
    }


def build_model(config) -> keras.Model:
    """image [8, 8, 1] -> digit, the logits [10], and pixels, the image drawn again [8, 8, 1]."""
    image = keras.Input((8, 8, 1), name="image")
    hidden = keras.layers.Rescaling(1 / 16)(image)
    for k, channels in enumerate(config.model.channels, 1):
        hidden = keras.layers.Conv2D(
            channels, 3, padding="same", activation="relu", name=f"convolution_{k}"
        )(hidden)
    hidden = keras.layers.Flatten()(keras.layers.MaxPooling2D()(hidden))
    embedding = keras.layers.Dense(
        config.model.embedding,
        activation="relu",
        kernel_regularizer=keras.regularizers.L2(config.loss_weights.l2),
        activity_regularizer=keras.regularizers.L1(config.loss_weights.activity),
        name="embedding",
    )(hidden)
    # outputs are no float16 under any --precision: losses are computed of them
    whole = keras.config.floatx()
    digit = keras.layers.Dense(10, name="digit", dtype=whole)(embedding)
    pixels = keras.layers.Dense(64, dtype=whole)(embedding)
    pixels = keras.layers.Reshape((8, 8, 1), name="pixels", dtype=whole)(pixels)
    return keras.Model(image, {"digit": digit, "pixels": pixels}, name="digits")


def experiment(config, *, strategy, workdir) -> Experiment:
    """The quickstart, as `config` says.

    Args:
      config: ConfigDict of `experiments/configs/digits.py`.
      strategy: str or `tf.distribute.Strategy`.
      workdir: str, or None to keep nothing.
    """
    keras.utils.set_random_seed(config.seed)
    data = {split: (x, {"digit": y}) for split, (x, y) in split_digits().items()}
    learning_rate = keras.optimizers.schedules.CosineDecay(
        config.optimizer.learning_rate, config.steps
    )
    trainer = Trainer(
        lambda: build_model(config),
        optimizer=keras.optimizers.Adam(learning_rate),
        loss={"digit": losses.SparseFocal(gamma=config.focal_gamma)},
        terms=[
            Reconstruction(
                weight=config.loss_weights.reconstruction, log_variance=config.noise_log_variance
            )
        ],
        metrics={"digit": ["accuracy"]},
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
