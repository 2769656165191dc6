"""What `helps_every=` says of an auxiliary term that helps and of one that harms, on real digits.

    python -m benchmarks.helps_on_digits

The digits of scikit-learn, of which 100 training images have a label. Two auxiliary terms teach the
same ten logits something of all 1,078: `pair`, whether it is 0 or 1, 2 or 3, ... 8 or 9, which is
true of every image, and `annotator`, the labels of somebody who always says the next digit. Prints
for each term, over five seeds, `helps/<term>` averaged over the rows of the run in which it trains,
and the test accuracy with it and without. Takes about a minute on two CPU cores; docs/balancing.md
has what it printed.
"""

from __future__ import annotations

import statistics

import keras
import numpy as np
import tensorflow as tf

import losses
from experiments.digits import split_digits
from trainer import Trainer

LABELLED, STEPS, SEEDS = 100, 400, 5
WEIGHTS = {"pair": 0.5, "annotator": 0.05}


def model() -> keras.Model:
    """image [8, 8, 1] -> the logits of the digit [10]."""
    image = keras.Input((8, 8, 1), name="image")
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 16)(image))
    hidden = keras.layers.Dense(64, activation="relu", name="hidden")(flat)
    digit = keras.layers.Dense(10, name="digit")(hidden)
    return keras.Model(image, {"digit": digit}, name="digits")


def _pair(step):
    """-log of the probability of the digit's pair, [examples]."""
    logits = tf.reshape(tf.nn.log_softmax(step.y_pred["digit"]), [-1, 5, 2])
    of_pairs = tf.reduce_logsumexp(logits, axis=2)
    return -tf.gather(of_pairs, step.y["digit"] // 2, batch_dims=1)


def _annotator(step):
    logits = step.y_pred["digit"]
    return tf.nn.sparse_softmax_cross_entropy_with_logits((step.y["digit"] + 1) % 10, logits)


def train(seed: int, weights: dict[str, float], steps: int = STEPS):
    """Trains once.

    Args:
      seed: of the weights, of which images are labelled, and of the order.
      weights: of the auxiliary terms; 0 for those that are not named.
      steps: of 64 images.
    Returns:
      the test accuracy in [0, 1]; term -> `helps/<term>` of each row of training.
    """
    keras.utils.set_random_seed(seed)
    data = split_digits()
    x, y = data["train"]
    known = np.zeros(len(y), "float32")
    known[np.random.default_rng(seed).permutation(len(y))[:LABELLED]] = 1.0
    trainer = Trainer(
        model,
        optimizer=keras.optimizers.Adam(1e-3),
        loss={"digit": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
        metrics={"digit": ["accuracy"]},
        terms=[
            losses.term(_pair, name="pair", weight=weights.get("pair", 0.0)),
            losses.term(_annotator, name="annotator", weight=weights.get("annotator", 0.0)),
        ],
        strategy="one_device",
        helps_every=steps // 20,
        seed=seed,
    )
    x_validation, y_validation = data["validation"]
    rows = trainer.fit(
        (x, {"digit": y}, {"digit": known}),
        steps=steps,
        batch_size=64,
        log_every=steps // 20,
        validate_every=steps,
        validation_data=(x_validation, {"digit": y_validation}),
        verbose=False,
    ).rows
    training = [row for row in rows if row["split"] == "train"]
    helps = {name: [row[f"helps/{name}"] for row in training] for name in WEIGHTS}
    x_test, y_test = data["test"]
    values = trainer.evaluate((x_test, {"digit": y_test}))
    return values["metrics/accuracy"], helps


def main() -> None:
    """Prints the table."""
    alone = [train(seed, {})[0] for seed in range(SEEDS)]
    print("| term | `helps/<term>`, five seeds | accuracy without | with |\n|---|---|---|---|")
    for name, weight in WEIGHTS.items():
        runs = [train(seed, {name: weight}) for seed in range(SEEDS)]
        cells = ", ".join(f"{statistics.fmean(helps[name]):.1e}" for _, helps in runs)
        there = _percent([accuracy for accuracy, _ in runs])
        print(f"| `{name}` | {cells} | {_percent(alone)} | {there} |", flush=True)


def _percent(values: list[float]) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{100 * statistics.fmean(values):.1f} ± {100 * error:.1f} %"


if __name__ == "__main__":
    main()
