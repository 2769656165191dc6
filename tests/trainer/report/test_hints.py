"""Hints: what each rule says of rows made by hand, and that it is silent of healthy ones."""

import pytest

from tests.trainer.report.rows_by_hand import healthy, row
from trainer.report.hints import find_hints

STEPS = range(1, 41)


def kinds(rows, every=None):
    return [hint.kind for hint in find_hints(rows, every)]


def only(rows):
    """The one hint on some rows."""
    hints = find_hints(rows)
    assert [hint.kind for hint in hints] == [hints[0].kind], hints
    return hints[0]


def test_a_healthy_run_gives_no_hint():
    evals = [row(s, {"a": 0.8 / s + 0.1, "b": 0.3 / s}, split="eval") for s in range(5, 41, 5)]
    assert kinds(sorted(healthy() + evals, key=lambda row: row["step"])) == []


def test_a_run_of_few_rows_gives_no_hint():
    assert kinds([row(step, {"a": 1.0, "b": 0.0}, {"b": 0.0}) for step in range(1, 8)]) == []
    assert kinds([]) == []


def test_a_term_that_is_the_whole_total_is_named_with_its_least_share():
    rows = [row(step, {"a": 1 + 1 / step, "b": 0.005 / step}) for step in STEPS]
    hint = only(rows)
    assert hint.kind == "dominates" and hint.names == ("a",)
    assert hint.numbers["least"] == pytest.approx(2 / 2.005)


def test_a_term_that_is_large_only_for_a_while_is_not_named():
    rows = [row(step, {"a": 1.0 / step, "b": 0.001 * step}) for step in STEPS]
    assert kinds(rows) == []


def test_a_single_term_is_the_total_and_no_fault_nor_are_small_regularizers_beside_it():
    assert kinds([row(step, {"a": 1.0 / step}) for step in STEPS]) == []
    rows = [row(step, {"a": 1 / step, "regularization/k": 0.003 / step**0.9}) for step in STEPS]
    assert kinds(rows) == []


def test_a_term_that_is_nothing_is_named_and_its_group_is_judged_as_one():
    def raw(step, size):
        parts = {f"regularization/{i}": size / step for i in range(20)}
        return {"a": 0.5 + 1 / step, "b": 0.5 + 0.5 / step, **parts}

    hint = only([row(step, raw(step, 1e-7)) for step in STEPS])
    assert hint.kind == "negligible" and hint.names == ("regularization/*",)
    assert hint.numbers["most"] == pytest.approx(20e-7 / 2.5, rel=1e-3)
    # each of the twenty is below 0.01 %, all of them are not
    assert kinds([row(step, raw(step, 2e-4)) for step in STEPS]) == []


def test_a_weight_of_nothing_is_named_but_one_that_grows_is_not():
    def rows(weight):
        raws = ((step, {"a": 1.0 / step, "b": 1.0 / step, "c": 2.0 / step}) for step in STEPS)
        return [row(step, raw, {"c": weight(step)}) for step, raw in raws]

    assert only(rows(lambda step: 0.0)).names == ("c",)
    assert str(only(rows(lambda step: 0.0))).startswith("the weight of 'c' is 0 throughout: ")
    assert kinds(rows(lambda step: max(0, step - 20) / 20)) == []


def test_a_constraint_that_holds_throughout_is_no_fault():
    rows = [row(s, {"a": 1 / s, "b": 1 / s, "c": 2 / s}, {"c": 0.0}) for s in STEPS]
    assert kinds([{**values, "violation/c": 0.0, "grad_cosine/a:c": -0.9} for values in rows]) == []


def test_a_term_that_never_changes_is_named():
    hint = only([row(step, {"a": 1.0 / step, "b": 0.25}) for step in STEPS])
    assert hint.kind == "constant" and hint.names == ("b",) and hint.numbers == {"raw": 0.25}


def test_a_loss_parameter_that_does_not_move_is_named():
    hint = only(healthy(**{"loss_parameters/s": 0.5}))
    assert hint.kind == "still_parameter" and hint.names == ("s",)


def parameter_that_stops(rate):
    rows = healthy()
    for index, values in enumerate(rows):
        values["loss_parameters/s"] = max(1 - index / 10, 0.0)
        values["learning_rate"] = rate(index)
    return rows


def test_a_loss_parameter_that_sits_on_its_constraint_is_named():
    assert only(parameter_that_stops(lambda index: 0.1)).kind == "at_constraint"


def test_a_loss_parameter_that_stops_with_the_learning_rate_is_not_named():
    assert kinds(parameter_that_stops(lambda index: 0.1 if index < 12 else 1e-6)) == []


