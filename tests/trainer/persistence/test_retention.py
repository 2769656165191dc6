"""Which checkpoints stay: the last and the best, and a record that any crash leaves the same."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trainer.persistence import manifest
from trainer.persistence.checkpoint import Checkpoints
from trainer.persistence.checkpoint_files import manifest_steps, remove_remains
from trainer.persistence.retention import Retention, more_is_better

ENDS = ("data-00000-of-00001", "index", "json")
TOTALS = {1: 0.9, 2: 0.3, 3: 0.5, 4: 0.7, 5: 0.4}


def steps(folder):
    return manifest_steps(folder)[::-1]


def record(folder):
    return json.loads((folder / "best.json").read_text())


def fake(folder, step, metrics):
    """A checkpoint with small files that nobody will load."""
    for end in ("index", "data-00000-of-00001"):
        (folder / f"ckpt-{step}.{end}").write_bytes(b"x")
    manifest.write_manifest(str(folder / f"ckpt-{step}"), {}, metrics)


def test_the_last_and_the_best_stay_separately(tmp_path):
    checkpoints = Checkpoints(tmp_path, {"model": [tf.Variable(1.0)]}, 2, keep_best=2)
    for step, total in TOTALS.items():
        checkpoints.save(step, {"total": total}, wait=True)
    assert steps(tmp_path) == [2, 4, 5]  # the last are 4 and 5, the best 2 and 5
    assert record(tmp_path) == [{"step": 2, "value": 0.3}, {"step": 5, "value": 0.4}]
    assert {int(f.name.split("-")[1][0]) for f in tmp_path.glob("ckpt-*")} == {2, 4, 5}
    listed = tf.train.get_checkpoint_state(tmp_path).all_model_checkpoint_paths
    assert list(listed) == [str(tmp_path / f"ckpt-{step}") for step in (2, 4, 5)]


@pytest.mark.parametrize(
    ("metric", "mode", "kept"),
    [
        ("metrics/accuracy", "auto", [1, 5]),
        ("metrics/accuracy", "min", [2, 5]),
        ("total", "auto", [2, 5]),
        ("total", "max", [1, 5]),
    ],
)
def test_best_is_least_or_most(metric, mode, kept, tmp_path):
    retention = Retention(1, 1, metric, mode)
    for step, value in TOTALS.items():
        fake(tmp_path, step, {metric: value})
        retention.apply(tmp_path, step)
    assert steps(tmp_path) == kept


def test_of_equal_values_the_earlier_is_better(tmp_path):
    retention = Retention(1, 1, "total", "min")
    for step in range(1, 5):
        fake(tmp_path, step, {"total": 0.5})
        retention.apply(tmp_path, step)
    assert steps(tmp_path) == [1, 4]


def test_a_checkpoint_without_the_number_is_kept_by_its_age_alone(tmp_path):
    said = []
    state = {"model": [tf.Variable(1.0)]}
    checkpoints = Checkpoints(tmp_path, state, 1, keep_best=1, say=said.append)
    rows = [
        {"total": 0.5, "done": True, "name": "q1"},
        {"total": None},
        {"total": float("nan")},
        None,
        {"totl": 0.1},
    ]
    for step, row in enumerate(rows):
        checkpoints.save(step, row, wait=True)
    assert steps(tmp_path) == [0, 4] and record(tmp_path) == [{"step": 0, "value": 0.5}]
    assert len(said) == 1 and "best_metric='total' is not in the row" in said[0]


def test_all_stay_without_a_number(tmp_path):
    retention = Retention(None, 0, "total", "auto")
    for step in range(5):
        fake(tmp_path, step, {})
        retention.apply(tmp_path, step)
    assert steps(tmp_path) == [0, 1, 2, 3, 4] and not (tmp_path / "best.json").exists()


def test_after_a_restore_to_an_earlier_step_the_later_ones_do_not_count_as_best(tmp_path):
    retention = Retention(2, 1, "total", "min")
    for step, total in ((1, 0.5), (2, 0.4), (3, 0.1)):
        fake(tmp_path, step, {"total": total})
        retention.apply(tmp_path, step)
    os.truncate(tmp_path / "ckpt-3.index", 0)  # so that the run goes on from 2
    fake(tmp_path, 3, {"total": 0.45})
    retention.apply(tmp_path, 3)
    assert record(tmp_path) == [{"step": 2, "value": 0.4}] and steps(tmp_path) == [2, 3]


def test_the_end_of_a_run_writes_a_record_that_a_crash_left_out(tmp_path):
    state = {"model": [tf.Variable(1.0)]}
    Checkpoints(tmp_path, state, 1, keep_best=1).save(1, {"total": 0.5}, wait=True)
    (tmp_path / "best.json").unlink()  # killed between the manifest and the record
    Checkpoints(tmp_path, state, 1, keep_best=1).wait()
    assert record(tmp_path) == [{"step": 1, "value": 0.5}]


@pytest.mark.parametrize("name", ["best.json", "checkpoint"])
@pytest.mark.parametrize("damage", ["bytes", "empty", "pipe", "link", "gone"])
def test_what_is_derived_from_the_manifests_is_made_anew(name, damage, tmp_path):
    folder = tmp_path / "checkpoints"
    state = {"model": [tf.Variable(1.0)]}
    Checkpoints(folder, state, 2, keep_best=1).save(1, {"total": 0.5})
    file, mine = folder / name, tmp_path / "mine"
    right = file.read_text()
    mine.write_text("years of work")
    if damage in ("bytes", "empty"):
        file.write_bytes(b"\xff\xfe\x00" * 20 if damage == "bytes" else b"")
    else:
        file.unlink()
    if damage == "pipe":
        os.mkfifo(file)
    if damage == "link":
        file.symlink_to(mine)
    checkpoints = Checkpoints(folder, state, 2, keep_best=1)
    assert checkpoints.restore_latest() == str(folder / "ckpt-1")
    checkpoints.wait()
    assert file.read_text() == right and not file.is_symlink()
    checkpoints.save(2, {"total": 0.25})
    assert record(folder) == [{"step": 2, "value": 0.25}]
    assert tf.train.latest_checkpoint(folder) == str(folder / "ckpt-2")
    assert mine.read_text() == "years of work"


@pytest.mark.parametrize("name", ["best.json", "checkpoint"])
def test_a_folder_in_place_of_what_is_derived_is_told_and_stays(name, tmp_path):
    (tmp_path / name / "mine").mkdir(parents=True)
    said = []
    state = {"model": [tf.Variable(1.0)]}
    checkpoints = Checkpoints(tmp_path, state, 2, keep_best=1, say=said.append)
    checkpoints.save(1, {"total": 0.5})
    assert said == [
        f"{tmp_path / name} is a folder, and is not replaced. Remove it: the file is made anew."
    ]
    assert (tmp_path / name / "mine").exists() and checkpoints.latest == str(tmp_path / "ckpt-1")


def test_remains_that_are_links_are_removed_and_not_followed(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "ckpt-5_temp").symlink_to(tmp_path / "mine")
    (folder / "best.json.tmp").symlink_to(tmp_path / "mine" / "thesis.tex")
    fake(folder, 1, {"total": 0.5})
    Retention(1, 1, "total", "min").apply(folder)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"
    assert sorted(os.listdir(folder)) == sorted(
        ["best.json", "checkpoint", *(f"ckpt-1.{end}" for end in ENDS)]
    )


@settings(deadline=None, max_examples=25)
@example(values=[3, 1, 2], last=1, best=1, crash=2)
@given(
    values=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    last=st.integers(1, 3),
    best=st.integers(0, 3),
    crash=st.integers(0, 7),
)
def test_what_stays_is_what_sorting_says_wherever_a_crash_fell(
    values, last, best, crash, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("kept", numbered=True)
    retention = Retention(last, best, "total", "min")
    for step, value in enumerate(values):
        fake(folder, step, {"total": float(value)})
        if step != crash:  # there, killed before anything was deleted or recorded
            retention.apply(folder, step)
    retention.apply(folder)
    alive: list[int] = []
    for step in range(len(values)):  # told anew, with nothing but a list
        alive.append(step)
        if step != crash or step == len(values) - 1:
            ranked = sorted(alive, key=lambda s: (values[s], s))[:best]
            alive = [s for s in alive if s in ranked or s in alive[-last:]]
    assert steps(folder) == alive
    if best:
        assert [one["step"] for one in record(folder)] == sorted(
            alive, key=lambda s: (values[s], s)
        )[:best]
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "name",
    [
        "metrics/accuracy",
        "metrics/label_sparse_categorical_accuracy",
        "metrics/auc",
        "metrics/val_AUC",
        "metrics/f1_score",
        "metrics/precision_at_recall",
        "metrics/mean_io_u_iou",
        "metrics/acc",
    ],
)
def test_names_of_which_more_is_better(name):
    assert more_is_better(name)


@pytest.mark.parametrize(
    "name", ["total", "terms/mse", "metrics/mae", "raw/accuracy_loss", "metrics/account"]
)
def test_names_of_which_less_is_better(name):
    assert not more_is_better(name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, "total", "auto"), "keep_last=0: give a whole number from 1 on, or None"),
        ((2.5, 0, "total", "auto"), "keep_last=2.5"),
        ((True, 0, "total", "auto"), "keep_last=True"),
        ((1, -1, "total", "auto"), "keep_best=-1: give a whole number from 0 on"),
        ((1, None, "total", "auto"), "keep_best=None"),
        ((1, 1, "total", "best"), "mode='best': accepted are 'min', 'max' and 'auto'"),
    ],
)
def test_numbers_that_are_not_accepted(arguments, message):
    with pytest.raises(ValueError, match=message):
        Retention(*arguments)


def test_numbers_of_numpy_are_numbers(tmp_path):
    retention = Retention(np.int64(1), np.int32(1), "total", "min")
    for step, total in TOTALS.items():
        fake(tmp_path, step, {"total": total})
    retention.apply(tmp_path)
    assert steps(tmp_path) == [2, 5]


def test_what_else_lies_among_the_remains_of_a_killed_writer_stays(tmp_path):
    for step, names in ((5, ["part-00000-of-00001.index", "notes.txt"]), (6, ["part-00000"])):
        (tmp_path / f"ckpt-{step}_temp").mkdir()
        for name in names:
            (tmp_path / f"ckpt-{step}_temp" / name).write_text("")
    remove_remains(tmp_path)
    assert os.listdir(tmp_path) == ["ckpt-5_temp"]
    assert os.listdir(tmp_path / "ckpt-5_temp") == ["notes.txt"]
