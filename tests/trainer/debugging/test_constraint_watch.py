"""A constraint is told to be infeasible after twenty rows that break it alike, once."""

import pytest

import losses
from trainer.debugging.constraint_watch import ROWS, ConstraintWatch

CONSTRAINTS = [losses.Constraint(lambda step: step.y_pred[:, 0], "mean", at_most=0.5)]


def told(violations, multipliers, before=()):
    """The warnings, and after how many rows they came."""
    warnings = []
    rows = [
        {"violation/mean": violation, "multiplier/mean": multiplier}
        for violation, multiplier in zip(violations, multipliers, strict=True)
    ]
    watch = ConstraintWatch(CONSTRAINTS, rows[: len(before)], lambda text: warnings.append(text))
    after = []
    for number, row in enumerate(rows[len(before) :], 1):
        watch.look(row)
        after += [number] * (len(warnings) > len(after))
    return after, warnings


def test_it_is_told_once_by_name_and_bound():
    after, (warning,) = told([0.2] * 30, range(30))
    assert after == [ROWS] == [20]
    assert warning.startswith("constraint 'mean' (at most 0.5) was violated in each of the last 20")
    assert "grew from 0 to 19: it may be infeasible" in warning


def test_the_rows_of_a_run_before_count():
    assert told([0.2] * 25, range(25), before=range(15))[0] == [5]


@pytest.mark.parametrize(
    ("violations", "multipliers"),
    [
        ([0.2] * 10 + [0.0] + [0.2] * 15, range(26)),  # it was kept in between
        ([0.2 * 0.95**row for row in range(30)], range(30)),  # it is on its way
        ([0.2] * 30, [1.0] * 30),  # the multiplier is that of another phase, or does not move
        ([0.2] * 15 + [None] * 4 + [0.0] * 5, range(24)),  # absent rows say nothing
    ],
    ids=["kept", "falling", "at rest", "absent"],
)
def test_it_is_not_told_of_one_that_is_kept_or_comes_nearer(violations, multipliers):
    assert told(violations, multipliers)[0] == []
