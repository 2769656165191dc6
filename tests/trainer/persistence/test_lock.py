"""One writer per workdir: a second start is refused, and a killed holder holds nothing."""

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from trainer.persistence import lock
from trainer.persistence.lock import WorkdirLock

ROOT = Path(__file__).parents[3]


def hold(workdir):
    """Another process that holds the lock until it is killed."""
    program = (
        "import sys\n"
        "from trainer.persistence.lock import WorkdirLock\n"
        "held = WorkdirLock(sys.argv[1])\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(workdir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_until_the_first_is_killed(workdir):
    process = hold(workdir)
    try:
        with pytest.raises(BlockingIOError) as told:
            WorkdirLock(workdir)
        assert re.fullmatch(
            rf"{re.escape(str(workdir))} is being written by process {process.pid} on host "
            rf"{re.escape(socket.gethostname())} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d{{4}}"
            r"\. Wait for it, stop it, or use another workdir\.",
            str(told.value),
        )
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert (workdir / "lock").exists()  # nobody tidied up after it
    with WorkdirLock(workdir):
        assert f'"pid": {os.getpid()}' in (workdir / "lock").read_text()
    assert not (workdir / "lock").exists()


def test_a_second_trainer_of_the_same_process_is_refused(workdir):
    taken = pytest.raises(BlockingIOError, match="is being written by this process, since 2")
    with WorkdirLock(workdir), taken:
        WorkdirLock(workdir)
    with WorkdirLock(workdir) as again:
        again.release()
        WorkdirLock(workdir).release()


def test_a_forked_child_does_not_keep_the_lock(workdir):
    held = WorkdirLock(workdir)
    (hear, answer), (wait, end) = os.pipe(), os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        child = os.fork()
    if not child:  # does nothing of TensorFlow's
        os.write(answer, b"1")
        os.close(end)
        os.read(wait, 1)
        os._exit(0)
    try:
        os.read(hear, 1)
        with pytest.raises(BlockingIOError):  # it did not take it away either
            WorkdirLock(workdir)
        os.close(held._descriptor)  # as when the parent is killed: without release()
        held._descriptor = None
        WorkdirLock(workdir).release()
    finally:
        for descriptor in (hear, answer, wait, end):
            os.close(descriptor)
        os.waitpid(child, 0)


def test_a_lock_that_vanished_while_it_was_opened_is_taken_anew(workdir, monkeypatch):
    first = WorkdirLock(workdir)
    real, calls = lock._flock, []

    def flock(descriptor):
        calls.append(descriptor)
        if len(calls) == 1:
            first.release()  # between the opening of the file and its locking
        return real(descriptor)

    monkeypatch.setattr(lock, "_flock", flock)
    second = WorkdirLock(workdir)
    monkeypatch.undo()
    assert len(calls) == 2
    with pytest.raises(BlockingIOError):
        WorkdirLock(workdir)
    second.release()


def test_a_file_system_without_locks_is_a_warning(workdir, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="lock cannot be locked: this file system has no locks"):
        held = WorkdirLock(workdir)
    held.release()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', "\0\0", "null"])
def test_whatever_the_lock_says_of_its_holder_it_is_refused(text, workdir):
    with WorkdirLock(workdir):
        (workdir / "lock").write_text(text)
        with pytest.raises(BlockingIOError, match="is being written by another process"):
            WorkdirLock(workdir)


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"lock cannot be written: Not a directory\. Mend this"):
        WorkdirLock(tmp_path / "file" / "run")
    (tmp_path / "run" / "lock").mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match=r"lock cannot be written: Is a directory"):
        WorkdirLock(tmp_path / "run")


@pytest.mark.parametrize("text", ["years of work", "{}", "pid 7"])
def test_a_file_that_is_no_lock_is_left_as_it_is(text, workdir):
    workdir.mkdir()
    (workdir / "lock").write_text(text)
    with pytest.raises(OSError, match=r"lock holds something else than a lock\. Move that file"):
        WorkdirLock(workdir)
    assert (workdir / "lock").read_text() == text


@pytest.mark.parametrize("text", ["", "\0\0\0\0\0\0\0\0\0", '{"pid": 1, "host'])
def test_what_a_process_that_died_early_left_is_a_lock(text, workdir):
    workdir.mkdir()
    (workdir / "lock").write_text(text)
    WorkdirLock(workdir).release()
    assert not (workdir / "lock").exists()


def test_a_link_in_place_of_the_lock_is_not_written_through(workdir, tmp_path):
    workdir.mkdir()
    (tmp_path / "mine").write_text("")
    (workdir / "lock").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match="lock cannot be written: Too many levels"):
        WorkdirLock(workdir)
    assert (tmp_path / "mine").read_text() == ""


def test_a_lock_whose_file_cannot_be_removed_is_given_back(tmp_path, monkeypatch):
    lock = WorkdirLock(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.unlink", lambda *_: (_ for _ in ()).throw(OSError(5, "no")))
        lock.release()
    assert (tmp_path / "lock").exists()
    with WorkdirLock(tmp_path):
        pass
    assert not (tmp_path / "lock").exists()
