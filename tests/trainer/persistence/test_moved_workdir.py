"""A workdir that is moved or deleted while a run writes there: an error, and no second folder."""

import os
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import Trainer
from trainer.persistence.checkpoint import Checkpoints
from trainer.persistence.files import PinnedFolder
from trainer.persistence.lock import WorkdirLock
from trainer.persistence.workdir import Workdir

X = np.ones((16, 2), "float32")
ROW = {"step": 1, "split": "train", "total": 1.0}
GONE = r"is no longer the folder that this run writes to: it was moved or deleted"


def delete(folder):
    shutil.rmtree(folder.rename(folder.with_name("deleted")))  # at once: a thread may be writing


def move(folder):
    folder.rename(folder.with_name("moved"))


def replace(folder):
    move(folder)
    folder.mkdir()


@pytest.mark.parametrize("happens", [delete, move, replace])
def test_the_next_write_of_each_file_is_an_error(happens, workdir):
    run = Workdir(workdir)
    run.start({"seed": 0}, None)
    run.metrics.append(ROW)
    happens(workdir)
    writes = (
        lambda: run.metrics.append(ROW),
        lambda: run.metrics.sync(),
        lambda: run.done({"seconds": 1.0}),
        lambda: run.start(None, 1),
        lambda: run.events,
        lambda: run.checkpoints,
    )
    for write in writes:
        with pytest.raises(FileNotFoundError, match=GONE):
            write()
    run.metrics.close()
    assert not workdir.exists() or not os.listdir(workdir)


def test_a_relative_workdir_stays_where_it_was_when_the_directory_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Workdir("runs/q1")
    run.start({"seed": 0}, None)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    with pytest.raises(FileNotFoundError, match=r"^runs/q1 .* or the process changed its direct"):
        run.metrics.append(ROW)
    assert os.listdir(tmp_path / "other") == []


@pytest.mark.parametrize("happens", [delete, move, replace])
def test_a_checkpoint_is_written_to_no_other_folder(happens, workdir):
    workdir.mkdir()
    checkpoints = Checkpoints(workdir / "checkpoints", {"model": [tf.Variable(1.0)]}, 1)
    checkpoints.save(1)
    happens(workdir)
    with pytest.raises(FileNotFoundError, match=GONE):
        checkpoints.save(2)
    assert not workdir.exists() or not os.listdir(workdir)


@pytest.mark.parametrize("happens", [delete, move, replace])
def test_a_fit_ends_with_the_error_and_makes_no_second_workdir(happens, workdir):
    class Happens(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 3:
                happens(workdir)

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    trainer = Trainer(model, optimizer="sgd", loss="mse", workdir=workdir)
    given = {"batch_size": 8, "log_every": 1, "checkpoint_every": 20, "steps_per_loop": 1}
    with pytest.raises(FileNotFoundError, match=GONE):
        trainer.fit((X, X[:, :1]), steps=40, verbose=False, callbacks=[Happens()], **given)
    assert not workdir.exists() or not os.listdir(workdir)


def test_the_lock_of_another_run_in_the_same_place_stays(workdir):
    first = WorkdirLock(workdir)
    move(workdir)
    second = WorkdirLock(workdir)
    first.release()
    assert (workdir / "lock").exists()
    second.release()
    assert not (workdir / "lock").exists()


def test_a_row_is_not_written_to_a_file_that_was_removed(workdir):
    run = Workdir(workdir)
    run.start({"seed": 0}, None)
    run.metrics.append(ROW)
    (workdir / "metrics.jsonl").rename(workdir / "mine.jsonl")
    with pytest.raises(FileNotFoundError, match=r"metrics.jsonl cannot be written: No such file"):
        run.metrics.append(ROW)
    (workdir / "metrics.jsonl").write_text("")
    with pytest.raises(FileNotFoundError, match="Another file is in its place"):
        run.metrics.append(ROW)
    run.metrics.close()


def test_a_folder_may_be_reached_by_another_path(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    folder = PinnedFolder(tmp_path / "link")
    folder.check()  # not pinned: anything goes
    folder.pin()
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    folder.check()
