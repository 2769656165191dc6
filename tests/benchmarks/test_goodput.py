"""The account of `benchmarks.goodput`: where the time of each kill went."""

import pytest

from benchmarks.goodput import LOG_EVERY, MARKS, REST, Round, rounds, told

FIRST = [(0.0, "imported"), (1.0, "met"), (2.0, "built"), (3.0, "stepped")]
LIFE = [(60.0, "killed"), (61.0, "restarting"), (63.0, "imported"), (64.0, "met")]
SECONDS = {
    MARKS["restarting"]: 1.0,
    MARKS["imported"]: 2.0,
    MARKS["met"]: 1.0,
    MARKS["built"]: 0.5,
    MARKS["stepped"]: 1.5,
}


def windows(began, ended, seconds=1.0):
    """Rows of windows that take some seconds each, back to back."""
    count = round((ended - began) / seconds)
    return [
        {
            "time": began + seconds * (n + 1),
            "step": LOG_EVERY * (n + 1),
            "steps_per_second": LOG_EVERY / seconds,
        }
        for n in range(count)
    ]


def test_a_round_goes_from_a_first_step_to_the_next_and_has_its_kills_seconds():
    marks = [*FIRST, *LIFE, (64.5, "built"), (66.0, "stepped"), (90.0, "restarting")]
    assert rounds(marks) == [Round(3.0, 66.0, SECONDS)]


def test_a_life_that_was_killed_before_its_first_step_belongs_to_the_round_before():
    again = [(at + 60, word) for at, word in LIFE]
    marks = [*FIRST, *LIFE, *again, (124.5, "built"), (126.0, "stepped")]
    [found] = rounds(marks)
    assert (found.began, found.ended) == (3.0, 126.0)
    twice = [MARKS[word] for word in ("restarting", "imported", "met")]
    assert found.lost == {**SECONDS, **{cause: 2 * SECONDS[cause] for cause in twice}}


def test_shares_and_the_rest_are_of_a_round():
    later = [(at + 60, word) for at, word in LIFE]
    marks = [*FIRST, *LIFE, (64.5, "built"), (66.0, "stepped"), *later]
    marks += [(124.5, "built"), (126.0, "stepped")]
    # 50 s count of the first round, 40 of the second, 30 after them
    rows = windows(3, 53) + windows(66, 106) + windows(130, 160)
    found = told(marks, rows, 3.0, 180.0)
    assert found["goodput"] == pytest.approx((50 + 40 + 30) / 177)
    assert found["shares"] == pytest.approx([50 / 63, 40 / 60])
    assert [causes[REST] for causes in found["lost"]] == pytest.approx([63 - 50 - 6, 60 - 40 - 6])


def test_a_run_without_a_kill_has_no_rounds():
    found = told(FIRST, windows(3, 60), 3.0, 60.0)
    assert found["goodput"] == pytest.approx(1.0)
    assert found["shares"] == [] and found["lost"] == []
