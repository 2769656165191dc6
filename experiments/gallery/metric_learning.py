"""An embedding in which digits of one kind are near, tried on kinds that it never saw.

Of the ten digits seven are trained on; the embedding of the three others is what counts. An image
of an unknown kind is found if the nearest other image is of its kind: recall@1. Three losses as
variants: `nt_xent` tells two views of an image from all other images and needs no label; `triplet`
keeps each nearer to its kind than to the others; `sup_con` draws all images of a kind together.
`untrained` is the network as it begins, whose random features tell most of these digits apart.
"""

from __future__ import annotations

import keras
import numpy as np

import losses
from experiments.consistency import view
from experiments.digits import split_digits
from experiments.experiment import Check, Experiment, fit_settings
from experiments.gallery.variants import checked_variant
from trainer import Trainer

VARIANTS = ("nt_xent", "triplet", "sup_con", "untrained")
UNSEEN = (7, 8, 9)  # digits that are not trained on


class Embedder(Trainer):
    """A Trainer whose model sees a random view of each image while it trains; with NT-Xent two."""

    config: dict  # of experiments/configs/metric_learning.py

    def build_model(self):
        layers = [keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 16)]
        for channels in self.config["model"]["channels"]:
            layers.append(keras.layers.Conv2D(channels, 3, padding="same", activation="relu"))
        layers.append(keras.layers.Flatten())
        layers.append(keras.layers.Dense(self.config["model"]["embedding"], dtype="float32"))
        return keras.Sequential([*layers, keras.layers.UnitNormalization(dtype="float32")])

    def forward(self, step):
        """[images, embedding]; with NT-Xent [images, 2, embedding], of two views."""
        noise = self.config["noise"]
        if self.config["variant"] == "nt_xent":
            views = [view(step.x, noise, (k, step.step)) for k in (1, 2)]
            return keras.ops.stack([self.model(v, training=step.training) for v in views], axis=1)
        x = view(step.x, noise, (1, step.step)) if step.training else step.x
        return self.model(x, training=step.training)


def make_loss(config):
    """The loss of a variant, of embeddings of length 1."""
    if config.variant == "nt_xent":
        return losses.NTXent(temperature=config.temperature)
    if config.variant == "triplet":
        return losses.Triplet(margin=config.margin, mining="hard", soft=config.margin == 0)
    return losses.SupCon(temperature=config.temperature)


def recall_at_1(embeddings, labels) -> float:
    """The share of the rows whose nearest other row has the same label.

    Args:
      embeddings: [rows, features].
      labels: [rows].

    Example:
      >>> recall_at_1(np.array([[0.0], [1.0], [3.0]]), np.array([7, 7, 5]))
      0.6666666666666666
    """
    distances = np.square(embeddings[:, None] - embeddings[None]).sum(-1)
    np.fill_diagonal(distances, np.inf)
    return float(np.mean(labels[distances.argmin(axis=1)] == labels))


def seen(data):
    """The examples whose digit is trained on."""
    x, y = data
    return x[~np.isin(y, UNSEEN)], y[~np.isin(y, UNSEEN)]


def unseen(data):
    """The examples whose digit is not trained on."""
    x, y = data
    return x[np.isin(y, UNSEEN)], y[np.isin(y, UNSEEN)]


def check(trainer, config, test) -> dict[str, Check]:
    """recall@1 among the test images of the digits that were not trained on."""
    x, y = unseen(test)
    recall = recall_at_1(trainer.model.predict(x, verbose=0), y)
    least = None if config.variant == "untrained" else 0.95
    return {"recall@1 of unseen digits": Check(recall, at_least=least)}


def picture(trainer, test):
    """The unseen digits along the two directions in which their embeddings differ most."""
    from matplotlib.figure import Figure

    x, y = unseen(test)
    embeddings = trainer.model.predict(x, verbose=0)
    centred = embeddings - embeddings.mean(axis=0)
    places = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    figure = Figure(figsize=(4, 4))
    axes = figure.subplots()
    for digit in UNSEEN:
        across, up = places[y == digit].T
        axes.scatter(across, up, s=12, label=str(digit))
    axes.legend(title="not trained on")
    axes.set_axis_off()
    return figure


def experiment(config, *, strategy, workdir) -> Experiment:
    """As `config` says.

    Args:
      config: ConfigDict of `experiments/configs/metric_learning.py`.
      strategy: str or `tf.distribute.Strategy`.
      workdir: str, or None to keep nothing.
    Raises:
      ValueError: a variant that is none of `VARIANTS`.
    """
    checked_variant(config, VARIANTS)
    keras.utils.set_random_seed(config.seed)
    data = split_digits()
    rate = 0.0 if config.variant == "untrained" else config.optimizer.learning_rate
    trainer = Embedder(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, config.steps)),
        loss=make_loss(config),
        strategy=strategy,
        workdir=workdir,
        seed=config.seed,
        config=config.to_dict(),
    )
    return Experiment(
        trainer,
        seen(data["train"]),
        seen(data["validation"]),
        seen(data["test"]),
        fit=fit_settings(config),
        check=lambda trainer: check(trainer, config, data["test"]),
        picture=lambda trainer: picture(trainer, data["test"]),
    )
