"""The record of a run: rows, events, equations and tables from the same numbers."""

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import losses
from trainer import Trainer
from trainer.ledger.format import duration, equation, round_to_sum

TAGS = ("total", "terms/", "raw/", "weight/", "loss_parameters/", "grad_norm/", "metrics/")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of 30 steps with a schedule, a loss parameter and five terms, kept on disk."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 4)).astype("float32")
    y = x[:, :1] * 2
    a = losses.Parameter("a", 0.5)
    dense = keras.layers.Dense(
        5, name="hidden", kernel_regularizer="l2", activity_regularizer="l1", activation="tanh"
    )
    model = keras.Sequential([keras.Input((4,)), dense, keras.layers.Dense(1)], name="net")
    path = tmp_path_factory.mktemp("runs") / "q1"
    trainer = Trainer(
        model,
        optimizer="adam",
        loss="mse",
        loss_weights={"mean_squared_error": losses.UncertaintyWeight(), "mean": 0.1},
        terms=[
            losses.term(
                lambda s: tf.reduce_mean(s.y_pred, -1) * tf.convert_to_tensor(a), name="mean"
            ),
            losses.term(
                lambda s: tf.reduce_mean(s.y_pred**2, -1),
                name="square",
                weight=keras.optimizers.schedules.PolynomialDecay(0.0, 30, 1.0),
            ),
        ],
        metrics=["mae"],
        workdir=path,
        config={"optimizer": {"learning_rate": 0.001}, "seed": 0},
    )
    history = trainer.fit(
        (x, y),
        steps=30,
        batch_size=16,
        validation_data=(x, y),
        log_every=7,
        validate_every=15,
        verbose=False,
    )
    return path, history, trainer


def _names(row):
    return [key.removeprefix("terms/") for key in row if key.startswith("terms/")]


def test_every_row_is_an_equation_that_adds_up(run):
    path, history, _ = run
    lines = (path / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows == history.rows
    assert [(row["step"], row["split"]) for row in rows] == [
        (7, "train"),
        (14, "train"),
        (15, "eval"),
        (21, "train"),
        (28, "train"),
        (30, "train"),
        (30, "eval"),
    ]
    for row in rows:
        names = _names(row)
        assert len(names) == 6
        products = [row[f"weight/{name}"] * row[f"raw/{name}"] for name in names]
        assert row["total"] == pytest.approx(math.fsum(products), rel=1e-6)
        for name, product in zip(names, products, strict=True):
            assert row[f"terms/{name}"] == pytest.approx(product, rel=1e-6)


def test_every_logged_event_of_tensorboard_adds_up(run):
    path, history, _ = run
    for split in ("train", "eval"):
        events = EventAccumulator(str(path / "tb" / split)).Reload()
        values: dict = {}
        for tag in events.Tags()["scalars"]:
            for event in events.Scalars(tag):
                values.setdefault(event.step, {})[tag] = event.value
        rows = {row["step"]: row for row in history.rows if row["split"] == split}
        assert values.keys() == rows.keys()
        for step, row in values.items():
            assert row.keys() == rows[step].keys() - {"step", "split", "time"}
            products = [row[f"weight/{name}"] * row[f"raw/{name}"] for name in _names(row)]
            assert row["total"] == pytest.approx(math.fsum(products), rel=1e-6)


def test_the_tags_are_those_of_the_contract(run):
    _, history, _ = run
    train = history.last("train")
    for start in TAGS:
        assert any(key.startswith(start) for key in train), start
    for key in ("learning_rate", "steps_per_second", "examples_per_second"):
        assert train[key] > 0
    assert train["metrics/mae"] > 0
    assert "metrics/mae" in history.last("eval")


def test_the_workdir_holds_the_files_of_a_run(run):
    path, history, _ = run
    assert json.loads((path / "config.json").read_text())["optimizer"]["learning_rate"] == 0.001
    (start,) = [json.loads(line) for line in (path / "starts.jsonl").read_text().splitlines()]
    assert start["versions"]["tensorflow"] == tf.__version__
    assert start["resumed_from"] is None
    done = json.loads((path / "DONE.json").read_text())
    assert done["step"] == 30 and done["seconds"] > 0
    assert done["total"] == history.rows[-2]["total"]
    assert done["eval"] == history.rows[-1]
    assert (path / "checkpoints" / "ckpt-30.index").exists()
    assert not list(path.rglob("*.tmp"))


def test_a_row_is_the_mean_of_its_steps():
    def rows(log_every):
        keras.utils.set_random_seed(0)
        x = np.linspace(-1, 1, 24, dtype="float32")[:, None]
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        trainer = Trainer(model, optimizer=keras.optimizers.SGD(0.1), loss="mse")
        data = (x, x**2)
        return trainer.fit(data, steps=6, batch_size=8, log_every=log_every, verbose=False).rows

    each, (window,) = rows(1), rows(6)
    for key in ("total", "grad_norm/total"):
        assert window[key] == pytest.approx(np.mean([row[key] for row in each]), rel=1e-6)


def test_the_gradient_norm_is_that_of_the_total():
    x = np.ones((4, 1), "float32")
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones", use_bias=False)]
    )
    trainer = Trainer(model, optimizer=keras.optimizers.SGD(0.0), loss="mse")
    row = trainer.fit((x, 3 * x), steps=1, batch_size=4, log_every=1, verbose=False).rows[0]
    assert row["grad_norm/total"] == pytest.approx(4.0)  # d (w - 3)^2 / dw at w = 1


