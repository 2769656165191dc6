"""Which checkpoints count: every damage to a file is noticed, and an earlier one takes over."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.persistence import manifest
from trainer.persistence.checkpoint import Checkpoints

DATA = "data-00000-of-00001"


def truncate(folder):
    os.truncate(folder / f"ckpt-20.{DATA}", 100)


def truncate_index(folder):
    os.truncate(folder / "ckpt-20.index", 10)


def delete_data(folder):
    (folder / f"ckpt-20.{DATA}").unlink()


def delete_index(folder):
    (folder / "ckpt-20.index").unlink()


def flip(folder):
    content = bytearray((folder / f"ckpt-20.{DATA}").read_bytes())
    content[70] ^= 4
    (folder / f"ckpt-20.{DATA}").write_bytes(content)


def edit(**changes):
    def damage(folder):
        file = folder / "ckpt-20.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return damage


def write(text):
    return lambda folder: (folder / "ckpt-20.json").write_text(text)


DAMAGES = {
    "truncated data": (truncate, f"ckpt-20.{DATA} has 100 bytes of"),
    "truncated index": (truncate_index, "ckpt-20.index has 10 bytes of"),
    "no data": (delete_data, f"ckpt-20.{DATA} is missing"),
    "no index": (delete_index, "ckpt-20.index is missing"),
    "a flipped bit": (flip, f"ckpt-20.{DATA} was changed after it was written"),
    "empty manifest": (write(""), "ckpt-20.json is not JSON"),
    "half a manifest": (write('{"step": 20, "fil'), "ckpt-20.json is not JSON"),
    "deep manifest": (write("[" * 100_000), "ckpt-20.json is not JSON"),
    "a list": (write("[20]"), "ckpt-20.json holds a list, not an object"),
    "not a number": (edit(metrics={"total": float("nan")}), "it holds NaN"),
    "text as a metric": (edit(metrics={"total": "0.1"}), "metrics that are not numbers"),
    "another step": (edit(step=21), "ckpt-20.json holds step=21"),
    "a negative step": (edit(step=-20), "ckpt-20.json holds step=-20"),
    "step as text": (edit(step="20"), "ckpt-20.json holds step='20'"),
    "no files": (edit(files={}), "ckpt-20.json holds no list of its files"),
    "other files": (
        edit(files={"../secret": {"sha256": "", "bytes": 1}, "b": 1}),
        "ckpt-20.json holds a file that is none of this checkpoint's",
    ),
    "variables": (edit(variables={"model": [["a", 3, "float32"]]}), "no list of its variables"),
}


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of steps 10 and 20, each holding its step."""
    a = tf.Variable(tf.zeros([100]))
    checkpoints = Checkpoints(tmp_path, {"model": [a]}, 3)
    for step in (10, 20):
        a.assign(tf.fill([100], float(step)))
        checkpoints.save(step, {"total": 1.0}, wait=True)
    return tmp_path


def reader(folder, said=None):
    a = tf.Variable(tf.zeros([100]))
    say = pytest.fail if said is None else said.append
    return a, Checkpoints(folder, {"model": [a]}, 3, say=say)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_one_gives_way_to_the_one_before_and_it_is_said(damage, folder):
    break_it, reason = DAMAGES[damage]
    break_it(folder)
    said = []
    a, checkpoints = reader(folder, said)
    assert checkpoints.restore_latest() == str(folder / "ckpt-10")
    np.testing.assert_array_equal(a, np.full([100], 10))
    assert len(said) == 1 and reason in said[0]
    assert said[0].endswith("Restoring the newest whole one, ckpt-10.")
    assert checkpoints.latest == str(folder / "ckpt-10")


def test_a_whole_one_is_restored_without_a_word(folder):
    a, checkpoints = reader(folder)
    assert checkpoints.latest == checkpoints.restore_latest() == str(folder / "ckpt-20")
    assert float(a[0]) == 20


def test_without_a_manifest_a_newest_one_does_not_count(folder):
    (folder / "ckpt-20.json").unlink()  # a process killed between the data and the manifest
    a, checkpoints = reader(folder)
    assert checkpoints.restore_latest() == str(folder / "ckpt-10") and float(a[0]) == 10


