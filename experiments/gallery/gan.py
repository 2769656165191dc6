"""A Wasserstein GAN with a gradient penalty that learns eight Gaussians on a ring.

Two networks are two groups of variables, each with an optimizer and terms of its own: the critic
moves at every step, the generator at every fifth. What is generated can be counted, since the
density is known: how many of the eight modes there are, and how near the samples lie to them.
"""

from __future__ import annotations

import keras
import numpy as np

import losses
from experiments.experiment import Check, Experiment, fit_settings
from trainer import Trainer

MODES, RADIUS, SIGMA = 8, 1.0, 0.1
CENTRES = RADIUS * np.stack(
    [np.cos(2 * np.pi * np.arange(MODES) / MODES), np.sin(2 * np.pi * np.arange(MODES) / MODES)], 1
)
NOISE = 8  # numbers that a sample is made of


def draw_data(examples: int, seed: int) -> dict[str, np.ndarray]:
    """Points of the ring, and the noise of which as many are to be generated.

    Returns:
      {"real": float32 [examples, 2], "noise": float32 [examples, NOISE]}
    """
    draw = np.random.default_rng(seed)
    centres = CENTRES[draw.integers(MODES, size=examples)]
    return {
        "real": draw.normal(centres, SIGMA).astype("float32"),
        "noise": draw.normal(size=(examples, NOISE)).astype("float32"),
    }


class Gan(keras.Model):
    """{"real", "noise"} -> {"fake": [2], "on_real", "on_fake": the critic's scores [1]}."""

    def __init__(self, hidden):
        super().__init__(name="gan")
        self.generator = network("generator", NOISE, 2, hidden)
        self.critic = network("critic", 2, 1, hidden)

    def call(self, x):
        fake = self.generator(x["noise"])
        return {"fake": fake, "on_real": self.critic(x["real"]), "on_fake": self.critic(fake)}


def network(name, inputs, outputs, hidden) -> keras.Sequential:
    """[inputs] -> [outputs], by layers of so many units."""
    layers = [keras.layers.Dense(units, activation="relu") for units in hidden]
    last = keras.layers.Dense(outputs, dtype="float32")
    return keras.Sequential([keras.Input((inputs,)), *layers, last], name=name)


def critic(step):
    """The critic's loss: its scores of generated points above those of real ones."""
    return step.y_pred["on_fake"][:, 0] - step.y_pred["on_real"][:, 0]


def generator(step):
    """The generator's: what the critic thinks of its points, turned round."""
    return -step.y_pred["on_fake"][:, 0]


def make_terms(config) -> list:
    """What the critic descends, its gradient penalty, and what the generator descends."""
    return [
        losses.term(critic, trains="critic"),
        losses.GradientPenalty(
            critic="critic",
            real="real",
            fake="fake",
            weight=config.loss_weights.gradient_penalty,
            trains="critic",
            seed=config.seed,
            name="gradient_penalty",
        ),
        losses.term(generator, trains="generator"),
    ]


def quality(points) -> tuple[np.ndarray, float]:
    """How well generated points are of the ring.

    Args:
      points: float [points, 2].
    Returns:
      int [8], how many points lie within three sigma of each mode; float, their share of all.
    """
    distances = np.linalg.norm(points[:, None] - CENTRES, axis=-1)
    near = distances.min(axis=1) <= 3 * SIGMA
    counts = np.bincount(distances.argmin(axis=1)[near], minlength=MODES)
    return counts, float(near.mean())


def make_optimizers(config) -> dict:
    """Adam without momentum for both; the generator's keeps the average that is sampled from."""
    settings, updates = config.optimizer, {"critic": config.steps}
    updates["generator"] = config.steps // config.generator_every
    average = {"use_ema": True, "ema_momentum": config.average}
    return {
        name: keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(settings.learning_rate, updates[name]),
            beta_1=0.0,
            beta_2=0.9,
            **(average if name == "generator" else {}),
        )
        for name in ("generator", "critic")
    }


def experiment(config, *, strategy, workdir) -> Experiment:
    """The two networks, as `config` says.

    Args:
      config: ConfigDict of `experiments/configs/gan.py`.
      strategy: str or `tf.distribute.Strategy`.
      workdir: str, or None to keep nothing.
    """
    keras.utils.set_random_seed(config.seed)
    trainer = Trainer(
        lambda: Gan(config.model.hidden),
        optimizer=make_optimizers(config),
        groups={"generator": "generator/*", "critic": "critic/*"},
        update_every={"generator": config.generator_every},
        terms=make_terms(config),
        strategy=strategy,
        workdir=workdir,
        seed=config.seed,
        config=config.to_dict(),
    )
    train = draw_data(config.examples, config.seed)
    test = draw_data(10_000, 1_000_000 + config.seed)

    def check(trainer):
        counts, share = quality(trainer.predict((test,))["fake"])
        return {
            # a mode is covered where it has at least a quarter of its eighth of the points
            "modes covered": Check(int((counts >= len(test["real"]) / 32).sum()), at_least=MODES),
            "share within 3 sigma of a mode": Check(share, at_least=0.9),
        }

    return Experiment(
        trainer,
        (train,),
        fit=fit_settings(config),
        check=check,
        picture=lambda trainer: draw(trainer, {name: x[:2000] for name, x in test.items()}),
    )


def draw(trainer, data):
    """Real and generated points, and over the plane what the critic thinks of it."""
    from matplotlib.figure import Figure

    axis = np.linspace(-1.6, 1.6, 80, dtype="float32")
    plane = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    scores = trainer.model.critic(plane).numpy().reshape(80, 80)
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    points = {"real": data["real"], "generated": trainer.predict((data,))["fake"]}
    for axes, (name, shown) in zip(figure.subplots(1, 2), points.items(), strict=True):
        axes.contourf(axis, axis, scores, levels=20, cmap="Greys", alpha=0.6)
        axes.scatter(*shown.T, s=2, alpha=0.5)
        axes.set(title=name, aspect="equal", xlim=(-1.6, 1.6), ylim=(-1.6, 1.6))
    return figure