def test_the_printed_run_reads_as_the_contract_says(capsys, workdir):
    x = np.linspace(-1, 1, 24, dtype="float32")[:, None]
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, kernel_regularizer="l2")], name="net"
    )
    Trainer(model, optimizer="sgd", loss="mse", workdir=workdir).fit(
        (x, x), steps=20, batch_size=8, log_every=10
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "run run | cpu, 1 replica | 20 steps | global batch 8 | new"
    assert lines[1].split() == ["term", "from", "weight"]
    assert lines[2].split() == ["mean_squared_error", "compiled", "1"]
    assert lines[4].startswith("step 10/20  total ")
    assert " = mean_squared_error " in lines[4] and "| eta " in lines[4]
    assert lines[-2].startswith("done 20 steps in ")
    assert lines[-2].endswith(f"{workdir}/checkpoints/ckpt-20")
    assert lines[-1] == f"see it: tensorboard --logdir {workdir}/tb"


def test_a_window_that_is_not_finite_is_written_as_null(workdir):
    x = np.ones((8, 1), "float32")
    x[0] = np.inf
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    trainer = Trainer(model, optimizer="sgd", loss="mse", workdir=workdir, on_nonfinite="skip")
    values = trainer.fit((x, x), steps=1, batch_size=8, validation_data=(x, x), verbose=False)
    text = (workdir / "metrics.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert values.rows[-1]["total"] is None


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.integers(0, 6))
def test_rounded_terms_add_up_to_their_rounded_sum(values, digits):
    rounded = round_to_sum(values, digits)
    unit = 10.0**-digits
    assert math.fsum(rounded) == pytest.approx(math.fsum(values), abs=0.51 * unit + 1e-9)
    for value, shown in zip(values, rounded, strict=True):
        assert abs(value - shown) <= unit * (1 + 1e-6) + 1e-9


def test_the_progress_line_adds_up_as_printed():
    row = {"total": 1.28449, "terms/a": 1.0714, "terms/b": 0.2134, "terms/c": -0.00031}
    assert equation(row) == "total 1.284 = a 1.071 + b 0.213 + c 0.000"


def test_many_terms_are_folded_and_still_add_up():
    row = {"total": 45.0, **{f"terms/t{i}": float(i) for i in range(10)}}
    assert equation(row) == (
        "total 45.00 = t5 5.00 + t6 6.00 + t7 7.00 + t8 8.00 + t9 9.00 + 5 more 10.00"
    )


@pytest.mark.parametrize(
    "seconds, text", [(0.4, "0s"), (59.4, "59s"), (250, "4m 10s"), (7500, "2h 05m")]
)
def test_durations_read_as_people_say_them(seconds, text):
    assert duration(seconds) == text
