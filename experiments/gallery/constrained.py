"""A recall that is to be at least 0.9: by a constraint, and by the weight of a term.

A linear classifier of handwritten digits misses some of the eights. `losses.Constraint` is told
what share of them is to be recalled, and finds by itself what the eights have to weigh. What holds
on the data that train need not hold on others. So it counts a second part of the data, which no
weight learns from: the rate is that part's, the gradient the first's (Cotter et al. 2019).
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from scipy import stats
from sklearn.datasets import load_digits

import losses
from experiments.experiment import Check, Experiment, fit_settings
from experiments.gallery.variants import checked_variant
from trainer import Sources, Trainer

DIGIT = 8
LEVEL = 0.05  # so rarely may a bound that holds be taken for broken
VARIANTS = ("held", "train", "weight", "plain")


def make_sets(seed: int) -> dict:
    """The digits in three random parts of 40, 30 and 30 %.

    Returns:
      dict: "train", "held", "test" -> (x float32 [examples, 64] of 0 to 1, y int32 [examples]).
    """
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    x, y = (x[order] / 16).astype("float32"), y[order].astype("int32")
    ends = [int(0.4 * len(x)), int(0.7 * len(x))]
    parts = zip(np.split(x, ends), np.split(y, ends), strict=True)
    return dict(zip(("train", "held", "test"), parts, strict=True))


def margins(step):
    """float32 [examples], the logit of the digit less the largest other; [examples], whether it is
    the digit."""
    others = tf.reduce_max(step.y_pred - 1e9 * tf.one_hot(DIGIT, 10), -1)
    return step.y_pred[:, DIGIT] - others, tf.cast(step.y == DIGIT, tf.float32)


def recall(step):
    """The share of the eights that are told to be eights: a rate, which has no gradient."""
    margin, eights = margins(step)
    hits = eights * tf.cast(margin > 0, tf.float32)
    return losses.Ratio(tf.reduce_sum(hits), tf.reduce_sum(eights))


def held_recall(step):
    """The same of the held part; of whatever is evaluated where that is without it."""
    if "held" in step:
        return recall(step["held"])
    return recall(step)


def misses(step, sign=1.0):
    """A smooth count of the eights that are missed, softplus(-margin): their mean."""
    margin, eights = margins(step)
    smooth = eights * tf.nn.softplus(-margin)
    return losses.Ratio(sign * tf.reduce_sum(smooth), tf.reduce_sum(eights))


def soft_recall(step):
    """The stand-in for the recall that has a gradient."""
    return misses(step, sign=-1.0)


def make_terms(config) -> list:
    """Of `config.variant`: the constraint, counted on one of the parts; the weighted term; none."""
    if config.variant == "plain":
        return []
    if config.variant == "weight":
        return [losses.term(misses, weight=config.loss_weights.misses)]
    checked_variant(config, VARIANTS)
    return [
        losses.Constraint(
            held_recall if config.variant == "held" else recall,
            name="recall",
            at_least=config.bound,
            proxy=soft_recall,
            rate=config.rate,
            average=config.average,
        )
    ]


def sampling_chance(recalled: int, eights: int, bound: float) -> float:
    """How likely so few hits, or fewer, are where the true recall is the bound.

        sum over k <= recalled of Binomial(k; eights, bound)

    Below `LEVEL` the bound is broken by more than sampling explains (an exact one-sided test).
    """
    return float(stats.binom.cdf(recalled, eights, bound))


def measure(trainer, sets, config) -> dict[str, Check]:
    """The recall of each part and the test set's accuracy; bounds where the held part counts."""
    asked = config.variant == "held"
    right = {part: (trainer.predict(x).argmax(-1) == y) for part, (x, y) in sets.items()}
    hits = {part: right[part][y == DIGIT] for part, (_, y) in sets.items()}
    chance = sampling_chance(int(hits["test"].sum()), len(hits["test"]), config.bound)
    return {
        **{f"recall, {part}": Check(found.mean()) for part, found in hits.items()},
        "accuracy, test": Check(right["test"].mean(), at_least=0.9 if asked else None),
        "chance of so few hits at the bound": Check(chance, at_least=LEVEL if asked else None),
    }


def experiment(config, *, strategy, workdir) -> Experiment:
    """The classifier, as `config` says.

    Args:
      config: ConfigDict of `experiments/configs/constrained.py`.
      strategy: str or `tf.distribute.Strategy`.
      workdir: str, or None to keep nothing.
    """
    keras.utils.set_random_seed(config.seed)
    sets = make_sets(config.seed)
    decay = keras.regularizers.L2(config.loss_weights.l2)
    learning_rate = keras.optimizers.schedules.CosineDecay(
        config.optimizer.learning_rate, config.steps
    )
    trainer = Trainer(
        lambda: keras.Sequential(
            [keras.Input((64,)), keras.layers.Dense(10, kernel_regularizer=decay, name="digit")],
            name="linear",
        ),
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, name="cross_entropy"),
        terms=make_terms(config),
        strategy=strategy,
        workdir=workdir,
        seed=config.seed,
        config=config.to_dict(),
    )
    fit = fit_settings(config)
    data = sets["train"]
    if config.variant == "held":
        data = Sources(train=sets["train"], held=sets["held"])
        fit["batch_size"] = {"train": config.batch_size, "held": config.held_batch_size}

    return Experiment(
        trainer,
        data,
        sets["held"],
        sets["test"],
        fit=fit,
        check=lambda trainer: measure(trainer, sets, config),
        picture=lambda trainer: draw(trainer, sets["test"], config.bound),
    )


def draw(trainer, data, bound):
    """The margins of the test set's eights and of the others; left of 0 an eight is missed."""
    from matplotlib.figure import Figure

    x, y = data
    logits = trainer.predict(x)
    margin = logits[:, DIGIT] - np.delete(logits, DIGIT, axis=1).max(axis=1)
    found = float((margin[y == DIGIT] > 0).mean())
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    bins = np.linspace(margin.min(), margin.max(), 40).tolist()
    for name, chosen in (("others", y != DIGIT), ("eights", y == DIGIT)):
        axes.hist(margin[chosen], bins, density=True, alpha=0.6, label=name)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(xlabel="margin of 8 over the other digits", ylabel="density of test digits")
    axes.set_title(f"recall {found:.3f}, to be at least {bound:g}", fontsize=10)
    axes.legend()
    return figure
