"""A variational autoencoder of handwritten digits, whose latents are kept in use.

A grey level of 0 to 16 counts the dark ones of 16 pixels of the original scan, so that the
likelihood is binomial, and the evidence lower bound one of probabilities, in nats an image:

    ELBO = E log Binomial(x; 16, decoder(z)) - KL(q(z|x) || N(0, 1)),   z drawn from q

The weight of the KL term rises from 0 in cycles, and each latent has free bits; a second KL term,
of weight 0, is watched: it is the one that counts in the ELBO.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from scipy import special, stats

import losses
from experiments.digits import split_digits
from experiments.experiment import Check, Experiment, fit_settings
from trainer import Trainer

LEVELS = 16  # pixels that a grey level counts
DRAWS = 200  # of each image's latents, for the second estimate
EXPECTED = -94.3  # nats an image of the test set: the mean of seeds 0, 1 and 2


class Draw(keras.layers.Layer):
    """A draw of the latents, z = mean + exp(log_variance / 2) * noise."""

    def __init__(self, seed, **arguments):
        super().__init__(**arguments)
        self.noise = keras.random.SeedGenerator(seed)

    def call(self, mean, log_variance):
        noise = keras.random.normal(keras.ops.shape(mean), dtype=mean.dtype, seed=self.noise)
        return mean + keras.ops.exp(log_variance / 2) * noise


def build_model(config) -> keras.Model:
    """image [8, 8, 1] -> mean, log_variance [latents], and logits [8, 8, 1] of a drawn latent."""
    size, seed = config.model, config.seed
    image = keras.Input((8, 8, 1), name="image")
    scaled = keras.layers.Flatten()(keras.layers.Rescaling(1 / LEVELS)(image))
    hidden = keras.layers.Dense(size.hidden, activation="relu")(scaled)
    mean = keras.layers.Dense(size.latents, name="mean", dtype="float32")(hidden)
    log_variance = keras.layers.Dense(size.latents, name="log_variance", dtype="float32")(hidden)
    decoder = keras.Sequential(
        [
            keras.Input((size.latents,)),
            keras.layers.Dense(size.hidden, activation="relu"),
            keras.layers.Dense(64, dtype="float32"),
            keras.layers.Reshape((8, 8, 1), dtype="float32"),
        ],
        name="decoder",
    )
    logits = decoder(Draw(seed, name="draw")(mean, log_variance))
    outputs = {"mean": mean, "log_variance": log_variance, "logits": logits}
    return keras.Model(image, outputs, name="vae")


def reconstruction(step):
    """-log Binomial(x; 16, sigmoid(logits)), summed over the pixels: float32 [examples]."""
    x, logits = step.x, step.y_pred["logits"]
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(x / LEVELS, logits) * LEVELS
    ways = tf.math.lgamma(LEVELS + 1.0) - tf.math.lgamma(x + 1) - tf.math.lgamma(LEVELS + 1 - x)
    return tf.reduce_sum(entropy - ways, axis=(1, 2, 3))


def make_terms(config) -> list:
    """The two terms that train, and the KL divergence without free bits, which is watched."""
    weight = config.kl_weight
    if config.cycles:
        weight = losses.schedules.Cyclical(
            period=config.steps // (config.cycles + 1), final=weight, cycles=config.cycles
        )
    where = "mean", "log_variance"
    return [
        losses.term(reconstruction),
        losses.GaussianKL(*where, free_bits=config.free_bits, weight=weight, name="free_kl"),
        losses.GaussianKL(*where, weight=0.0, name="kl"),
    ]


def elbo(trainer, data) -> float:
    """The evidence lower bound by the trainer's terms, nats an image."""
    values = trainer.evaluate(data, batch_size=64)
    return -values["raw/reconstruction"] - values["raw/kl"]