def test_a_gradient_of_nothing_is_named_where_the_term_has_a_weight():
    assert only(healthy(**{"grad_norm/a": 1.0, "grad_norm/b": 0.0})).kind == "no_gradient"
    assert kinds(healthy(**{"grad_norm/a": 1.0, "grad_norm/b": 1e-9})) == []


def test_terms_that_oppose_each_other_are_named_though_names_hold_a_colon():
    rows = [
        row(s, {"a:x": 1 / s, "b": 1 / s}, **{"grad_cosine/a:x:b": -0.9 if s % 4 else 0.5})
        for s in STEPS
    ]
    hint = only(rows)
    assert hint.kind == "opposed" and hint.names == ("a:x", "b")
    assert hint.numbers == {"median": -0.9, "below": 30, "measured": 40, "pairs": 1}
    assert kinds(healthy(**{"grad_cosine/a:b": -0.4})) == []


def test_terms_that_oppose_each_other_where_all_is_balanced_are_no_fault():
    norms = {"grad_norm/a": 1.0, "grad_norm/b": 1.0, "grad_cosine/a:b": -0.99}
    assert kinds(healthy(**norms, **{"grad_norm/total": 0.05})) == []
    assert kinds(healthy(**norms, **{"grad_norm/total": 0.2})) == ["opposed"]


def test_a_total_below_zero_that_goes_on_falling_names_the_term():
    hint = only([row(step, {"a": 0.5 + 1 / step, "b": 1 - 0.2 * step}) for step in STEPS])
    assert hint.kind == "falling" and hint.names == ("b",)


def test_a_total_below_zero_that_settles_is_no_fault():
    rows = [row(step, {"a": 0.5 + 1 / step, "b": -2 + 4 * 0.8**step}) for step in STEPS]
    assert kinds(rows) == []


def test_an_uncertainty_weight_on_a_negative_term_is_named_once():
    rows = [row(s, {"nll": 1 - 0.2 * s, "uncertainty/nll": -0.1 * s, "c": 1 / s}) for s in STEPS]
    assert only(rows).kind == "negative_uncertainty"


def drifting(rise, split="eval"):
    rows = healthy()
    for step in range(4, 41, 4):
        after = max(0, step - 12) / 28
        raw = {"a": 0.4 / step + 0.2 + rise * after, "b": 0.3 / step + 0.02}
        rows.append(row(step, raw, split=split))
    return sorted(rows, key=lambda row: row["step"])


def test_an_evaluation_that_rises_while_training_falls_is_named_with_its_step():
    hint = only(drifting(0.5))
    assert hint.kind == "drift" and hint.names == ("a",) and hint.numbers["step"] == 12
    assert kinds(drifting(0.02)) == []


def test_a_validation_set_with_a_name_that_drifts_is_named():
    hint = only(drifting(0.5, "eval/hard"))
    assert hint.kind == "drift" and hint.what.startswith("'a' of 'eval/hard' rises since step 12")
    assert kinds(drifting(0.02, "eval/hard")) == []


def test_skipped_steps_count_from_one_in_twenty():
    rows = [row(10 * s, {"a": 1 / s, "b": 1 / s}) for s in STEPS]
    for index in (5, 10, 15):
        rows[index]["skipped_steps"] = 8  # of 390 steps 24: 6.2 %
    hint = only(rows)
    assert hint.kind == "skipped" and hint.numbers["share"] == pytest.approx(24 / 390)
    rows[5]["skipped_steps"] = 2  # 4.6 %
    assert kinds(rows) == []


def test_of_thinned_rows_each_stands_for_those_that_were_left_out():
    rows = [row(10 * s, {"a": 1 / s, "b": 1 / s}) for s in STEPS]
    for thinned in rows[1::2]:
        thinned["skipped_steps"] = 1  # of each second window of one step: 20 of 39 drawn
    assert kinds(rows, {"train": 10.0, "eval": 1.0})[0] == "skipped"
    assert kinds(rows, {"train": 1.0, "eval": 1.0})[0] == "skipped"
    assert find_hints(rows, {"train": 10.0})[0].numbers["share"] == pytest.approx(20 / 39)


def slowing(seconds):
    rows = healthy()
    for index, values in enumerate(rows):
        values["steps_per_second"] = 100.0 if index < 25 else 40.0
        values["time"] = 1000.0 + seconds * index / 39
    return rows


def test_a_run_that_became_slow_is_told_unless_it_was_short():
    assert only(slowing(200.0)).numbers == {"before": 100.0, "last": 40.0}
    assert kinds(slowing(60.0)) == []


def test_what_is_null_or_no_number_is_passed_over():
    rows = healthy()
    rows[3] = {key: None if "/" in key or key == "total" else v for key, v in rows[3].items()}
    rows[5]["total"], rows[6]["raw/a"] = float("nan"), "text"
    assert kinds(rows) == []
