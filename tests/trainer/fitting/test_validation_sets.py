"""Several validation sets by name: rows, logs, best checkpoints and files of their own."""

import json

import keras
import numpy as np
import pytest

from trainer import Trainer

RNG = np.random.default_rng(0)
X, Y = (RNG.normal(size=(32, n)).astype(np.float32) for n in (3, 1))
EASY, HARD = (X, np.zeros_like(Y)), (X * 2, Y + 3)


class Logs(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(dict(logs))


def make(**settings):
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input([3]), keras.layers.Dense(1)])
    return Trainer(network, optimizer="sgd", loss="mse", metrics=["mae"], **settings)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir, logs = tmp_path_factory.mktemp("sets") / "run", Logs()
    trainer = make(workdir=workdir)
    history = trainer.fit(
        (X, Y),
        batch_size=8,
        steps=12,
        validate_every=4,
        validation_sets={"easy": EASY, "hard": HARD},
        validation_data=(X, Y),
        keep_best=1,
        keep_last=1,
        checkpoint_every=4,
        best_metric="hard:metrics/mae",
        callbacks=[logs],
        verbose=False,
    )
    return trainer, history, workdir, logs.seen


def test_each_set_has_rows_of_its_own(run):
    trainer, history, _, _ = run
    for split, (x, y) in (("eval", (X, Y)), ("eval/easy", EASY), ("eval/hard", HARD)):
        rows = [row for row in history.rows if row["split"] == split]
        assert [row["step"] for row in rows] == [4, 8, 12]
        expected = np.mean((trainer.model.predict(x, verbose=0) - y) ** 2)
        np.testing.assert_allclose(rows[-1]["total"], expected, rtol=1e-5)


def test_callbacks_monitor_a_set_by_its_name(run):
    _, history, _, logs = run
    hard = [row for row in history.rows if row["split"] == "eval/hard"]
    assert [seen["val_hard_loss"] for seen in logs] == [row["total"] for row in hard]
    assert [seen["val_hard_mae"] for seen in logs] == [row["metrics/mae"] for row in hard]
    assert {"val_loss", "val_easy_loss"} <= set(logs[0])


def test_the_best_checkpoint_is_that_of_the_set(run):
    _, history, workdir, _ = run
    hard = {row["step"]: row["metrics/mae"] for row in history.rows if row["split"] == "eval/hard"}
    step = min(hard, key=hard.get)
    best = json.loads((workdir / "checkpoints" / "best.json").read_text())
    assert best == [{"step": step, "value": hard[step]}]


def test_files_hold_each_set(run):
    _, history, workdir, _ = run
    assert {path.name for path in (workdir / "tb" / "eval").iterdir()} >= {"easy", "hard"}
    done = json.loads((workdir / "DONE.json").read_text())
    assert done["eval/hard"]["total"] == history.last("eval/hard")["total"]
    assert done["eval"]["total"] == history.last("eval")["total"]


def test_a_run_with_sets_is_resumed(run, capsys):
    _, _, workdir, _ = run
    trainer = make(workdir=workdir)
    history = trainer.fit(
        (X, Y), batch_size=8, steps=16, validation_sets={"easy": EASY}, validate_every=4
    )
    assert [r["step"] for r in history.rows if r["split"] == "eval/easy"] == [4, 8, 12, 16]
    assert "eval/easy 16  total" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validation_sets": [EASY]}, "validation_sets= is a list of 1: give a dict"),
        ({"validation_sets": {}}, "is a dict of 0: give a dict, name -> data, of at least one"),
        ({"validation_sets": {"a/b": EASY}}, "names a set 'a/b'"),
        (
            {"validation_sets": {"a": EASY}, "best_metric": "b:total"},
            "validation set 'b'; there are",
        ),
        ({"best_metric": "b:total"}, "there are none: give validation_sets="),
    ],
)
def test_bad_sets_are_one_clear_error(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make().fit((X, Y), batch_size=8, steps=1, verbose=False, **arguments)
