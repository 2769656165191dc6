"""Resuming: the same call again does what is left, as if nothing had happened."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer import Trainer

RATES = ("steps_per_second", "examples_per_second", "time")


@pytest.fixture
def arrays():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(50, 5)).astype("float32")
    return x, (x[:, :1] - x[:, 1:2] ** 2).astype("float32")


def make(workdir, **arguments):
    """A run with everything that has a state: slots, dropout, BatchNorm, EMA, a loss parameter."""
    keras.utils.set_random_seed(0)
    a = losses.Parameter("a", 0.5)
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(4, activation="tanh"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(1),
        ]
    )
    scale = tf.convert_to_tensor
    return Trainer(
        model,
        optimizer=keras.optimizers.Adam(0.01, use_ema=True),
        loss=lambda t, p: tf.reduce_mean((t - p) ** 2, -1) * tf.exp(-scale(a)) + scale(a),
        metrics=["mae"],
        workdir=workdir,
        **arguments,
    )


def everything(trainer):
    state = [v.numpy() for v in trainer.model.variables]
    state += [v.numpy() for v in trainer.optimizer.variables]
    return state + [v.numpy() for v in trainer.loss_parameters.values()]


class Stop(keras.callbacks.Callback):
    """Dies at a step, as a killed process would: nothing after the last checkpoint is kept."""

    def __init__(self, step):
        super().__init__()
        self.at = step

    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 >= self.at:
            raise KeyboardInterrupt


def data_of(kind, arrays):
    if kind == "arrays":
        return arrays, {"batch_size": 8}
    data = tf.data.Dataset.from_tensor_slices(arrays)
    if kind == "a pipeline":
        return data.shuffle(20).batch(8), {}
    return data.repeat().shuffle(20, seed=4).batch(8).prefetch(3), {}


@pytest.mark.parametrize("kind", ["arrays", "a pipeline", "an endless pipeline"])
def test_an_interrupted_run_ends_as_the_undisturbed_one(kind, arrays, tmp_path):
    common = dict(steps=40, log_every=6, checkpoint_every=10, steps_per_loop=5, verbose=False)
    whole = make(tmp_path / "whole")
    keras.utils.set_random_seed(1)
    data, more = data_of(kind, arrays)
    expected = whole.fit(data, **common, **more)

    keras.utils.set_random_seed(1)
    data, more = data_of(kind, arrays)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "cut").fit(data, **common, **more, callbacks=[Stop(25)])
    assert not (tmp_path / "cut" / "DONE.json").exists()
    again = make(tmp_path / "cut")
    keras.utils.set_random_seed(1)
    data, more = data_of(kind, arrays)
    history = again.fit(data, **common, **more)

    for mine, theirs in zip(everything(again), everything(whole), strict=True):
        np.testing.assert_array_equal(mine, theirs)

    def values(rows):
        return [{k: v for k, v in row.items() if k not in RATES} for row in rows]

    assert values(history.rows) == values(expected.rows)
    rows = (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()
    assert values(map(json.loads, rows)) == values(expected.rows)
    starts = (tmp_path / "cut" / "starts.jsonl").read_text().splitlines()
    assert [json.loads(line)["resumed_from"] for line in starts] == [None, 20]
    assert (tmp_path / "cut" / "DONE.json").exists()


def test_a_finished_run_is_not_trained_again(arrays, workdir, capsys):
    common = dict(steps=12, batch_size=8, log_every=6)
    make(workdir).fit(arrays, **common, verbose=False)
    again = make(workdir)
    history = again.fit(arrays, **common)
    assert int(again.step) == 12
    assert [row["step"] for row in history.rows] == [6, 12]
    out = capsys.readouterr().out
    assert "step 12 is already reached: nothing to do" in out and "share" in out


def test_a_finished_run_can_be_trained_further(arrays, workdir):
    make(workdir).fit(arrays, steps=12, batch_size=8, log_every=6, verbose=False)
    again = make(workdir)
    history = again.fit(arrays, steps=18, batch_size=8, log_every=6, verbose=False)
    assert [row["step"] for row in history.rows] == [6, 12, 18]


def test_another_process_evaluates_what_was_saved(arrays, workdir):
    trained = make(workdir)
    trained.fit(arrays, steps=12, batch_size=8, verbose=False)
    expected = trained.evaluate(arrays)
    assert make(workdir).evaluate(arrays) == pytest.approx(expected, rel=1e-6)


def test_a_checkpoint_of_another_model_is_an_error(arrays, workdir):
    make(workdir).fit(arrays, steps=3, batch_size=8, verbose=False)
    other = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
    trainer = Trainer(other, optimizer="adam", loss="mse", workdir=workdir)
    with pytest.raises(ValueError, match="does not fit this run: model has 2 variables, the"):
        trainer.fit(arrays, steps=6, batch_size=8, verbose=False)


def test_only_the_last_checkpoints_stay(arrays, workdir):
    make(workdir).fit(
        arrays, steps=12, batch_size=8, checkpoint_every=2, keep_last=2, verbose=False
    )
    kept = sorted(path.name for path in (workdir / "checkpoints").glob("*.index"))
    assert kept == ["ckpt-10.index", "ckpt-12.index"]


@pytest.mark.parametrize("config", [None, {"units": 1}])
def test_what_a_continued_program_was_changed_in_is_told(config, tmp_path, capsys):
    def fit(steps, **given):
        trainer = Trainer(
            lambda: keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]),
            workdir=tmp_path / "run",
            **given,
        )
        data = np.ones((8, 2), "float32"), np.ones((8, 1), "float32")
        trainer.fit(data, steps=steps, batch_size=4, verbose=False)
        return trainer

    fit(2, optimizer=keras.optimizers.SGD(0.1), loss="mse", config=config)
    fit(4, optimizer=keras.optimizers.SGD(0.1), loss="mse", config=config)
    assert capsys.readouterr().out == ""
    trainer = fit(6, optimizer=keras.optimizers.SGD(0.01), loss="mae", config=config)
    others = "" if config else ", weights.mean_absolute_error = 1"
    assert capsys.readouterr().out == (
        "changed since the first start: optimizer.learning_rate = 0.01 (not taken: the saved 0.1 "
        f"counts; set it between two fits){others}\n"
    )
    assert float(trainer.optimizer.learning_rate) == np.float32(0.1)


def test_a_rate_set_between_two_fits_counts_in_a_continued_program_too(tmp_path, capsys):
    def trainer(rate):
        return Trainer(
            lambda: keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]),
            optimizer=keras.optimizers.SGD(rate),
            loss="mse",
            workdir=tmp_path / "run",
        )

    data = np.ones((8, 2), "float32"), np.ones((8, 1), "float32")
    fit = {"batch_size": 4, "verbose": False}
    trainer(0.1).fit(data, steps=2, **fit)
    continued = trainer(0.01)
    continued.fit(data, steps=2, **fit)  # has nothing to do, and stands where the run does
    assert float(continued.optimizer.learning_rate) == np.float32(0.1)
    continued.optimizer.learning_rate = 0.01
    history = continued.fit(data, steps=4, **fit)
    assert history.last("train")["learning_rate"] == np.float32(0.01)
