"""jit_compile="auto": decided by timing both, noted, kept, and without a trace in the training."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer import Trainer
from trainer.loop import jit_choice


def model():
    keras.utils.set_random_seed(6)
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dropout(0.3),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(1),
        ]
    )


def arrays(examples=64):
    rng = np.random.default_rng(7)
    x = rng.normal(size=(examples, 6)).astype("float32")
    return x, (x[:, :1] * x[:, 1:2]).astype("float32")


def make(workdir=None, jit_compile="auto", build=model, strategy="one_device", **arguments):
    given = {"optimizer": "adam", "loss": "mse", "metrics": ["mae"], **arguments}
    return Trainer(build, strategy=strategy, workdir=workdir, jit_compile=jit_compile, **given)


def pipeline():
    data = tf.data.Dataset.from_tensor_slices(arrays())
    return data.shuffle(64, seed=1).batch(16)


def noted(workdir):
    return [json.loads(line) for line in (workdir / "starts.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def _short_trials(monkeypatch):
    monkeypatch.setattr(jit_choice, "TRIAL_SECONDS", 0.01)
    monkeypatch.setattr(jit_choice, "ROUNDS", 1)


@pytest.mark.parametrize("accumulated", [None, pytest.param(3, marks=pytest.mark.very_slow)])
def test_the_trial_leaves_no_trace_in_the_training(tmp_path, accumulated):
    def optimizer():
        return keras.optimizers.Adam(
            0.01, gradient_accumulation_steps=accumulated, use_ema=True, ema_momentum=0.9
        )

    trainer = make(tmp_path, optimizer=optimizer())
    history = trainer.fit(arrays(), batch_size=16, steps=9, log_every=4, verbose=False)
    (start,) = noted(tmp_path)
    found = start["jit_compile"]
    assert found["because"] == "timed"
    seconds = found["seconds_per_step"]
    assert seconds["plain"] > 0 and seconds["xla"] > 0
    assert found["compiled"] is (seconds["xla"] < seconds["plain"])

    same = make(jit_compile=found["compiled"], optimizer=optimizer())
    expected = same.fit(arrays(), batch_size=16, steps=9, log_every=4, verbose=False)
    for mine, theirs in zip(trainer.model.weights, same.model.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for mine, theirs in zip(trainer.optimizer.variables, same.optimizer.variables, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    totals = [row["total"] for row in history.rows], [row["total"] for row in expected.rows]
    assert totals[0] == totals[1]


@pytest.mark.parametrize("answer", [True, False])
def test_a_continued_run_keeps_what_the_first_start_found(tmp_path, answer, monkeypatch):
    def timed(source, batch, loops, traced, now):
        return {"compiled": answer, "because": "timed", "seconds_per_step": {}}

    monkeypatch.setattr(jit_choice, "timed", timed)
    whole = make(tmp_path / "whole")
    whole.fit(pipeline(), steps=9, verbose=False)
    assert whole._run.jit.xla is answer
    make(tmp_path / "run").fit(pipeline(), steps=5, verbose=False)

    monkeypatch.setattr(jit_choice, "timed", None)  # it would fail if it were called
    resumed = make(tmp_path / "run")
    resumed.fit(pipeline(), steps=9, verbose=False)
    assert resumed._run.jit.xla is answer
    assert [start["jit_compile"]["compiled"] for start in noted(tmp_path / "run")] == [answer] * 2
    for mine, theirs in zip(resumed.model.weights, whole.model.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.slow
def test_on_several_replicas_both_are_timed_and_no_trace_is_left(two_replicas):
    trainer = make(strategy=two_replicas)
    trainer.fit(arrays(), batch_size=16, steps=3, verbose=False)
    decided = trainer._run.jit.decided
    assert decided["because"] == "timed"
    assert decided["seconds_per_step"]["xla"] > 0

    same = make(jit_compile=decided["compiled"], strategy=two_replicas)
    same.fit(arrays(), batch_size=16, steps=3, verbose=False)
    for mine, theirs in zip(trainer.model.weights, same.model.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for mine, theirs in zip(trainer.optimizer.variables, same.optimizer.variables, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.slow
def test_what_xla_cannot_take_on_several_replicas_runs_without_it(two_replicas):
    def loss(y, p):
        return tf.numpy_function(lambda t: t, [tf.square(y - p)], tf.float32) * 0 + tf.square(y - p)

    weight = losses.UncertaintyWeight()  # made outside the strategy's scope
    for arguments in ({"loss": loss}, {"loss_weights": weight}):
        trainer = make(strategy=two_replicas, **arguments)
        history = trainer.fit(arrays(), batch_size=16, steps=2, verbose=False)
        assert trainer._run.jit.decided["compiled"] is False
        assert trainer._run.jit.decided["because"].startswith("XLA refused the step: ")
        assert history.rows[-1]["step"] == 2


def test_several_hosts_are_not_timed(monkeypatch):
    monkeypatch.setattr(jit_choice, "host_count", lambda strategy: 2)
    trainer = make()
    trainer.fit(arrays(), batch_size=16, steps=1, verbose=False)
    assert trainer._run.jit.decided == {"compiled": False, "because": "several hosts"}


def test_pipelines_are_timed_on_their_first_batch():
    trainer = make()
    trainer.fit(pipeline(), steps=3, verbose=False)
    assert trainer._run.jit.decided["because"] == "timed"
    assert int(trainer.step) == 3


def words():
    keras.utils.set_random_seed(8)
    return keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            keras.layers.Embedding(20, 4, mask_zero=True),
            keras.layers.LSTM(4),
            keras.layers.Dense(1),
        ]
    )


def sentences():
    rng = np.random.default_rng(9)
    return rng.integers(0, 20, (64, 6)).astype("int32"), rng.normal(size=(64, 1)).astype("float32")


@pytest.mark.very_slow
@pytest.mark.parametrize("kind", ["arrays", "pipeline"])
def test_words_and_loops_compiled_train_as_they_do_plain(kind):
    def weights(jit_compile):
        trainer = make(build=words, jit_compile=jit_compile)
        data, batch = sentences(), {"batch_size": 16}
        if kind == "pipeline":
            data, batch = tf.data.Dataset.from_tensor_slices(data).batch(16), {}
        trainer.fit(data, steps=10, verbose=False, **batch)
        return trainer.model.get_weights()

    for compiled, plain in zip(weights(True), weights(False), strict=True):
        np.testing.assert_allclose(compiled, plain, rtol=1e-4, atol=1e-5)


def origins(tensor):
    """The kinds of the operations that a tensor of a graph comes of."""
    return {tensor.op.type}.union(*(origins(given) for given in tensor.op.inputs))


def test_how_many_rows_an_embedding_has_is_a_constant_of_the_compiled_step():
    # found in the graph, it made XLA compile each step anew
    trainer = make(build=words, jit_compile=True)
    trainer.build(sentences(), batch_size=16)
    (step,) = trainer._run.programs.steps
    sums = [op for op in step.function.graph.get_operations() if op.type == "UnsortedSegmentSum"]
    assert sums
    for op in sums:
        assert origins(op.inputs[2]) <= {"Const", "StridedSlice"}


def test_further_fits_and_replays_keep_the_choice_and_its_traces(tmp_path, monkeypatch):
    def timed(source, batch, loops, traced, now):
        return {"compiled": True, "because": "timed", "seconds_per_step": {}}

    monkeypatch.setattr(jit_choice, "timed", timed)
    trainer = make(tmp_path)
    fit = dict(batch_size=16, validation_data=arrays(), verbose=False)
    trainer.fit(arrays(), steps=2, **fit)
    traces = trainer._run.evaluation.traces
    trainer.fit(arrays(), steps=4, **fit)
    assert trainer._run.evaluation.traces == traces

    again = make(tmp_path)
    again.replay(arrays(), 6, batch_size=16)
    assert again._run.jit.xla is True


def test_what_xla_refuses_runs_without_it():
    def loss(y, p):
        return tf.numpy_function(lambda t: t, [tf.square(y - p)], tf.float32) * 0 + tf.square(y - p)

    trainer = make(loss=loss)
    history = trainer.fit(arrays(), batch_size=16, steps=2, verbose=False)
    assert trainer._run.jit.decided["compiled"] is False
    assert trainer._run.jit.decided["because"].startswith("XLA refused the step: ")
    assert history.rows[-1]["step"] == 2


def test_a_program_that_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(jit_choice, "COMPILE_SECONDS", 0.0)
    trainer = make()
    trainer.fit(arrays(), batch_size=16, steps=2, verbose=False)
    assert trainer._run.jit.decided["compiled"] is False
    assert "had not compiled" in trainer._run.jit.decided["because"]


@pytest.mark.very_slow
def test_an_edited_note_is_found_anew(tmp_path):
    make(tmp_path).fit(arrays(), batch_size=16, steps=2, verbose=False)
    (tmp_path / "starts.jsonl").write_text('{"jit_compile": {"compiled": "yes"}}\nnot json\n')
    again = make(tmp_path)
    again.fit(arrays(), batch_size=16, steps=4, verbose=False)
    assert type(again._run.jit.decided["compiled"]) is bool


@pytest.mark.parametrize("given", ["always", None, 1])
def test_other_values_are_refused(given):
    with pytest.raises(ValueError, match=r"jit_compile=.*accepted are True, False and 'auto'"):
        make(jit_compile=given)


ONE_PROGRAM = """
import numpy as np, keras
from trainer import Trainer
model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
trainer = Trainer(model, loss="mse", jit_compile=True)
x = np.random.default_rng(0).normal(size=(80, 6)).astype("float32")
trainer.fit((x, x[:, :1]), batch_size=8, steps=23, log_every=3, steps_per_loop=4, verbose=False)
"""


@pytest.mark.very_slow  # a process of its own: XLA reads its flags once
def test_steps_of_arrays_are_compiled_once_wherever_in_an_epoch_they_begin(tmp_path):
    flags = f"--xla_dump_to={tmp_path} --xla_dump_hlo_as_text"
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", ONE_PROGRAM]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    compiled = [file.read_text() for file in tmp_path.glob("*cpu_after_optimizations.txt")]
    assert sum(" while(" in text for text in compiled) == 1