def test_when_none_is_whole_it_is_an_error_and_nothing_is_removed(folder):
    truncate(folder)
    os.truncate(folder / f"ckpt-10.{DATA}", 100)
    before = sorted(os.listdir(folder))
    _, checkpoints = reader(folder)
    with pytest.raises(ValueError, match=r"no checkpoint is whole: ckpt-20.* ckpt-10.* Bring the"):
        checkpoints.restore_latest()
    assert sorted(os.listdir(folder)) == before


def test_the_next_save_removes_what_a_killed_writer_left_and_a_damaged_later_one(folder):
    (folder / "ckpt-30_temp").mkdir()
    (folder / "ckpt-30_temp" / "part-00000").write_bytes(b"half")
    for name in (f"ckpt-30.{DATA}", "ckpt-30.index", "ckpt-30.index.tempstate77", "best.json.tmp"):
        (folder / name).write_bytes(b"half")
    (folder / "notes.txt").write_text("mine")
    flip(folder)
    said = []
    _, checkpoints = reader(folder, said)
    checkpoints.restore_latest()
    assert (folder / "ckpt-30.index").exists()  # reading removes nothing
    checkpoints.save(15, wait=True)
    kept = [f"ckpt-{step}.{end}" for step in (10, 15) for end in (DATA, "index", "json")]
    assert sorted(os.listdir(folder)) == ["checkpoint", *kept, "notes.txt"]
    assert reader(folder)[1].latest == str(folder / "ckpt-15")


def older_version(folder, steps):
    """Checkpoints as they were written before there were manifests."""
    a = tf.Variable(tf.zeros([100]))
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(model=[a]), folder, 9)
    for step in steps:
        a.assign(tf.fill([100], float(step)))
        manager.save(checkpoint_number=step)


def test_checkpoints_of_an_older_version_are_read_back_and_accepted(tmp_path):
    older_version(tmp_path, [10, 20])
    a, checkpoints = reader(tmp_path)
    assert checkpoints.restore_latest() == str(tmp_path / "ckpt-20") and float(a[0]) == 20
    checkpoints.save(30, wait=True)
    assert not (tmp_path / "ckpt-10.index").exists()  # from now on a manifest is asked for


def test_a_damaged_one_of_an_older_version_is_noticed_by_reading_it(tmp_path):
    older_version(tmp_path, [10, 20])
    flip(tmp_path)
    said = []
    a, checkpoints = reader(tmp_path, said)
    assert checkpoints.restore_latest() == str(tmp_path / "ckpt-10") and float(a[0]) == 10
    assert "ckpt-20 cannot be read" in said[0]


def test_a_first_save_cut_short_is_a_start_from_the_beginning(tmp_path):
    older_version(tmp_path, [20])
    os.truncate(tmp_path / f"ckpt-20.{DATA}", 7)
    said = []
    _, checkpoints = reader(tmp_path, said)
    assert checkpoints.restore_latest() is None
    assert said[0].endswith("None is whole: starting from the beginning.")


def test_a_manifest_says_which_variables_and_which_row(folder):
    found = manifest.read_manifest(folder / "ckpt-20.json")
    assert found.step == 20 and found.metrics == {"total": 1.0}
    assert found.variables == {"model": [["Variable", [100], "float32"]]}
    assert sorted(found.files) == [f"ckpt-20.{DATA}", "ckpt-20.index"]


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_flipped_byte_is_noticed(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("flips", numbered=True)
    older_version(folder, [20])
    manifest.write_manifest(str(folder / "ckpt-20"), {"model": [["a", [100], "float32"]]}, {})
    found = manifest.read_manifest(folder / "ckpt-20.json")
    manifest.check_files(found)
    file = folder / data.draw(st.sampled_from([f"ckpt-20.{DATA}", "ckpt-20.index"]))
    content = bytearray(file.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    with pytest.raises(ValueError, match="was changed after it was written"):
        manifest.check_files(found)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
FIELDS = ("step", "files", "variables", "metrics")


@settings(deadline=None, max_examples=150)
@given(values=st.dictionaries(st.sampled_from(FIELDS), JSON) | JSON)
def test_whatever_stands_in_a_manifest_it_is_damaged_or_right(values, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "ckpt-3.json"
    file.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"^ckpt-3\.json (is|holds)"):
        manifest.read_manifest(file)
