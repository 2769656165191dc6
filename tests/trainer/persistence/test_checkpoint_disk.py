"""Checkpoints on a disk that is full or read-only: one clear error, and what was kept stays."""

import os
import resource
import shutil
import subprocess

import pytest
import tensorflow as tf

from trainer.persistence.checkpoint import Checkpoints


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    permitted = shutil.which("mount") and os.geteuid() == 0
    if not permitted or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system is not permitted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_a_full_disk_is_one_clear_error_and_costs_nothing_that_was_kept(small_disk):
    a = tf.Variable(tf.ones([150, 1000]))  # 0.6 MB: three and a half fit on the disk
    checkpoints = Checkpoints(small_disk / "checkpoints", {"model": [a]}, keep_last=2)
    checkpoints.save(1, wait=True)
    checkpoints.save(2, wait=True)
    used = sorted(names(small_disk / "checkpoints"))
    (small_disk / "other").write_bytes(bytes(600_000))
    checkpoints.save(3, wait=False)  # what the thread is told, the next call says
    with pytest.raises(OSError) as told:
        checkpoints.wait()
    assert str(told.value) == (
        f"{small_disk}/checkpoints/ckpt-3 cannot be written: No space left on device. Free some "
        f"space and start again; kept: {small_disk}/checkpoints/ckpt-2."
    )
    assert names(small_disk / "checkpoints") == used
    assert checkpoints.restore_latest().endswith("ckpt-2")
    (small_disk / "other").unlink()
    checkpoints.save(3, wait=True)
    assert checkpoints.latest.endswith("ckpt-3")


def test_a_write_past_the_limit_of_file_sizes_is_told_by_the_next_save(tmp_path):
    a = tf.Variable(tf.ones([1000, 1000]))
    checkpoints = Checkpoints(tmp_path, {"model": [a]}, 3)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        checkpoints.save(1, wait=False)
        with pytest.raises(OSError, match=r"ckpt-1 cannot be written: File too large. Free some"):
            checkpoints.save(2, wait=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == []
    checkpoints.save(2, wait=True)  # the error was told once
    assert checkpoints.latest == str(tmp_path / "ckpt-2")


def test_a_read_only_disk_is_one_clear_error(small_disk):
    checkpoints = Checkpoints(small_disk / "checkpoints", {"model": [tf.Variable(1.0)]}, 1)
    checkpoints.save(1, wait=True)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OSError, match=r"ckpt-2 cannot be written: Read-only.* kept: .*ckpt-1\.$"):
        checkpoints.save(2, wait=True)
    assert checkpoints.restore_latest().endswith("ckpt-1")


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    checkpoints = Checkpoints(tmp_path / "file" / "inside", {"model": [tf.Variable(1.0)]}, 1)
    with pytest.raises(OSError, match=r"ckpt-1 cannot be written: Not a directory. Mend this"):
        checkpoints.save(1, wait=True)


def test_a_write_that_was_short_without_an_error_does_not_count(tmp_path, monkeypatch):
    real = tf.train.Checkpoint.write

    def write(self, path):
        path = real(self, path)
        os.truncate(f"{path}.data-00000-of-00001", 5)

    monkeypatch.setattr(tf.train.Checkpoint, "write", write)
    checkpoints = Checkpoints(tmp_path, {"model": [tf.Variable(tf.ones([1000]))]}, 1)
    with pytest.raises(OSError, match=r"ckpt-1 was not written whole: \d+ bytes of 4000 or more"):
        checkpoints.save(1, wait=True)
    assert checkpoints.latest is None and not list(tmp_path.glob("ckpt-*"))
