"""Saving behind the training: what a checkpoint holds, and when it counts."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.persistence import checkpoint
from trainer.persistence.checkpoint import Checkpoints

ROOT = Path(__file__).parents[3]
QUIET = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture
def gate(monkeypatch):
    """Holds every write; each release lets one go on."""
    opened, real = threading.Semaphore(0), tf.train.Checkpoint.write

    def write(*arguments, **named):
        assert opened.acquire(timeout=300)
        return real(*arguments, **named)

    monkeypatch.setattr(tf.train.Checkpoint, "write", write)
    yield opened
    opened.release(10)


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def whole(step):
    return [f"ckpt-{step}.data-00000-of-00001", f"ckpt-{step}.index", f"ckpt-{step}.json"]


# ---- what is saved


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "XLA"])
def test_a_save_holds_the_values_of_its_moment_though_training_goes_on(compiled, gate, tmp_path):
    a, b = tf.Variable(tf.range(1000.0)), tf.Variable(tf.zeros([4, 3]))

    @tf.function(jit_compile=compiled)
    def train():
        for _ in tf.range(5):
            a.assign(a * 2 + 1)

    checkpoints = Checkpoints(tmp_path, {"model": [a, b]}, 3)
    checkpoints.save(7, wait=False)
    train()
    b.scatter_update(tf.IndexedSlices(tf.ones([1, 3]), [2]))
    gate.release()
    checkpoints.wait()
    assert float(a[1]) == 2**5 + 31  # x -> 2 x + 1, five times
    assert Path(checkpoints.restore_latest()).name == "ckpt-7"
    np.testing.assert_array_equal(a, np.arange(1000, dtype="float32"))
    np.testing.assert_array_equal(b, np.zeros([4, 3]))


def test_every_kind_of_value_comes_back(tmp_path):
    values = [
        np.float16([1.5, -2]),
        np.int64(2**40),
        np.array([True, False]),
        np.array([b"text", b""], object),
        np.zeros([0, 3]),
        np.float64([np.nan, np.inf, 5e-324]),
        np.asarray(tf.cast([1.0, 3.0], tf.bfloat16)),
    ]
    held = [tf.Variable(value) for value in values]
    checkpoints = Checkpoints(tmp_path, {"model": held}, 3)
    checkpoints.save(1, wait=True)
    for variable in held:
        variable.assign(tf.zeros_like(variable))
    checkpoints.restore_latest()
    for variable, value in zip(held, values, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
        assert variable.numpy().dtype == np.asarray(value).dtype


def test_the_variables_of_two_replicas_are_saved_and_restored_on_both(two_replicas, tmp_path):
    with two_replicas.scope():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        metric = keras.metrics.Mean()  # its variables are summed over the replicas when read
        step = tf.Variable(3, dtype=tf.int64)

    @tf.function
    def count():
        def replica():
            context = tf.distribute.get_replica_context()
            metric.update_state(4.0 * tf.cast(context.replica_id_in_sync_group, tf.float32))

        two_replicas.run(replica)

    count()
    state = {"model": model.variables, "metrics": metric.variables, "step": [step]}
    kernel = np.array(model.weights[0])
    checkpoints = Checkpoints(tmp_path, state, 3)
    checkpoints.save(3, wait=True)
    model.weights[0].assign(kernel * 0 + 9)
    metric.reset_state()
    step.assign(8)
    checkpoints.restore_latest()
    assert float(metric.result()) == 2.0 and int(step.numpy()) == 3  # (0 + 4) / 2
    for part in two_replicas.experimental_local_results(model.weights[0].value):
        np.testing.assert_array_equal(part, kernel)


def test_tensorflow_itself_reads_the_checkpoint_by_places_in_lists(tmp_path):
    held = [tf.Variable(1.0), tf.Variable(2.0)]
    Checkpoints(tmp_path, {"model": held, "step": [tf.Variable(5)]}, 3).save(5, wait=True)
    other = [tf.Variable(0.0), tf.Variable(0.0)]
    newest = tf.train.latest_checkpoint(tmp_path)
    tf.train.Checkpoint(model=other).restore(newest).expect_partial()
    assert [float(v) for v in other] == [1.0, 2.0]
    named = tf.train.load_checkpoint(newest).get_variable_to_shape_map()
    assert {"model/0/.ATTRIBUTES/VARIABLE_VALUE", "step/0/.ATTRIBUTES/VARIABLE_VALUE"} < set(named)


# ---- when it counts


def test_while_one_is_written_the_newest_is_the_one_before(gate, tmp_path):
    checkpoints = Checkpoints(tmp_path, {"model": [tf.Variable(1.0)]}, 3)
    gate.release()
    checkpoints.save(1, wait=True)
    path = checkpoints.save(2, wait=False)
    assert checkpoints.latest == str(tmp_path / "ckpt-1") and path == str(tmp_path / "ckpt-2")
    gate.release()
    checkpoints.wait()
    assert checkpoints.latest == path
    assert names(tmp_path) == ["checkpoint", *whole(1), *whole(2)]


def test_a_further_save_waits_for_the_one_before(gate, tmp_path):
    a = tf.Variable(1.0)
    checkpoints = Checkpoints(tmp_path, {"model": [a]}, 3)
    checkpoints.save(1, wait=False)
    a.assign(2.0)
    threading.Timer(0.1, gate.release).start()
    checkpoints.save(2, wait=False)
    assert checkpoints.latest == str(tmp_path / "ckpt-1")
    gate.release()
    checkpoints.wait()
    for step in (1, 2):
        checkpoints.restore(str(tmp_path / f"ckpt-{step}"))
        assert float(a) == step


def test_a_new_start_in_the_same_process_waits_for_the_write_of_the_one_before(gate, tmp_path):
    a = tf.Variable(4.0)
    Checkpoints(tmp_path, {"model": [a]}, 3).save(4, wait=False)  # whose fit was then broken off
    threading.Timer(0.1, gate.release).start()
    assert Checkpoints(tmp_path, {"model": [a]}, 3).latest == str(tmp_path / "ckpt-4")


def test_a_process_that_ends_right_after_a_save_leaves_it_whole(tmp_path):
    program = (
        "import sys, tensorflow as tf\n"
        "from trainer.persistence.checkpoint import Checkpoints\n"
        "state = {'model': [tf.Variable(tf.ones([1000, 1000]))]}\n"
        "Checkpoints(sys.argv[1], state, 3).save(6, wait=False)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT, env=QUIET, timeout=120, capture_output=True)
    a = tf.Variable(tf.zeros([1000, 1000]))
    assert Checkpoints(tmp_path, {"model": [a]}, 3).restore_latest() == str(tmp_path / "ckpt-6")
    assert float(tf.reduce_sum(a)) == 1e6


@pytest.mark.slow
def test_a_process_killed_at_any_moment_leaves_a_whole_newest_checkpoint(tmp_path):
    program = (
        "import sys, tensorflow as tf\n"
        "from trainer.persistence.checkpoint import Checkpoints\n"
        "held = [tf.Variable(tf.zeros([300, 300])) for _ in range(8)]\n"
        "checkpoints = Checkpoints(sys.argv[1], {'model': held}, 2, keep_best=1)\n"
        "checkpoints.restore_latest()\n"
        "step = int(held[0][0, 0])\n"
        "while True:\n"
        "    step += 1\n"
        "    for v in held: v.assign(tf.fill([300, 300], float(step)))\n"
        "    checkpoints.save(step, {'total': abs(step - 10.0)}, wait=True)\n"
        "    print(step, flush=True)\n"
    )
    rng, told = np.random.default_rng(0), 0
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env=QUIET,
            text=True,
        ) as process:
            lines = [process.stdout.readline() for _ in range(rng.integers(1, 20))]
            time.sleep(rng.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
        told = max(told, *(int(line) for line in lines if line.endswith("\n")))
        held = [tf.Variable(tf.zeros([300, 300])) for _ in range(8)]
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # nothing is damaged: nothing is passed over
            found = Checkpoints(tmp_path, {"model": held}, 2).restore_latest()
        step = int(found.rpartition("-")[2])
        assert step >= told > 0
        assert {float(value) for v in held for value in np.unique(v)} == {float(step)}
    state = {"model": held}
    Checkpoints(tmp_path, state, 2, keep_best=1).wait()
    best = json.loads((tmp_path / "best.json").read_text())
    assert best == [{"step": min(step, 10), "value": float(abs(min(step, 10) - 10))}]
    kept = sorted({step - 1, step, min(step, 10)}, key=str)
    assert names(tmp_path) == ["best.json", "checkpoint", *(f for s in kept for f in whole(s))]


def test_the_hosts_that_do_not_write_only_read(tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder, {"model": [tf.Variable(1.0)]}, 3, writes=False)
    assert checkpoints.save(1) == str(folder / "ckpt-1")
    checkpoints.wait()
    assert not folder.exists() and checkpoints.latest is None


def test_a_reader_sees_the_checkpoints_that_another_process_adds(tmp_path):
    a = tf.Variable(1.0)
    reader = Checkpoints(tmp_path, {"model": [a]}, None, writes=False)
    assert reader.look_again() is None
    writer = Checkpoints(tmp_path, {"model": [a]}, 1)
    writer.save(1, wait=True)
    assert reader.look_again() == str(tmp_path / "ckpt-1")
    writer.save(2, wait=True)  # which removes the first
    assert reader.look_again() == reader.restore_latest() == str(tmp_path / "ckpt-2")


def test_a_checkpoint_that_goes_away_while_it_is_read_gives_way_to_its_successor(
    tmp_path, monkeypatch
):
    a, real = tf.Variable(1.0), checkpoint.load
    writer = Checkpoints(tmp_path, {"model": [a]}, 1)
    writer.save(1, wait=True)
    b = tf.Variable(0.0)
    reader = Checkpoints(tmp_path, {"model": [b]}, None, writes=False)

    def load(*arguments):
        if writer.latest.endswith("ckpt-1"):
            a.assign(2.0)
            writer.save(2, wait=True)
        return real(*arguments)

    monkeypatch.setattr(checkpoint, "load", load)
    assert reader.restore_latest() == str(tmp_path / "ckpt-2") and float(b) == 2.0


def test_a_damaged_one_that_was_asked_for_is_an_error(tmp_path):
    checkpoints = Checkpoints(tmp_path, {"model": [tf.Variable(tf.ones([100]))]}, 3)
    path = checkpoints.save(1, wait=True)
    os.truncate(f"{path}.data-00000-of-00001", 30)
    with pytest.raises(OSError, match=r"ckpt-1 cannot be read: .* Start again: the newest whole"):
        checkpoints.restore(path)
    Path(f"{path}.json").write_text("{}")
    with pytest.raises(ValueError, match=r"ckpt-1 is damaged: ckpt-1\.json holds step=None\. Res"):
        checkpoints.restore(path)


@pytest.mark.parametrize("name", ["lr=[1e-3]", "a b", "größe", "back\\slash", "st*r?", "[ab]*\\"])
def test_a_checkpoint_is_found_again_below_any_name(name, tmp_path):
    a = tf.Variable(1.0)
    folder = tmp_path / name / "checkpoints"
    Checkpoints(folder, {"model": [a]}, 3, keep_best=1).save(7, {"total": 1.0})
    a.assign(2.0)
    other = Checkpoints(folder, {"model": [a]}, 3)
    assert other.restore_latest() == other.latest == str(folder / "ckpt-7") and float(a) == 1.0
    a.assign(2.0)
    other.restore(str(folder / "ckpt-7"))
    assert float(a) == 1.0
    (folder / "ckpt-7.json").unlink()  # as an older version wrote it
    a.assign(2.0)
    assert Checkpoints(folder, {"model": [a]}, 3).restore_latest() and float(a) == 1.0
