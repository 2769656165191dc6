"""Tables and equations: what stands in them, by hand-computed values."""

import numpy as np

from trainer.ledger import History, WindowSums, equation, format_table, ledger_table, window_row


def sums(raw, weighted, weight, steps, skipped=0):
    arrays = np.float64(raw), np.float64(weighted), np.float32(weight)
    return WindowSums(*arrays, examples=8.0, grad_norm=6.0, steps=steps, skipped=skipped)


def test_a_window_is_the_mean_of_its_steps():
    row = window_row(["a", "b"], sums([4.0, 2.0], [2.0, 0.2], [0.5, 0.1], steps=2))
    assert row == {
        "total": 1.1,
        "terms/a": 1.0,
        "terms/b": 0.1,
        "raw/a": 2.0,
        "raw/b": 1.0,
        "weight/a": 0.5,
        "weight/b": 0.1,  # not 0.10000000149
        "grad_norm/total": 3.0,
    }


def test_the_weight_of_a_window_is_the_one_by_which_it_adds_up():
    # the weight went from 1 to 3 while raw was 1, then 2
    row = window_row(["a"], sums([3.0], [7.0], [3.0], steps=2, skipped=1))
    assert row["weight/a"] == 7 / 3 and row["total"] == 3.5 and row["skipped_steps"] == 1


def test_a_vector_of_the_loop_is_read_by_its_places():
    vector = np.float64([1, 2, 3, 4, 5, 6, 7, 1, 0, 2, 9])
    read = WindowSums.of(vector, np.float64([0.5, 1]))
    assert read.raw.tolist() == [1, 2] and read.weighted.tolist() == [3, 4]
    assert (read.examples, read.grad_norm, read.steps, read.skipped) == (5, 6, 7, 1)
    assert read.absent.tolist() == [0, 2] and read.loss == 9 and read.mass == 7
    assert WindowSums.of(vector, np.float64([0.5, 1]), by_examples=True).mass == 5
    assert read.taken == 8 and read.finite
    assert not read._replace(grad_norm=np.inf).finite


def test_a_term_that_some_steps_lack_is_the_mean_of_the_others_and_the_row_adds_up():
    # a was 4 and 2 in two of four steps, at weight 0.5; b was in none
    window = sums([6.0, 0.0], [3.0, 0.0], [0.5, 1.0], steps=4)._replace(absent=np.float64([2, 4]))
    row = window_row(["a", "b"], window)
    assert (row["raw/a"], row["weight/a"], row["terms/a"], row["total"]) == (3, 0.25, 0.75, 0.75)
    assert [row[f"{head}/b"] for head in ("raw", "weight", "terms")] == [None] * 3
    assert equation(row) == "total 0.7500 = a 0.7500 (absent: b)"


def test_a_mean_over_examples_weighs_a_short_batch_less():
    # batches of 6 and 2 examples with the values 1 and 5: sums of value times examples
    window = sums([16.0], [16.0], [1.0], steps=2)._replace(by_examples=True, absent=0.0)
    assert window_row(["a"], window)["raw/a"] == 2.0


def test_a_window_whose_steps_were_all_skipped_has_no_values():
    row = window_row(["a", "b"], sums([0.0] * 2, [0.0] * 2, [1.0] * 2, steps=0, skipped=100))
    assert row.pop("skipped_steps") == 100 and set(row.values()) == {None}
    assert equation({**row, "skipped_steps": 100}) == "skipped 100 of 100"


def test_steps_that_were_skipped_are_told_beside_the_others():
    row = window_row(["a"], sums([2.0], [2.0], [1.0], steps=2, skipped=3))
    assert equation(row) == "total 1.000 = a 1.000 (skipped 3)"


def test_a_row_that_is_not_finite_is_told_term_by_term():
    assert equation({"total": None, "terms/a": None, "terms/b": 0.25}) == (
        "total nan = a nan + b 0.25"
    )


def test_the_table_at_the_end_has_first_and_last():
    first = {"split": "train", "total": 4.0, "terms/a": 4.0, "loss_parameters/s": 1.0}
    last = {"total": 2.0, "terms/a": 1.5, "raw/a": 3.0, "weight/a": 0.5, "terms/b": None}
    last |= {"raw/b": None, "weight/b": 1.0, "loss_parameters/s": 0.5, "split": "train"}
    assert ledger_table(History([first, last])).splitlines() == [
        "term   raw  weight  weighted  share  first  last",
        "a        3     0.5       1.5  75.0%      4   1.5",
        "b        -       1         -      -      -     -",
        "total                      2   100%      4     2",
        "loss parameter  first  last",
        "s                   1   0.5",
    ]
    assert ledger_table(History()) == ""


def test_words_are_aligned_to_the_left():
    rows = [("term", "from"), ("a", "model"), ("long name", "term")]
    assert format_table(rows, words=True).splitlines() == [
        "term       from",
        "a          model",
        "long name  term",
    ]
