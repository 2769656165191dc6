"""What is not there has no value: skipped windows, absent terms, labels that do not count."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from losses import balancing
from trainer import Nonfinite, Trainer
from trainer.fitting.callbacks import open_callbacks
from trainer.fitting.window_watch import WindowWatch
from trainer.ledger.history import History
from trainer.ledger.window import StackedSums, WindowSums

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")


def line():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="ones")])


def two_heads():
    inputs = keras.Input((4,))
    ones = dict(kernel_initializer="ones")
    trunk = keras.layers.Dense(1, **ones)(inputs)
    return keras.Model(inputs, {n: keras.layers.Dense(1, name=n, **ones)(trunk) for n in "ab"})


# ---- windows of skipped steps ----


def window(steps=0, skipped=0, weighted=0.0):
    values = np.float64([weighted])
    return WindowSums(values, values, np.float32([1.0]), 8.0, 1.0, steps, skipped)


def many(*windows):
    """Windows that ended in one call of the loop, as the loop's codec reads them."""
    nothing = StackedSums.of(np.zeros([0, 8]), np.zeros([0, 1]))
    return StackedSums.stack(windows) if windows else nothing


def watch_of(*, scaled=False, rows=(), at_least_0=(), say=None):
    return WindowWatch(["a"], dict(at_least_0), scaled, History(rows), say)


def test_three_windows_of_skipped_steps_in_a_row_are_an_error_that_says_which():
    watch, skipped = watch_of(), window(skipped=10)
    watch.look(many(skipped, skipped, window(steps=10), skipped, skipped), window(), 50, None)
    with pytest.raises(Nonfinite, match=r"last 3 log windows was skipped \(steps 31 to 60\)"):
        watch.look(many(skipped), window(), 60, None)


def test_those_of_a_run_before_it_was_resumed_count():
    rows = [{"split": "train", "total": None, "skipped_steps": 10}] * 2
    with pytest.raises(Nonfinite, match="nothing is trained"):
        watch_of(rows=rows).look(many(window(skipped=10)), window(), 30, None)


def test_a_loss_scale_that_is_too_large_at_first_is_no_error():
    watch = watch_of(scaled=True)
    watch.look(many(*[window(skipped=1)] * 20), window(), 20, None)
    with pytest.raises(Nonfinite):
        watch.look(many(*[window(skipped=1)] * 44), window(), 64, None)


def test_a_negative_term_under_a_learned_weight_is_warned_of_once_by_its_name():
    told: list = []
    watch = watch_of(at_least_0={"a": "UncertaintyWeight"}, say=told.append)
    watch.look(many(window(steps=1, weighted=0.5)), window(), 1, None)
    assert not told
    for _ in range(2):
        watch.look(many(), window(steps=1, weighted=-0.5), 2, None)
    assert len(told) == 1 and "term 'a' is negative" in told[0] and "UncertaintyWeight" in told[0]


def test_an_epoch_without_a_value_decides_nothing():
    seen: list = []
    stop = keras.callbacks.EarlyStopping("loss", patience=1)
    see = keras.callbacks.LambdaCallback(on_epoch_end=lambda _, logs: seen.append(logs["loss"]))
    arguments = line(), keras.optimizers.SGD(), [], {}
    with open_callbacks([stop, see], keras.callbacks.Callback(), *arguments) as events:
        events.on_train_begin()
        for epoch, loss in enumerate([2.0, None, None, 1.0]):
            events.on_epoch_end(epoch, {"loss": loss})
        assert not arguments[0].stop_training
    assert stop.best == 1.0 and stop.wait == 0
    assert seen[0] == 2.0 and np.isnan(seen[1:3]).all() and seen[3] == 1.0


def test_a_run_whose_steps_are_all_skipped_ends_in_an_error():
    class Breaks(Trainer):
        def compute_terms(self, step):
            return {"broken": tf.reduce_mean(step.y_pred, -1) / 0.0}

    trainer = Breaks(line(), optimizer="sgd", on_nonfinite="skip")
    with pytest.raises(Nonfinite, match="Every step of the last"):
        trainer.fit(X, steps=8, batch_size=8, log_every=2, verbose=False)


# ---- absent terms ----


def alternating(
    balancer=None, strategy="one_device", jit_compile=False, reduction=None, **settings
):
    """Rows of two tasks, one a batch; the labels of the other have the weight 0."""
    y = {"a": X[:, :1] * 2, "b": X[:, 1:2] - 1}
    there = {"a": np.repeat([1.0, 0.0], 8), "b": np.repeat([0.0, 1.0], 8)}
    there = {name: weight.astype("float32") for name, weight in there.items()}
    trainer = Trainer(
        two_heads,
        optimizer=keras.optimizers.SGD(0.0),
        loss={
            name: keras.losses.MeanSquaredError(reduction=reduction or "sum_over_batch_size")
            for name in "ab"
        },
        balancer=balancer,
        strategy=strategy,
        jit_compile=jit_compile,
        **settings,
    )
    data = (X, y, there)
    row = trainer.fit(data, steps=4, batch_size=8, log_every=4, shuffle=False, verbose=False).rows[
        -1
    ]
    out = X.sum(1, keepdims=True)
    return row, ((out - y["a"])[:8] ** 2).mean(), ((out - y["b"])[8:] ** 2).mean()


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean_with_sample_weight"])
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_raw_value_is_the_mean_over_the_steps_that_have_the_term(
    reduction, replicas, two_replicas
):
    strategy = two_replicas if replicas == 2 else "one_device"
    row, a, b = alternating(strategy=strategy, reduction=reduction, loss_weights={"b": 0.5})
    assert row["raw/a"] == pytest.approx(a, rel=1e-5) and row["raw/b"] == pytest.approx(b, rel=1e-5)
    assert row["total"] == pytest.approx((a + 0.5 * b) / 2, rel=1e-5)
    assert row["weight/b"] == 0.25


