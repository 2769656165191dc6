"""What a run's files say of its terms."""

from tests.trainer.report.rows_by_hand import row
from trainer.report import Hint
from trainer.report.answers.terms import origins_of, pointed


def test_where_a_term_is_from_is_what_the_last_start_notes():
    first = {"terms": [{"name": "a", "from": "compiled", "equation": "x"}, {"name": "b"}]}
    last = {"terms": [{"name": "a", "from": "term"}]}
    assert origins_of([{}, first, {"terms": ["damaged"]}, last]) == {
        "a": {"from": "term", "equation": None},
        "b": {"from": None, "equation": None},
    }


def test_a_hint_on_a_prefix_is_about_all_of_its_terms():
    rows = [row(1, {"a": 1.0, "l2/x": 1.0, "l2/y": 1.0})]
    hints = [Hint("k", "w", "l", ("l2/*",)), Hint("k", "w", "l", ("a", "log_variance"))]
    assert [hint["terms"] for hint in pointed(hints, rows)] == [["l2/x", "l2/y"], ["a"]]
