"""Rows of a file that grows, is cut back, is damaged; thinned whole, in bounded memory."""

import json
import os

import pytest

from tests.trainer.report.rows_by_hand import row, write_run
from trainer.report import row_index
from trainer.report.row_index import RowIndex


def lines(steps, split="train"):
    return [json.dumps(row(step, {"a": 1.0 / step, "b": -0.5}, split=split)) for step in steps]


def steps(index, split="train", first=0, last=1e9, points=600):
    return [row["step"] for row in index.rows(split, first, last, points)]


@pytest.fixture
def file(tmp_path):
    """A metrics.jsonl with train rows 1 to 10 and an eval row at 5."""
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        "\n".join([*lines(range(1, 6)), *lines([5], "eval"), *lines(range(6, 11))]) + "\n"
    )
    return path


def test_the_rows_of_each_split_are_read_whole(file):
    index = RowIndex(str(file))
    index.refresh()
    assert steps(index) == list(range(1, 11)) and steps(index, "eval") == [5]
    assert index.rows("train", 4, 4, 2)[0]["raw/a"] == 0.25
    assert index.complete and index.read == file.stat().st_size


def test_what_is_appended_is_read_on_and_half_a_line_waits(file):
    index = RowIndex(str(file))
    index.refresh()
    before = index.version
    line = lines([11])[0]
    with file.open("a") as handle:
        handle.write(line[:50])
    index.refresh()
    assert steps(index)[-1] == 10 and index.version == before and index.complete
    with file.open("a") as handle:
        handle.write(line[50:] + "\n")
    index.refresh()
    assert steps(index)[-1] == 11 and index.version != before


def test_a_file_that_was_cut_back_is_read_anew(file):
    index = RowIndex(str(file))
    index.refresh()
    other = file.with_name("new")
    other.write_text("\n".join(lines(range(1, 4))) + "\n")
    os.replace(other, file)
    index.refresh()
    assert steps(index) == [1, 2, 3] and steps(index, "eval") == []


def test_a_file_that_was_rewritten_in_place_is_read_anew(file):
    index = RowIndex(str(file))
    index.refresh()
    file.write_text("\n".join(lines(range(101, 131))) + "\n")  # longer than before
    index.refresh()
    assert steps(index)[0] == 101


def test_a_file_that_is_gone_has_no_rows(file):
    index = RowIndex(str(file))
    index.refresh()
    file.unlink()
    index.refresh()
    assert steps(index) == []


def test_lines_that_hold_no_row_are_left_out_and_counted(tmp_path):
    path = tmp_path / "metrics.jsonl"
    bad = ["nonsense", '{"step": "x", "split": "train"}', "[1]", '{"step": 3, "split": "test"}']
    path.write_text("\n".join([*lines([1]), *bad, '{"split": "train", "step": 2}', "", "{"]) + "\n")
    index = RowIndex(str(path))
    index.refresh()
    assert steps(index) == [1, 2] and index.damaged == 5


def test_rows_are_thinned_evenly_with_the_first_and_the_last(file):
    index = RowIndex(str(file))
    index.refresh()
    assert steps(index, points=4) == [1, 4, 7, 10]
    assert steps(index, first=3, last=8, points=3) == [3, 5, 8]


def test_places_are_bounded_and_a_zoom_still_finds_every_row(tmp_path, monkeypatch):
    monkeypatch.setattr(row_index, "MOST", 16)
    monkeypatch.setattr(row_index, "CHUNK", 700)  # lines are longer than some chunks
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(lines(range(1, 1001))) + "\n")
    index = RowIndex(str(path))
    index.refresh()
    places = index.places["train"]
    assert len(places.steps) <= 16 and places.count == 1000 and places.stride == 64
    assert steps(index, points=5)[-1] == 1000
    assert steps(index, first=501, last=520) == list(range(501, 521))
    assert steps(index, first=1, last=3) == [1, 2, 3]
    assert steps(index, first=998, last=2000) == [998, 999, 1000]


def test_reading_stops_when_its_time_is_over_and_goes_on_there(tmp_path, monkeypatch):
    monkeypatch.setattr(row_index, "CHUNK", 2000)
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(lines(range(1, 101))) + "\n")
    index = RowIndex(str(path))
    index.refresh(0.0)
    assert not index.complete and 0 < index.places["train"].count < 100
    while not index.complete:
        index.refresh(0.0)
    assert steps(index) == list(range(1, 101))


def test_a_link_is_not_read(tmp_path):
    secret = tmp_path / "secret.jsonl"
    secret.write_text("\n".join(lines([1])) + "\n")
    run = write_run(tmp_path / "run", [])
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").symlink_to(secret)
    index = RowIndex(str(run / "metrics.jsonl"))
    index.refresh()
    assert steps(index) == []


def test_validation_sets_with_names_have_places_of_their_own(tmp_path):
    path = tmp_path / "metrics.jsonl"
    text = [*lines([1, 2]), *lines([2], "eval/hard"), *lines([2], "eval/easy"), *lines([3])]
    path.write_text("\n".join(text) + "\n")
    index = RowIndex(str(path))
    index.refresh()
    assert steps(index) == [1, 2, 3] and steps(index, "eval") == [] and index.damaged == 0
    assert steps(index, "eval/hard") == [2] and steps(index, "eval/easy") == [2]
    assert list(index.places) == ["train", "eval", "eval/hard", "eval/easy"] and not index.missing


def test_too_many_validation_sets_are_told_and_take_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(row_index, "MOST_SETS", 2)
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f"{line}\n" for n in range(9) for line in lines([1], f"eval/{n}")))
    index = RowIndex(str(path))
    index.refresh()
    assert list(index.places) == ["train", "eval", "eval/0", "eval/1"] and index.damaged == 0
    assert index.missing == ["validation sets beyond the first 2, as eval/2"]
