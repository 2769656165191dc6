"""Keras callbacks work; a validation interval is their epoch; a Trainer is one of them."""

import keras
import numpy as np
import pytest

from trainer import Trainer


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 3)).astype("float32")
    return x, x[:, :1]


def make(rate=0.1, kind=Trainer, **arguments):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    return kind(
        model, optimizer=keras.optimizers.SGD(rate), loss="mse", metrics=["mae"], **arguments
    )


def fit(trainer, arrays, **arguments):
    base = dict(
        steps=40,
        batch_size=32,
        validation_data=arrays,
        validate_every=10,
        log_every=5,
        verbose=False,
    )
    return trainer.fit(arrays, **{**base, **arguments})


def test_a_validation_interval_is_an_epoch(arrays):
    epochs = []
    callback = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: epochs.append((epoch, logs))
    )
    history = fit(make(), arrays, callbacks=[callback])
    assert [epoch for epoch, _ in epochs] == [0, 1, 2, 3]
    logs, row = epochs[1][1], [r for r in history.rows if r["split"] == "eval"][1]
    assert logs["val_total"] == logs["val_loss"] == row["total"]
    assert logs["val_mae"] == row["metrics/mae"]
    assert {"loss", "total", "mae", "terms/mean_squared_error"} <= logs.keys()


def test_early_stopping_stops_at_the_end_of_an_interval(arrays):
    trainer = make(rate=0.0)
    stopping = keras.callbacks.EarlyStopping(patience=1)
    fit(trainer, arrays, callbacks=[stopping])
    assert int(trainer.step) == 20


def test_early_stopping_restores_the_best_weights(arrays):
    trainer = make(rate=1.5)  # diverges
    before = trainer.evaluate(arrays)["total"]
    stopping = keras.callbacks.EarlyStopping(patience=1, restore_best_weights=True)
    history = fit(trainer, arrays, callbacks=[stopping])
    best = min(row["total"] for row in history.rows if row["split"] == "eval")
    assert trainer.evaluate(arrays)["total"] == pytest.approx(best, rel=1e-5)
    assert best > before


def test_the_learning_rate_is_reduced_on_a_plateau(arrays):
    trainer = make(rate=1e-9)
    reduce = keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=1, min_delta=1.0)
    history = fit(trainer, arrays, callbacks=[reduce])
    rates = [row["learning_rate"] for row in history.rows if row["split"] == "train"]
    assert rates[0] == pytest.approx(1e-9)
    assert rates[-1] < 0.6e-9
    assert float(trainer.optimizer.learning_rate) == pytest.approx(0.125e-9)


def test_a_callback_may_save_the_model(arrays, tmp_path):
    saving = keras.callbacks.ModelCheckpoint(tmp_path / "best.weights.h5", save_weights_only=True)
    fit(make(), arrays, callbacks=[saving])
    assert (tmp_path / "best.weights.h5").exists()


def test_a_trainer_hears_the_events_itself(arrays):
    class Hearing(Trainer):
        heard: list

        def on_train_begin(self, logs=None):
            self.heard = ["begin"]

        def on_epoch_end(self, epoch, logs=None):
            self.heard.append((epoch, sorted(logs)[0]))

        def on_train_end(self, logs=None):
            self.heard.append("end")

    trainer = make(kind=Hearing)
    fit(trainer, arrays, steps=20)
    assert trainer.heard[0] == "begin" and trainer.heard[-1] == "end"
    assert [event[0] for event in trainer.heard[1:-1]] == [0, 1]


def test_something_that_is_no_callback_is_an_error(arrays):
    with pytest.raises(TypeError, match="callbacks= holds 'early'"):
        fit(make(), arrays, callbacks=["early"])
