"""What more weight of a term would do for validation: by hand, on replicas, and over a resume."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer import Trainer

RANDOM = np.random.default_rng(0)
X, X_VALID = (RANDOM.normal(size=(n, 3)).astype("float32") for n in (12, 10))
TRUE = np.array([[2.0], [1.0], [0.0]], "float32")
Y, Y_VALID = X @ TRUE, X_VALID @ TRUE
KERNEL = np.array([[0.5], [-0.5], [1.0]], "float32")
RATE = 0.01


def linear():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False, name="w")])
    model.set_weights([KERNEL])
    return model


def toward(step):
    """Pulls the output where the label pulls it."""
    return tf.square(step.y_pred - 2.0 * step.x[:, :1])[:, 0]


def away(step):
    return tf.square(step.y_pred + 2.0 * step.x[:, :1])[:, 0]


def fitted(strategy="one_device", optimizer=None, steps=2, data=(X, Y), **arguments):
    """A Trainer after some steps of the whole data, and its training rows."""
    arguments = {"helps_every": 2, "loss": "mse", **arguments}
    terms = [losses.term(toward, weight=0.0), losses.term(away, weight=0.0)]
    optimizer = optimizer or keras.optimizers.SGD(RATE)
    trainer = Trainer(linear, optimizer=optimizer, terms=terms, strategy=strategy, **arguments)
    batch = {"batch_size": 12} if isinstance(data, tuple) else {}
    validation = tf.data.Dataset.from_tensor_slices((X_VALID, Y_VALID)).batch(4)  # 4, 4 and 2
    rows = trainer.fit(
        data, steps=steps, log_every=2, validation_data=validation, verbose=False, **batch
    ).rows
    return trainer, [row for row in rows if row["split"] == "train"]


def slope(kernel, x, target):
    """The gradient of the mean of squares."""
    return 2 * x.T @ (x @ kernel - target) / len(x)


def by_hand(scale):
    """The products of each validation batch after one step, [3, terms], times a scale."""
    first = slope(KERNEL, X, Y)
    sizes = scale(first)
    kernel = KERNEL - sizes * first
    pulls = [slope(kernel, X, Y), slope(kernel, X, 2 * X[:, :1]), slope(kernel, X, -2 * X[:, :1])]
    parts = [slope(kernel, X_VALID[i : i + 4], Y_VALID[i : i + 4]) for i in (0, 4, 8)]
    return np.array([[-np.sum(part * sizes * pull) for pull in pulls] for part in parts])


def measured(row, head="helps"):
    return [row[f"{head}/{name}"] for name in ("mean_squared_error", "toward", "away")]


def test_it_is_minus_the_rate_times_the_product_of_the_gradients():
    products, share = by_hand(lambda gradient: RATE), np.array([0.4, 0.4, 0.2])
    mean = share @ products
    error = np.sqrt(1.5 * np.sum(np.square(share[:, None] * (products - mean)), 0))
    row = fitted()[1][-1]
    assert measured(row) == pytest.approx(mean, rel=1e-4)
    assert measured(row, "helps_error") == pytest.approx(error, rel=1e-4)
    assert row["helps/toward"] < 0 < row["helps/away"]  # the one helps, the other harms


@pytest.mark.parametrize(
    ("optimizer", "scale"),
    [
        (keras.optimizers.Adam, lambda g: RATE / (np.abs(g) + 1e-7)),
        (keras.optimizers.AdamW, lambda g: RATE / np.abs(g)),
        (keras.optimizers.RMSprop, lambda g: RATE / np.sqrt(0.1 * g**2 + 1e-7)),
        (keras.optimizers.Adagrad, lambda g: RATE / np.sqrt(0.1 + g**2 + 1e-7)),
    ],
    ids=["Adam", "AdamW", "RMSprop", "Adagrad"],
)
def test_the_optimizer_scales_the_gradient(optimizer, scale):
    products = by_hand(scale)
    row = fitted(optimizer=optimizer(RATE))[1][-1]
    assert measured(row) == pytest.approx(np.array([0.4, 0.4, 0.2]) @ products, rel=1e-3)


def test_more_weight_has_that_effect():
    weights = {"toward": 1.0}
    row = fitted(helps_for="toward", loss_weights=weights)[1][-1]  # of that term's validation
    kernel = KERNEL - RATE * (slope(KERNEL, X, Y) + slope(KERNEL, X, 2 * X[:, :1]))
    more = 1e-3 * RATE * slope(kernel, X, -2 * X[:, :1]).astype("float64")

    def validation(kernel):
        return np.mean((X_VALID @ kernel - 2 * X_VALID[:, :1]) ** 2)

    effect = (validation(kernel - more) - validation(kernel)) / 1e-3
    assert row["helps/away"] == pytest.approx(effect, rel=1e-2)


def test_replicas_pipelines_and_other_ways_to_run_measure_the_same(two_replicas):
    rows = fitted(steps=4)[1]
    pipeline = tf.data.Dataset.from_tensor_slices((X, Y)).batch(12)
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(RATE))
    ways = [
        {"strategy": two_replicas, "data": pipeline},
        {"strategy": two_replicas, "jit_compile": True},
        {"run_eagerly": True, "optimizer": scaled},
    ]
    for way in ways:
        others = fitted(steps=4, **way)[1]
        for row, other in zip(rows, others, strict=True):
            assert measured(row) == pytest.approx(measured(other), rel=1e-5)
            assert row["total"] == pytest.approx(other["total"], rel=1e-6)


def test_it_changes_nothing_and_stands_in_the_rows_in_which_it_was_measured():
    trainer, rows = fitted(steps=8, helps_every=4)
    assert ["helps/away" in row for row in rows] == [False, True, False, True]
    plain, others = fitted(steps=8, helps_every=None)
    assert not [tag for row in others for tag in row if "helps" in tag]
    np.testing.assert_array_equal(trainer.model.get_weights()[0], plain.model.get_weights()[0])


def test_a_run_that_goes_on_has_the_rows_of_one_that_was_not_stopped(workdir):
    whole = fitted(steps=4)[1]
    fitted(steps=3, workdir=workdir)  # measured, and not yet in a row
    rows = fitted(steps=4, workdir=workdir)[1]
    assert measured(rows[-1]) == measured(whole[-1])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"helps_every": 1}, "helps_every=1: give a whole number of at least 2"),
        ({"helps_every": None, "helps_for": "away"}, "helps_for='away' goes with helps_every="),
        ({"helps_for": "mse"}, "helps_for= names term 'mse'; the terms are 'mean_squared_error'"),
        ({"helps_for": "away"}, "looks at the validation of 'away', of weight 0"),
        ({"optimizer": "lion"}, r"optimizer= is a Lion\. Use one of these"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, told):
    with pytest.raises(ValueError, match=told):
        fitted(**arguments)


def test_it_needs_validation_data():
    trainer = Trainer(linear, optimizer="sgd", loss="mse", helps_every=2)
    with pytest.raises(ValueError, match=r"for validation. Give fit\(\) validation_data="):
        trainer.fit((X, Y), steps=2, batch_size=4, verbose=False)
