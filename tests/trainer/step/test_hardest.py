"""Steps that learn from the hardest examples of the global batch alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer import Trainer

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(22, 3)).astype("float32")
Y = X[:, :1] ** 2
WEIGHT = (np.arange(22) % 3).astype("float32")
KERNEL = RANDOM.normal(size=(3, 1)).astype("float32")


def linear():
    layer = keras.layers.Dense(1, use_bias=False, kernel_regularizer="l2", name="w")
    model = keras.Sequential([keras.Input((3,)), layer], name="net")
    model.set_weights([KERNEL])
    return model


def size(step):
    return tf.reduce_mean(tf.square(step.y_pred), -1)


def made(strategy="one_device", optimizer=None, terms=(), **arguments):
    optimizer = optimizer or keras.optimizers.SGD(0.05)
    arguments = {"loss": "mse", **arguments}
    return Trainer(linear, optimizer=optimizer, terms=terms, strategy=strategy, **arguments)


def fitted(trainer, data=(X, Y, WEIGHT), steps=20, hardest=0.3, **arguments):
    arguments = {"batch_size": 9, "log_every": 5, "verbose": False, **arguments}
    return trainer.fit(data, steps=steps, hardest=hardest, **arguments).rows


def test_a_step_is_that_of_the_hardest_examples():
    trainer = made()
    row = fitted(trainer, (X[:8], Y[:8]), 1, 0.25, batch_size=8, log_every=1, shuffle=False)[0]
    errors = X[:8] @ KERNEL - Y[:8]
    hardest = np.argsort(-(errors[:, 0] ** 2))[:2]
    assert row["raw/mean_squared_error"] == pytest.approx(np.mean(errors[hardest] ** 2), rel=1e-6)
    slope = 2 * X[hardest].T @ errors[hardest] / 2 + 2 * 0.01 * KERNEL  # L2 counts as always
    np.testing.assert_allclose(trainer.model.get_weights()[0], KERNEL - 0.05 * slope, rtol=1e-5)
    assert row["hardest/mean_squared_error"] == 0.25
    whole = trainer.evaluate((X, Y))["raw/mean_squared_error"]  # of all examples, as always
    outputs = X @ trainer.model.get_weights()[0]
    assert whole == pytest.approx(np.mean((outputs - Y) ** 2), rel=1e-5)


def test_two_replicas_keep_what_one_keeps(two_replicas):
    terms = [losses.term(size, weight=0.1, hardest=0.5)]
    one, two = made(terms=terms), made(two_replicas, terms=terms)
    for row, other in zip(fitted(one), fitted(two), strict=True):
        for tag in ("total", "raw/mean_squared_error", "raw/size", "grad_norm/total"):
            assert row[tag] == pytest.approx(other[tag], rel=1e-6)
    np.testing.assert_allclose(one.model.get_weights()[0], two.model.get_weights()[0], atol=5e-6)


def test_a_compiled_or_scaled_step_and_a_pipeline_keep_the_same():
    rows = fitted(made(), shuffle=False)
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.05))
    others = [
        fitted(made(jit_compile=True), shuffle=False),
        fitted(made(optimizer=scaled), shuffle=False),
        fitted(
            made(), tf.data.Dataset.from_tensor_slices((X, Y, WEIGHT)).batch(9), batch_size=None
        ),
    ]
    for other in others:
        assert [row["total"] for row in other] == pytest.approx([r["total"] for r in rows], 1e-5)


def test_each_fit_says_what_it_keeps():
    terms = [losses.term(size, hardest=0.5)]
    trainer = made(terms=terms)
    whole = fitted(trainer, steps=2, hardest=None, log_every=2)[-1]
    assert whole["hardest/size"] == 0.5 and "hardest/mean_squared_error" not in whole
    row = fitted(trainer, steps=4, hardest={"size": 0.1, "mean_squared_error": 0.2}, log_every=2)[
        -1
    ]
    assert (row["hardest/size"], row["hardest/mean_squared_error"]) == (0.1, 0.2)
    lines = [line.split() for line in trainer.describe().splitlines()]
    assert lines[1][:4] == ["mean_squared_error", "compiled,", "hardest", "0.2"]
    assert lines[2][:4] == ["size", "term,", "hardest", "0.1"]
    assert lines[3][:2] == ["regularization/net/w/kernel", "model"]


def test_a_killed_run_that_is_called_again_goes_on_alike(workdir):
    whole, halves = made(), made(workdir=workdir)
    fitted(whole, steps=10)
    fitted(halves, steps=5)
    again = made(workdir=workdir)
    fitted(again, steps=10)
    np.testing.assert_array_equal(again.model.get_weights()[0], whole.model.get_weights()[0])


@pytest.mark.parametrize(
    ("hardest", "told"),
    [
        ({"mae": 0.2}, "hardest= names term 'mae'; the terms are 'mean_squared_error'"),
        ({"regularization/net/w/kernel": 0.2}, "has none: it is of no example: every replica"),
        ({"scalar": 0.2}, "term 'scalar' has none: it is one number of the batch"),
        (2.0, "hardest=2.0: give a share above 0"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(hardest, told):
    terms = [losses.term(lambda s: tf.reduce_mean(s.y_pred), name="scalar")]
    with pytest.raises(ValueError, match=told):
        fitted(made(terms=terms), steps=1, hardest=hardest)


def test_a_share_of_compiled_losses_needs_some():
    with pytest.raises(ValueError, match=r"no loss=. Name the terms: hardest=\{'size': 0.3\}"):
        fitted(made(loss=None, terms=[losses.term(size)]), steps=1)


def test_what_would_not_be_exact_is_refused(two_replicas):
    accumulating = keras.optimizers.SGD(0.05, gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match="of 2 accumulated steps are known after the last of them"):
        fitted(made(optimizer=accumulating), steps=2)
    with pytest.raises(ValueError, match="'mean_squared_error' compares the examples of all rep"):
        fitted(made(two_replicas, jit_compile=True), steps=2)
