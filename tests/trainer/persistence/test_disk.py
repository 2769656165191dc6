"""What a path is: a folder that can hold a run or an obstacle in words; files that are read."""

import os

import pytest

from trainer.persistence.disk import find_obstacle, read_file
from trainer.persistence.workdir import Workdir

ODD_NAMES = ["lr=[1e-3]", "a b", "größe", "back\\slash", "st*r", "what?", "{a,b}", "#%$'\"", "-rf"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_odd_name_is_none_of_an_obstacle(name, tmp_path):
    assert find_obstacle(tmp_path / name) is None
    assert find_obstacle(tmp_path / name / "run") is None
    run = Workdir(tmp_path / name)
    run.start({"seed": 0}, None)
    run.metrics.append({"step": 1, "split": "train", "total": 1.0})
    run.done({"seconds": 1.0})
    assert sorted(os.listdir(tmp_path / name)) == [
        "DONE.json",
        "config.json",
        "metrics.jsonl",
        "starts.jsonl",
    ]
    assert run.cut_metrics(1) == [{"step": 1, "split": "train", "total": 1.0}]
    run.metrics.close()


def test_a_path_of_300_characters_is_a_folder_and_a_name_of_300_is_not(tmp_path):
    assert find_obstacle(tmp_path / ("a" * 150) / ("b" * 150)) is None
    obstacle = find_obstacle(tmp_path / "new" / ("a" * 300))
    assert obstacle.kind is OSError and "holds a name of more than 255 bytes" in obstacle.reason
    assert "name" in find_obstacle(tmp_path / ("é" * 130)).reason  # 260 bytes
    assert "is longer than" in find_obstacle(tmp_path / "/".join(["a" * 200] * 20)).reason


OBSTACLES = {
    "file": (NotADirectoryError, "is a file"),
    "file/run": (NotADirectoryError, "cannot be made, {0}/file is a file"),
    "pipe": (NotADirectoryError, "is a named pipe"),
    "link": (FileNotFoundError, "is a link to '{0}/nowhere', which is missing"),
    "link/run": (FileNotFoundError, "cannot be made, {0}/link is a link to"),
    "loop": (FileNotFoundError, "is a link to 'loop', which is missing"),
    "loop/run": (OSError, "cannot be used: Too many levels of symbolic links"),
    "a\0b": (OSError, "holds a NUL character"),
    "\ud800": (OSError, "holds characters that no file name can"),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_what_is_in_the_way_is_said_and_nothing_is_made(name, tmp_path):
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(os.listdir(tmp_path))
    kind, reason = OBSTACLES[name]
    obstacle = find_obstacle(tmp_path / name)
    assert obstacle.kind is kind and reason.format(tmp_path) in obstacle.reason
    with pytest.raises(kind, match=r"^workdir=.*\. Give a") as told:
        Workdir(tmp_path / name)
    assert isinstance(told.value, ValueError)
    assert sorted(os.listdir(tmp_path)) == before


def test_a_link_to_a_folder_is_a_folder(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    assert find_obstacle(tmp_path / "link") is None


def test_a_file_is_read_and_what_is_none_is_said_at_once(tmp_path):
    (tmp_path / "file").write_bytes(b"\xff\n")
    assert read_file(tmp_path / "file") == b"\xff\n"
    (tmp_path / "good").symlink_to("file")
    assert read_file(tmp_path / "good") == b"\xff\n"
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="Is a named pipe"):
        read_file(tmp_path / "pipe")
    with pytest.raises(OSError, match="Is a device"):
        read_file("/dev/zero")
    with pytest.raises(IsADirectoryError):
        read_file(tmp_path)
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(OSError, match="Is a link to 'nowhere', which is missing") as told:
        read_file(tmp_path / "link")
    assert not isinstance(told.value, FileNotFoundError)


@pytest.mark.parametrize("name", ["config.json", "starts.jsonl", "metrics.jsonl", "DONE.json"])
def test_a_pipe_in_place_of_a_file_stops_nothing_for_ever(name, workdir):
    workdir.mkdir()
    os.mkfifo(workdir / name)
    run = Workdir(workdir)

    def use():
        run.cut_metrics(0)
        run.start({"seed": 0}, None)
        run.metrics.append({"step": 1, "split": "train", "total": 1.0})
        run.done({"seconds": 1.0})

    if name == "DONE.json":  # ours by its name, and made anew
        use()
        assert run.seconds() == 1.0
    else:
        with pytest.raises(OSError, match=r"Is a named pipe"):
            use()
        assert run.noted("seed") is None
    run.metrics.close()
