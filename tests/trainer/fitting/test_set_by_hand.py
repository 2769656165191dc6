"""What is set by hand between two fits takes effect, and is told and noted with the next start."""

import json

import keras
import numpy as np
import pytest

import losses
from trainer import Trainer

X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")


def test_what_is_set_between_two_fits_is_noted_with_the_start_of_the_second(tmp_path, capsys):
    layers = [keras.layers.Dense(2, name="body"), keras.layers.Dense(1, name="head")]
    layers[0].trainable = False
    trainer = Trainer(
        keras.Sequential([keras.Input((3,)), *layers], name="net"),
        optimizer=keras.optimizers.SGD(0.1),
        loss="mse",
        terms=[losses.term(lambda s: keras.ops.mean(s.y_pred**2, axis=-1), name="size")],
        workdir=tmp_path / "run",
    )

    def fit(steps):
        capsys.readouterr()
        trainer.fit(X, X[:, :1], steps=steps, batch_size=8, log_every=1)
        return capsys.readouterr().out

    assert "set by hand" not in fit(1) + fit(2)
    trainer.set_weight("size", 0.5)
    trainer.optimizer.learning_rate = 0.01
    layers[0].trainable = True
    paths = [variable.path for variable in layers[0].weights]
    assert "set by hand: learning_rate of model 0.1 -> 0.01, weight of size as given" in fit(3)
    fit(4)
    lines = (tmp_path / "run" / "starts.jsonl").read_text().splitlines()
    starts = [json.loads(line) for line in lines]
    assert [start.get("by_hand") is not None for start in starts] == [False, False, True, False]
    noted = starts[2]["by_hand"]
    (rates,) = noted["learning_rate"].values()
    assert rates == pytest.approx([0.1, 0.01])
    assert noted["weight"] == {"size": ["as given", "0.5"]}
    assert noted["trainable"] == {path: [False, True] for path in paths}
    # and it has taken effect
    row = trainer.history.rows[-1]
    assert row["learning_rate"] == pytest.approx(0.01) and row["weight/size"] == 0.5
