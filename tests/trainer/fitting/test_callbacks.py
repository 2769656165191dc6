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
    assert {"loss", "mae", "terms/mean_squared_error"} <= logs.keys() and "total" in logs


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


def regression():
    x = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    return x, x[:, :1]


def small(**arguments):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    return Trainer(model, optimizer=keras.optimizers.SGD(0.05), loss="mse", **arguments)


def test_the_model_of_a_callback_is_the_model_and_is_given_back_as_it_was():
    seen = []
    look = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(look.model))
    trainer = small()
    before = set(vars(trainer.model))
    trainer.fit(regression(), batch_size=8, epochs=2, callbacks=[look], verbose=False)
    assert all(model is trainer.model for model in seen) and len(seen) == 2
    assert set(vars(trainer.model)) - {"_callback_model"} <= before | {"built"}
    assert not hasattr(trainer.model, "stop_training")


def test_an_event_of_every_batch_comes_at_every_step_and_the_run_says_so(capsys):
    steps = []
    count = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: steps.append(batch)
    )
    small().fit(regression(), batch_size=8, steps=12, callbacks=[count])
    assert steps == list(range(12))
    assert capsys.readouterr().out.count("calls of the loop are one step long") == 1


def test_with_steps_per_loop_an_event_comes_once_a_call():
    steps = []
    count = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: steps.append(batch)
    )
    arguments = dict(steps=12, steps_per_loop=4, callbacks=[count], verbose=False)
    small().fit(regression(), batch_size=8, **arguments)
    assert steps == [3, 7, 11]


@pytest.mark.parametrize(("monitor", "mode"), [("val_mae", "min"), ("accuracy", "max")])
def test_the_direction_of_what_is_monitored_is_that_of_the_metric(monitor, mode):
    seen = []
    stop = keras.callbacks.EarlyStopping(monitor, patience=100)
    look = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(stop.mode))
    trainer = small(metrics=["mae", "accuracy"])
    data = regression()
    arguments = dict(batch_size=8, epochs=2, callbacks=[look, stop], verbose=False)
    trainer.fit(data, validation_data=data, **arguments)
    assert seen == [mode, mode]
    assert stop.mode == "auto"


def test_a_direction_that_nobody_knows_is_asked_for_before_training():
    stop = keras.callbacks.EarlyStopping("val_cleverness")
    trainer = small()
    with pytest.raises(ValueError, match='Pass mode="min" or mode="max"'):
        trainer.fit(regression(), batch_size=8, steps=4, callbacks=[stop], verbose=False)
    assert int(trainer.step) == 0


@pytest.mark.parametrize(
    ("callback", "advice"),
    [
        (lambda: keras.callbacks.SwapEMAWeights(), "use the averages already"),
        (lambda: keras.callbacks.BackupAndRestore("backup"), "pass workdir="),
    ],
)
def test_a_callback_that_would_do_what_the_trainer_does_is_refused(callback, advice):
    with pytest.raises(ValueError, match=advice):
        small().fit(regression(), batch_size=8, steps=4, callbacks=[callback()], verbose=False)


def test_the_loss_of_an_epoch_is_the_mean_of_its_steps_whatever_the_log_windows():
    found = {}
    for every in (1, 3, 5, 100):
        seen = found.setdefault(every, [])
        note = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs, seen=seen: seen.append(logs["loss"])
        )
        keras.utils.set_random_seed(1)
        arguments = dict(batch_size=8, epochs=3, shuffle=False, log_every=every, verbose=False)
        history = small().fit(regression(), callbacks=[note], **arguments)
        if every == 1:  # five steps an epoch, a row each
            totals = [row["total"] for row in history.rows]
            by_hand = [np.mean(totals[start : start + 5]) for start in (0, 5, 10)]
    for seen in found.values():
        np.testing.assert_allclose(seen, by_hand, rtol=1e-6)
