"""`--xla_cache`: what XLA has compiled is loaded at the next start, and nothing damaged is met."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf

from experiments.cli import xla_cache
from experiments.cli.configuration import ConfigurationError
from trainer.errors import cache_failure

ROOT = Path(__file__).resolve().parents[3]
WHOLE = b"\x0a\x03key\x12\x05hello\x18\x96\x01"  # two strings and a number, by hand
EXPERIMENT = """
import keras, numpy as np
from experiments.experiment import Experiment
from trainer import Trainer

def experiment(config, strategy, workdir):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    trainer = Trainer(model, optimizer="adam", loss="mse", strategy=strategy, workdir=workdir,
                      jit_compile=config.jit)
    x = np.arange(64, dtype="float32").reshape(16, 4) / 64
    return Experiment(trainer, (x, x[:, :1]), fit={"steps": 6, "batch_size": 8, "log_every": 2})
"""
CONFIG = """
from ml_collections import ConfigDict

def get_config():
    return ConfigDict(dict(experiment="compiled", jit=True))
"""


class Started:
    """TensorFlow's settings of threads, which may be changed until it starts."""

    def __init__(self, started):
        self.started = started

    def get_intra_op_parallelism_threads(self):
        return 0

    def set_intra_op_parallelism_threads(self, count):
        if self.started:
            raise RuntimeError("cannot be modified after initialization")


def tensorflow(started=False):
    return SimpleNamespace(__version__="2.21.0", config=SimpleNamespace(threading=Started(started)))


@pytest.fixture(autouse=True)
def variables(monkeypatch):
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_max_cluster_size=9")
    return monkeypatch


def test_tensorflow_is_told_a_folder_of_this_machine_beside_its_other_flags(tmp_path):
    place = xla_cache.use(str(tmp_path / "kept here"), tensorflow())
    assert place.is_dir() and place.parent == tmp_path / "kept here"
    assert place.name.startswith("tensorflow-2.21.0-")
    told = f'--tf_xla_max_cluster_size=9 --tf_xla_persistent_cache_directory="{place}"'
    assert os.environ["TF_XLA_FLAGS"] == told


def test_other_flags_of_xla_and_other_versions_have_folders_of_their_own(tmp_path, variables):
    places = {xla_cache.use(str(tmp_path), tensorflow())}
    for name, value in [("TF_XLA_FLAGS", ""), ("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")]:
        variables.setenv("TF_XLA_FLAGS", "--tf_xla_max_cluster_size=9")
        variables.setenv(name, value)
        places.add(xla_cache.use(str(tmp_path), tensorflow()))
    variables.setenv("TF_XLA_FLAGS", "--tf_xla_max_cluster_size=9")
    newer = tensorflow()
    newer.__version__ = "2.22.0"
    places.add(xla_cache.use(str(tmp_path), newer))
    assert len(places) == 4


def test_what_was_not_written_to_its_end_is_removed(tmp_path, variables):
    place = xla_cache.use(str(tmp_path), tensorflow())
    (place / "whole.pb").write_bytes(WHOLE)
    (place / "cut.pb").write_bytes(WHOLE[:-7])
    for name, age in [("old.tmp", 2 * xla_cache.ABANDONED), ("new.tmp", 0)]:
        (place / name).write_bytes(b"x")
        now = (place / name).stat().st_mtime
        os.utime(place / name, (now - age, now - age))
    variables.setenv("TF_XLA_FLAGS", "--tf_xla_max_cluster_size=9")
    assert xla_cache.use(str(tmp_path), tensorflow()) == place
    assert sorted(path.name for path in place.iterdir()) == ["new.tmp", "whole.pb"]


@pytest.mark.parametrize("end", range(len(WHOLE)))
def test_a_file_that_lost_its_end_is_not_whole(end, tmp_path):
    path = tmp_path / "file.pb"
    path.write_bytes(WHOLE)
    assert xla_cache.whole(path)
    path.write_bytes(WHOLE[:end])
    between = end in (5, 12)  # the end of a field
    assert xla_cache.whole(path) == between


@pytest.mark.parametrize("content", [bytes(64), b"\xff" * 64, WHOLE + bytes(8), b"\x0b\x01"])
def test_zeros_and_what_is_no_message_are_not_whole(content, tmp_path):
    path = tmp_path / "file.pb"
    path.write_bytes(content)
    assert not xla_cache.whole(path)


@pytest.mark.parametrize(
    "folder, started, message",
    [
        ("file", False, "Not a directory. Give a folder that can be written."),
        ('a"b', False, "give a path without quotes."),
        ("folder", True, "--xla_cache: TensorFlow has started, and must know it before."),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(folder, started, message, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError) as refused:
        xla_cache.use(str(tmp_path / folder), tensorflow(started))
    assert message in str(refused.value)


def test_two_folders_are_refused(tmp_path, variables):
    variables.setenv("TF_XLA_FLAGS", "--tf_xla_persistent_cache_directory=/other")
    with pytest.raises(ConfigurationError, match=r"TF_XLA_FLAGS names a folder already, .*/other"):
        xla_cache.use(str(tmp_path), tensorflow())


@pytest.mark.parametrize(
    "said",
    ["Read less bytes than requested", "/c/xla_compile_cache__1.pb; No space left on device"],
)
def test_an_error_of_the_folder_says_which(said, variables):
    error = tf.errors.OutOfRangeError(None, None, f"{said} [Op:__inference_f_10]")
    assert cache_failure(error) is None  # no folder is in use
    variables.setenv("TF_XLA_FLAGS", '--tf_xla_persistent_cache_directory="/my runs/xla"')
    assert cache_failure(tf.errors.OutOfRangeError(None, None, "End of sequence")) is None
    assert str(cache_failure(error)) == (
        f"XLA cannot use what it keeps in /my runs/xla: {said}. Delete that folder, or give it a "
        "disk with space."
    )


@pytest.mark.slow
def test_the_next_start_loads_what_the_first_one_compiled(tmp_path):
    (tmp_path / "compiled.py").write_text(EXPERIMENT)
    (tmp_path / "config.py").write_text(CONFIG)

    def run(name, *arguments):
        command = [sys.executable, "-m", "experiments.run", f"--config={tmp_path}/config.py"]
        command += [f"--workdir={tmp_path}/{name}", f"--xla_cache={tmp_path}/xla", *arguments]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
        environment.pop("TF_XLA_FLAGS")
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
        )

    def rows(name):
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["total"] for line in lines]

    not_compiled = run("plain", "--config.jit=False")
    assert "XLA has kept nothing. It compiles where" in not_compiled.stdout
    for name in ("first", "second"):
        done = run(name)
        assert done.returncode == 0 and "kept nothing" not in done.stdout, done.stderr
        kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("xla/*/*.pb")}
        assert kept
        if name == "first":
            found = kept
    assert kept == found and rows("second") == rows("first")
    for path in kept:
        path.write_bytes(WHOLE)  # of another program
    done = run("third")
    assert done.returncode == 2
    assert "error: XLA cannot use what it keeps in" in done.stderr
