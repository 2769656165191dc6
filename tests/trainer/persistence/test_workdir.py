"""The files of a run on a disk that refuses, after a crash, and after editing by hand."""

import contextlib
import json
import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.persistence.files import Lines, replace_text
from trainer.persistence.workdir import Workdir, write_json


def row(step, **more):
    return {"step": step, "split": "train", "time": 1.5, "total": 0.1 * step, **more}


def text(*rows):
    return "".join(json.dumps(one) + "\n" for one in rows)


@pytest.fixture
def run(workdir):
    """A started run with rows of the steps 1 to 3."""
    made = Workdir(workdir)
    made.start({"seed": 0}, None)
    for step in (1, 2, 3):
        made.metrics.append(row(step))
    yield made
    made.metrics.close()


@contextlib.contextmanager
def file_limit(size):
    """While open, no file of this process may be longer; pytest's own output may be one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    permitted = shutil.which("mount") and os.geteuid() == 0
    if not permitted or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system is not permitted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


# ---- the files


def test_rows_are_lines_and_a_cut_keeps_those_up_to_a_step_to_the_letter(run):
    run.metrics.append(row(4, split="eval"))
    file = run.path / "metrics.jsonl"
    before = file.read_text()
    assert before == text(row(1), row(2), row(3), row(4, split="eval"))
    assert run.cut_metrics(3) == [row(1), row(2), row(3)]
    assert file.read_text() == "".join(before.splitlines(keepends=True)[:3])
    run.metrics.append(row(5))  # goes into the new file, not the replaced one
    assert file.read_text() == text(row(1), row(2), row(3), row(5))


def test_a_cut_that_cuts_nothing_does_not_touch_the_file(run):
    file = run.path / "metrics.jsonl"
    before = file.stat()
    assert len(run.cut_metrics(3)) == 3
    assert file.stat().st_ino == before.st_ino and file.stat().st_mtime_ns == before.st_mtime_ns


def test_the_first_configuration_stays(run):
    run.start({"seed": 1}, 3)
    assert json.loads((run.path / "config.json").read_text()) == {"seed": 0}
    starts = (run.path / "starts.jsonl").read_text().splitlines()
    assert [json.loads(line)["resumed_from"] for line in starts] == [None, 3]


def test_a_run_is_done_until_it_is_started_again(run):
    assert run.seconds() is None
    run.done({"total": 0.5, "seconds": 2.5})
    assert run.seconds() == 2.5
    run.start(None, 3)
    assert run.seconds() is None


# ---- a crash


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_wherever_a_write_of_rows_was_torn_the_whole_lines_stay(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("torn", numbered=True)
    rows = [row(step, note="é" * data.draw(st.integers(0, 5))) for step in range(4)]
    content = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows).encode()
    content = content[: data.draw(st.integers(0, len(content)))]
    whole = content.count(b"\n")
    for how in ("cut", "append"):
        (folder / "metrics.jsonl").write_bytes(content)
        run = Workdir(folder)
        if how == "cut":
            assert run.cut_metrics(9) == rows[:whole]
        run.metrics.append(row(9))
        run.metrics.close()
        assert Workdir(folder).cut_metrics(9) == [*rows[:whole], row(9)]


def test_a_very_long_torn_line_is_cut(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b"whole\n" + b"x" * 200_000)
    Lines(file).close()
    assert file.read_bytes() == b"whole\n"
    file.write_bytes(b"x" * 200_000)
    Lines(file).close()
    assert file.read_bytes() == b""


def test_rows_can_be_made_to_survive_a_power_cut(run, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    run.metrics.sync()
    assert len(synced) == 1
    Workdir(run.path).metrics.sync()  # nothing was written yet: nothing to do


# ---- a disk that refuses


def test_a_row_on_a_full_device_is_one_clear_error(run):
    file = run.path / "metrics.jsonl"
    file.unlink()
    file.symlink_to("/dev/full")
    run.metrics.close()
    with pytest.raises(OSError) as told:
        run.metrics.append(row(4))
    assert str(told.value) == (
        f"{file} cannot be written: No space left on device. Free some space and start again."
    )


def test_a_row_that_does_not_fit_leaves_no_part_of_itself(run):
    (run.checkpoints).mkdir()
    for step in (2, 10):
        (run.checkpoints / f"ckpt-{step}.json").write_text("{}")
    file = run.path / "metrics.jsonl"
    before = file.read_bytes()
    with file_limit(len(before) + 10), pytest.raises(OSError) as told:
        run.metrics.append(row(4))
    assert file.read_bytes() == before
    assert str(told.value) == (
        f"{file} cannot be written: File too large. Free some space and start again; "
        f"kept: {run.checkpoints}/ckpt-10."
    )
    run.metrics.append(row(4))
    assert file.read_bytes() == before + text(row(4)).encode()


@pytest.mark.parametrize("name", ["DONE.json", "starts.jsonl", "metrics.jsonl"])
def test_on_a_full_disk_every_file_is_whole_or_not_there(name, small_disk):
    run = Workdir(small_disk / "run")
    run.start({"seed": 0}, None)
    run.metrics.append(row(1))
    run.metrics.append(row(2))
    before = {file.name: file.read_bytes() for file in run.path.iterdir()}
    with open(small_disk / "other", "wb", buffering=0) as other, pytest.raises(OSError):
        while True:
            other.write(bytes(4096))
    with pytest.raises(OSError, match=f"{name} cannot be written: No space left on device. Free"):
        if name == "DONE.json":
            run.done({"seconds": 1.0, "filler": "x" * 5000})
        elif name == "starts.jsonl":
            for _ in range(20):
                run.start(None, 1)
        else:
            for step in range(3, 300):
                run.metrics.append(row(step))
    run.metrics.close()
    after = {file.name: file.read_bytes() for file in run.path.iterdir()}
    assert set(after) == set(before)
    for file, content in after.items():
        assert content.startswith(before[file]) and content.endswith(b"\n")


def test_a_read_only_disk_is_refused_at_once(small_disk):
    Workdir(small_disk / "run").start({}, None)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(PermissionError, match="no permission to write in"):
        Workdir(small_disk / "run")
    with pytest.raises(PermissionError, match="no permission to write in"):
        Workdir(small_disk / "new" / "run")


def test_a_disk_that_became_read_only_is_a_clear_error(small_disk):
    run = Workdir(small_disk / "run")
    run.start({}, None)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for write in (
        lambda: run.metrics.append(row(1)),
        lambda: run.done({}),
        lambda: run.start(0, 0),
    ):
        with pytest.raises(OSError, match=r"cannot be written: Read-only.*\. Make it writable"):
            write()


def test_a_path_through_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match=r"is a file\. Give a folder"):
        Workdir(tmp_path / "file")
    with pytest.raises(NotADirectoryError, match=r"cannot be made, .*/file is a file\. Give"):
        Workdir(tmp_path / "file" / "run")


def test_a_replaced_file_is_the_old_one_when_the_disk_refuses(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"a": 1})
    with file_limit(10), pytest.raises(OSError, match="File too large"):
        replace_text(file, "x" * 1000)
    assert json.loads(file.read_text()) == {"a": 1} and os.listdir(tmp_path) == ["a.json"]


# ---- editing by hand

EDITED = {
    "not json": ("total: 0.5", "is not JSON"),
    "an empty line": ("", "is not JSON"),
    "half a line": ('{"step": 2, "spl', "is not JSON"),
    "not text": ("\udc80", "codec can't decode"),
    "deep": ("[" * 100_000, "recursion"),
    "a list": ("[1, 2]", "holds a list, not an object"),
    "a number": ("7", "holds a int, not an object"),
    "no step": (json.dumps({"split": "train", "total": 1.0}), "has no 'step'"),
    "no split": (json.dumps({"step": 2, "total": 1.0}), "has no 'split'"),
    "no total": (json.dumps({"step": 2, "split": "eval"}), "has no 'total'"),
    "step as text": (json.dumps(row(2) | {"step": "2"}), "has step '2', not a whole number"),
    "half a step": (json.dumps(row(2) | {"step": 2.5}), "has step 2.5, not a whole number"),
    "true as step": (json.dumps(row(2) | {"step": True}), "has step True, not a whole number"),
    "negative": (json.dumps(row(2) | {"step": -2}), "has step -2, not a whole number from 0 on"),
    "NaN": (json.dumps(row(2) | {"total": float("nan")}), "holds NaN, which is not JSON"),
    "split": (json.dumps(row(2) | {"split": "test"}), "split 'test', neither 'train' nor 'eval'"),
    "total": (json.dumps(row(2) | {"total": "0.5"}), "total '0.5', neither a number nor null"),
}


@pytest.mark.parametrize("case", EDITED)
def test_a_row_edited_by_hand_is_named_with_its_line_and_nothing_is_lost(case, run):
    line, reason = EDITED[case]
    file = run.path / "metrics.jsonl"
    lines = file.read_text().splitlines()
    content = "\n".join([lines[0], line, lines[2], ""]).encode(errors="surrogateescape")
    file.write_bytes(content)
    with pytest.raises(ValueError) as told:
        run.cut_metrics(3)
    assert str(told.value).startswith(f"{file}, line 2: ") and reason in str(told.value)
    assert str(told.value).endswith("are not to be edited: restore the line, or delete it.")
    assert file.read_bytes() == content


def test_a_total_that_was_not_finite_is_a_row(run):
    run.metrics.append(row(4) | {"total": None})
    assert run.cut_metrics(4)[-1]["total"] is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"DONE.json is not JSON \(line 1\)\. Delete it"),
        ("3", r"DONE.json holds a int, not an object\. Delete it"),
        ("{}", r"DONE.json: seconds is None, not a number\. Delete it"),
        ('{"seconds": "long"}', r"seconds is 'long', not a number"),
        ('{"seconds": true}', r"seconds is True, not a number"),
    ],
)
def test_a_done_file_edited_by_hand_is_a_clear_error(content, message, run):
    Path(run.path / "DONE.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        run.seconds()


def test_a_configuration_edited_by_hand_is_not_written_anew(run):
    (run.path / "config.json").write_text('{"seed": 0,\n]')
    run.start({"seed": 0}, 3)
    assert (run.path / "config.json").read_text() == '{"seed": 0,\n]'


# ---- what is not the run's


@pytest.mark.parametrize("name", ["metrics.jsonl", "DONE.json"])
def test_a_file_of_no_run_that_was_started_there_is_left_alone(name, workdir):
    workdir.mkdir()
    (workdir / name).write_text('{"step": 1, "split": "train", "total": 1.0}\n')
    with pytest.raises(FileExistsError, match=rf"{name} is of no run that was started there"):
        Workdir(workdir).cut_metrics(0)
    assert os.listdir(workdir) == [name]
    (workdir / "starts.jsonl").write_text("")  # a run was
    Workdir(workdir).cut_metrics(0)