def bounds(trainer, images, draws: int = DRAWS) -> tuple[float, float]:
    """The ELBO and the importance weighted bound, by SciPy's densities and NumPy's draws.

        w = p(x, z) / q(z|x),   ELBO: mean of log w,   importance weighted: log of the mean of w

    Args:
      images: float32 [images, 8, 8, 1].
      draws: of z, for each image.
    Returns:
      two floats, nats an image, means over the images.
    Source: Burda, Grosse and Salakhutdinov 2016, eq. 8.
    """
    of_image = trainer.predict(images)
    mean, deviation = of_image["mean"], np.exp(of_image["log_variance"] / 2)
    decoder = trainer.model.get_layer("decoder")
    draw = np.random.default_rng(0)
    logs = np.empty((draws, len(images)))
    for k in range(draws):
        z = draw.normal(mean, deviation)
        share = special.expit(decoder(z.astype("float32")).numpy())
        likelihood = stats.binom.logpmf(images, LEVELS, share).sum(axis=(1, 2, 3))
        prior, posterior = stats.norm.logpdf(z), stats.norm.logpdf(z, mean, deviation)
        logs[k] = likelihood + (prior - posterior).sum(axis=1)
    weighted = special.logsumexp(logs, axis=0) - np.log(draws)
    return float(logs.mean()), float(weighted.mean())


def active_units(trainer, images) -> int:
    """Latents whose posterior mean has a variance above 0.01 over the images (Burda et al.)."""
    return int((trainer.predict(images)["mean"].var(axis=0) > 0.01).sum())


def experiment(config, *, strategy, workdir) -> Experiment:
    """The autoencoder, as `config` says.

    Args:
      config: ConfigDict of `experiments/configs/vae.py`.
      strategy: str or `tf.distribute.Strategy`.
      workdir: str, or None to keep nothing.
    """
    keras.utils.set_random_seed(config.seed)
    data = {split: (x,) for split, (x, _) in split_digits().items()}
    learning_rate = keras.optimizers.schedules.CosineDecay(
        config.optimizer.learning_rate, config.steps
    )
    trainer = Trainer(
        lambda: build_model(config),
        optimizer=keras.optimizers.Adam(learning_rate),
        terms=make_terms(config),
        strategy=strategy,
        workdir=workdir,
        seed=config.seed,
        config=config.to_dict(),
    )
    (images,) = data["test"]

    def check(trainer):
        found = elbo(trainer, data["test"])
        again, weighted = bounds(trainer, images)
        return {
            "ELBO": Check(found, at_least=1.02 * EXPECTED, at_most=0.98 * EXPECTED),
            "ELBO, distance from SciPy's": Check(abs(found / again - 1), at_most=0.01),
            "importance weighted bound, above the ELBO": Check(weighted - again, at_least=0.0),
            "active units": Check(active_units(trainer, images), at_least=6),
        }

    return Experiment(
        trainer,
        data["train"],
        data["validation"],
        data["test"],
        fit=fit_settings(config),
        check=check,
        picture=lambda trainer: draw(trainer, images[:10]),
    )


def draw(trainer, images):
    """Images, the same drawn again, and new ones of latents drawn from N(0, 1)."""
    from matplotlib.figure import Figure

    decoder = trainer.model.get_layer("decoder")
    of_image = trainer.predict(images)
    new = np.random.default_rng(0).normal(size=of_image["mean"].shape).astype("float32")
    rows = {
        "test": images / LEVELS,
        "again": special.expit(decoder(of_image["mean"]).numpy()),
        "new": special.expit(decoder(new).numpy()),
    }
    figure = Figure(figsize=(len(images) * 0.7, 2.4), layout="constrained")
    places = figure.subplots(len(rows), len(images))
    for row, (name, shown) in zip(places, rows.items(), strict=True):
        row[0].set_title(name, fontsize=8, loc="left")
        for place, image in zip(row, shown, strict=True):
            place.imshow(image[:, :, 0], cmap="gray_r", vmin=0, vmax=1)
            place.axis("off")
    return figure
