"""What fit returns: rows, and the history that Keras returns; what stays of a fit broken off."""

import keras
import numpy as np
import pytest

from trainer import Trainer
from trainer.ledger.history import History

X = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
Y = X[:, :1]


def compiled(metrics=("mae",)):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse", metrics=list(metrics))
    return model


def make(workdir=None):
    return Trainer.from_compiled(compiled(), workdir=workdir)


ARGUMENTS = {"batch_size": 4, "epochs": 3, "validation_data": (X, Y), "shuffle": False}


def test_its_history_is_that_of_keras():
    history = make().fit(X, Y, **ARGUMENTS, verbose=0)
    theirs = compiled().fit(X, Y, **ARGUMENTS, verbose=0)
    assert history.epoch == theirs.epoch == [0, 1, 2]
    for name in ("loss", "val_loss", "val_mae", "mae"):
        assert history.history[name] == pytest.approx(theirs.history[name], rel=1e-5)


def test_callbacks_are_given_each_value_once_by_its_name_in_keras():
    seen = []
    listener = keras.callbacks.LambdaCallback(on_epoch_end=lambda _, logs: seen.append(logs))
    make().fit(X, Y, **ARGUMENTS, callbacks=[listener], verbose=0)
    logs = seen[0]
    doubled = {"total", "val_total", "metrics/mae", "val_metrics/mae"}
    assert {"loss", "val_loss", "mae", "val_mae"} <= set(logs) and not doubled & set(logs)
    # and found by the tags of the rows
    assert logs["val_total"] == logs["val_loss"] and logs.get("metrics/mae") == logs["mae"]
    assert doubled <= {tag for tag in doubled if tag in logs}
    assert logs.get("nothing", 3) == 3
    with pytest.raises(KeyError, match="nothing"):
        _ = logs["nothing"]


@pytest.mark.parametrize("monitor", ["val_loss", "val_total", "val_metrics/mae", "val_mae"])
def test_a_callback_monitors_a_name_of_keras_or_a_tag(monitor):
    stopping = keras.callbacks.EarlyStopping(monitor, mode="max", patience=1)
    one = make()
    one.fit(X, Y, **ARGUMENTS, callbacks=[stopping], verbose=0)
    assert int(one.step) == 6  # it falls, so the second epoch is no better


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_the_history_of_a_fit_that_is_broken_off_stays(error):
    def fail(epoch, logs):
        if epoch == 1:
            raise error("stop")

    one = make()
    assert one.history is None
    with pytest.raises(error):
        callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=fail)]
        one.fit(X, Y, **ARGUMENTS, callbacks=callbacks, verbose=0)
    assert [row["step"] for row in one.history.rows if row["split"] == "train"] == [3, 6]
    assert len(one.history.history["loss"]) == 2
    assert one.fit(X, Y, **ARGUMENTS, verbose=0) is one.history


def test_a_quiet_fit_says_that_there_is_nothing_to_do(tmp_path, capsys):
    one = make(tmp_path / "q1")
    one.fit(X, Y, **ARGUMENTS, verbose=0)
    assert capsys.readouterr().out == ""
    one.fit(X, Y, **ARGUMENTS, verbose=0)
    assert (
        capsys.readouterr().out
        == "run q1: step 9 is already reached: nothing to do. Steps count from the start.\n"
    )


def test_what_is_cut_is_cut_from_the_epochs_too():
    history = History([{"step": 1, "split": "train"}, {"step": 2, "split": "train"}])
    history.note_epoch(0, 1, {"loss": 2.0})
    history.note_epoch(1, 2, {"loss": 1.0, "late": 3.0})
    assert history.history == {"loss": [2.0, 1.0], "late": [None, 3.0]}
    history.cut(1)
    assert (history.epoch, history.history) == ([0], {"loss": [2.0]})
