"""Marks on the axis: resumed, restored, phases, skipped steps."""

from tests.trainer.report.rows_by_hand import row
from trainer.report.answers.marks import marks_of_rows, marks_of_starts


def start(step, **more):
    return {"resumed_from": step, "time": "12:00", **more}


def test_a_resume_and_a_restore_are_told_apart():
    marks = marks_of_starts([start(None), start(40), start(60, not_finite=67)])
    assert [(mark["step"], mark["short"], mark["label"]) for mark in marks] == [
        (40, "resumed", "resumed from step 40, 12:00"),
        (60, "restored", "step 67 not finite: restored to step 60, 12:00"),
    ]


def test_what_a_later_start_went_back_behind_is_no_mark():
    starts = [start(None), start(40), start(60), start(50)]
    assert [mark["step"] for mark in marks_of_starts(starts)] == [40, 50]
    assert marks_of_starts([*starts, start(None)]) == []


def test_lines_that_are_damaged_are_passed_over():
    assert marks_of_starts([{}, {"resumed_from": "x"}, {"resumed_from": 3}]) == [
        {"step": 3, "short": "resumed", "label": "resumed from step 3"}
    ]


def test_phases_are_marked_where_they_change_and_skipped_steps_where_they_are():
    rows = [row(1, {}, phase="warm"), row(2, {}, phase="warm", skipped_steps=3)]
    rows += [row(3, {}, phase="joint", skipped_steps=0), row(4, {}), row(5, {}, phase="joint")]
    assert marks_of_rows(rows) == [
        {"step": 2, "label": "3 steps skipped as not finite, up to step 2"},
        {"step": 3, "short": "joint", "label": "phase joint"},
    ]
