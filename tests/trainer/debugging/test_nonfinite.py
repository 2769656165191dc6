"""Values and gradients that are not finite: the term, the step, and what the run does then."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer import Nonfinite, Trainer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype("float32")
Y = RNG.normal(size=(40, 1)).astype("float32")


def build():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="ones")])


def term_that(function, name):
    return losses.term(function, name=name)


def broken_value(at, value=np.inf):
    """A term whose value is broken at step `at`, counted from 1."""

    def call(step):
        bad = tf.where(tf.equal(step.step, at - 1), tf.constant(value, tf.float32), 0.0)
        return bad + 0.1 * tf.reduce_mean(step.y_pred**2, axis=-1)

    return term_that(call, "broken")


def broken_gradient(at):
    """A term whose value is finite and whose gradient is not, at step `at`."""

    def call(step):
        off = tf.where(tf.equal(step.step, at - 1), 0.0, 1.0)
        return tf.sqrt(tf.reduce_sum(step.y_pred**2, axis=-1) * off)  # no slope at 0

    return term_that(call, "root")


def fit(
    workdir=None, data=(X, Y), steps=30, terms=(), strategy="one_device", shuffle=True, **arguments
):
    settings = dict(shuffle=shuffle, batch_size=8, log_every=10, checkpoint_every=5, verbose=False)
    if isinstance(data, tf.data.Dataset):
        settings.pop("batch_size")
    trainer = Trainer(
        build,
        optimizer=keras.optimizers.SGD(0.01),
        loss="mse",
        terms=terms,
        workdir=workdir,
        strategy=strategy,
        **arguments,
    )
    return trainer, trainer.fit(data, steps=steps, **settings)


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_first_term_and_its_step_are_named(replicas, workdir, two_replicas):
    strategy = two_replicas if replicas == 2 else "one_device"
    with pytest.raises(Nonfinite) as error:
        fit(workdir, terms=[broken_value(17)], strategy=strategy)
    assert error.value.terms == ["broken"]
    text = str(error.value)
    assert "term 'broken' became infinite between steps 11 and 17, at step 17" in text
    assert "last finite total" in text
    assert "ckpt-15" in text
    assert "--mode=replay --step=17" in text


def test_the_offending_batch_is_kept(workdir):
    bad = X.copy()
    bad[13, 1] = np.nan
    data = tf.data.Dataset.from_tensor_slices((bad, Y)).batch(8)
    with pytest.raises(Nonfinite, match="at step 2"):
        fit(workdir, data)
    with np.load(workdir / "nonfinite" / "step-2.npz") as kept:
        np.testing.assert_array_equal(kept["x"], bad[8:16])
        np.testing.assert_array_equal(kept["y"], Y[8:16])


def test_the_term_of_a_gradient_is_found_by_training_up_to_it_again(workdir):
    with pytest.raises(Nonfinite) as error:
        fit(workdir, terms=[broken_gradient(17)])
    text = str(error.value)
    assert "the gradient became NaN between steps 11 and 17, at step 17" in text
    assert "It is that of term 'root'" in text
    assert error.value.terms == ["root"]


def test_a_replay_shows_the_step(workdir):
    with pytest.raises(Nonfinite):
        fit(workdir, terms=[broken_gradient(17)])
    trainer = Trainer(
        build,
        optimizer=keras.optimizers.SGD(0.01),
        loss="mse",
        terms=[broken_gradient(17)],
        workdir=workdir,
    )
    table = trainer.replay((X, Y), 17, batch_size=8).splitlines()
    assert table[0].split() == ["term", "raw", "weight", "gradient", "norm", "of", "raw"]
    rows = {line.split()[0]: line.split()[1:] for line in table[1:]}
    assert np.isfinite(float(rows["mean_squared_error"][2]))
    assert float(rows["root"][0]) == 0.0 and not np.isfinite(float(rows["root"][2]))
    with pytest.raises(ValueError, match="newest checkpoint is of step"):
        trainer.replay((X, Y), 3, batch_size=8)


@pytest.mark.parametrize("kind", ["arrays", "pipeline"])
def test_restoring_goes_on_past_the_data(kind, workdir, capsys):
    x, y = RNG.normal(size=(2, 160, 3)).astype("float32")
    y = y[:, :1].copy()
    y[50] = np.nan  # in the 7th batch, where nothing is shuffled
    pipeline = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    source = (x, y) if kind == "arrays" else pipeline
    trainer, history = fit(workdir, source, steps=12, on_nonfinite="restore", shuffle=False)
    assert int(trainer.step) == 12
    assert "Restored to step 5; the data goes on behind" in capsys.readouterr().err
    assert [row["step"] for row in history.rows] == [10, 12]
    assert all(np.isfinite(w).all() for w in trainer.model.get_weights())
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 12]
    starts = [json.loads(line) for line in (workdir / "starts.jsonl").read_text().splitlines()]
    assert [(start["resumed_from"], start.get("not_finite")) for start in starts] == [
        (None, None),
        (5, 7),
    ]


def test_restoring_again_and_again_ends_in_an_error(workdir):
    with pytest.raises(Nonfinite, match="'broken' became NaN"):
        fit(workdir, steps=12, terms=[broken_value(7, np.nan)], on_nonfinite="restore")


def test_restoring_needs_a_workdir():
    with pytest.raises(ValueError, match="needs workdir="):
        Trainer(build, loss="mse", on_nonfinite="restore")