@pytest.mark.parametrize("balancer", [balancing.MGDA(), balancing.FAMO()], ids=repr)
def test_under_a_balancer_the_one_term_that_is_there_has_the_whole_weight(balancer):
    row, a, b = alternating(balancer, jit_compile=True)
    assert (row["weight/a"], row["weight/b"]) == (0.5, 0.5)  # 1 in half of the steps
    assert row["total"] == pytest.approx((a + b) / 2, rel=1e-5)


def test_what_an_uncertainty_weight_adds_is_absent_with_its_term():
    row, *_ = alternating(loss_weights={"a": losses.UncertaintyWeight(init=1.0)})
    assert row["raw/uncertainty/a"] == pytest.approx(0.5)
    assert row["terms/uncertainty/a"] == pytest.approx(0.25)


def test_a_root_of_nothing_has_no_gradient_and_no_value():
    def root(step):
        count = tf.reduce_sum(step.sample_weight)
        squares = tf.reduce_sum(step.sample_weight * tf.reduce_sum(step.y_pred**2, -1))
        return losses.Ratio(squares, count, after=tf.sqrt)

    trainer = Trainer(line(), optimizer="sgd", loss="mse", terms=[losses.term(root, name="root")])
    nothing = np.zeros(16, "float32")
    data = (X, X[:, :1], nothing)
    row = trainer.fit(data, steps=2, batch_size=8, log_every=2, verbose=False).rows[-1]
    assert row["raw/root"] is None and row["total"] is None
    assert all(np.isfinite(w).all() for w in trainer.model.get_weights())
    values = trainer.evaluate(data)
    assert values["raw/root"] is None and values["total"] is None


# ---- labels that do not count ----


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_label_of_weight_0_may_be_nan_or_no_class(jit_compile):
    weight = {"a": (np.arange(16) % 4 != 0), "b": (np.arange(16) % 3 != 0)}
    weight = {name: values.astype("float32") for name, values in weight.items()}
    y = {"a": X[:, :1], "b": (X[:, 1] > 0).astype("int32")}
    missing = {
        "a": np.where(weight["a"][:, None] > 0, y["a"], np.nan).astype("float32"),
        "b": np.where(weight["b"] > 0, y["b"], -1).astype("int32"),
    }

    def totals(labels):
        inputs, ones = keras.Input((4,)), dict(kernel_initializer="ones")
        sizes = {"a": 1, "b": 2}
        heads = {n: keras.layers.Dense(k, name=n, **ones)(inputs) for n, k in sizes.items()}
        sparse = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        trainer = Trainer(
            keras.Model(inputs, heads),
            optimizer="sgd",
            loss={"a": "mse", "b": sparse},
            jit_compile=jit_compile,
        )
        settings = dict(batch_size=8, steps=3, log_every=1, shuffle=False, verbose=False)
        return [row["total"] for row in trainer.fit((X, labels, weight), **settings).rows]

    np.testing.assert_allclose(totals(missing), totals(y), rtol=1e-6)


def test_a_missing_label_that_counts_is_refused_with_the_way_to_leave_it_out():
    y = X[:, :1].copy()
    y[[3, 7]] = np.nan
    weight = np.ones(16, "float32")
    weight[3] = 0.0
    trainer = Trainer(line(), optimizer="sgd", loss="mse")
    with pytest.raises(ValueError, match=r"y of example 7 is nan.* sample weight 0") as error:
        trainer.fit((X, y, weight), steps=1, batch_size=8, verbose=False)
    assert "skip" not in str(error.value)


# ---- means over examples ----


def test_the_loss_of_an_epoch_and_rows_that_ask_for_it_weigh_a_short_batch_as_keras_does():
    by_keras = line()
    by_keras.compile(keras.optimizers.SGD(0.05), "mse")
    x, y = X[:10], X[:10, :1]
    wanted = by_keras.fit(x, y, batch_size=4, epochs=1, shuffle=False, verbose=0).history["loss"]
    seen: list = []
    see = keras.callbacks.LambdaCallback(on_epoch_end=lambda _, logs: seen.append(logs["loss"]))
    trainer = Trainer(
        line(), optimizer=keras.optimizers.SGD(0.05), loss="mse", row_means="examples"
    )
    settings = dict(batch_size=4, epochs=1, shuffle=False, callbacks=[see], verbose=False)
    row = trainer.fit((x, y), **settings).rows[-1]
    assert seen == pytest.approx(wanted, rel=1e-6)
    assert row["total"] == pytest.approx(wanted[0], rel=1e-6)
    with pytest.raises(ValueError, match="row_means='batches': accepted are"):
        Trainer(line(), loss="mse", row_means="batches")
