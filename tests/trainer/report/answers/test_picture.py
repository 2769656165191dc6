"""What is drawn of rows besides their values: axes, sizes, groups, small charts."""

import pytest

from tests.trainer.report.rows_by_hand import row
from trainer.report.answers.charts import charts_of
from trainer.report.answers.picture import picture_of
from trainer.report.runs import columns


def picture(train, **evals):
    splits = {"train": columns(train)} | {name: columns(rows) for name, rows in evals.items()}
    return picture_of(splits, train[0]["time"] if train else None)


def rates(steps, examples):
    return {"steps_per_second": steps, "examples_per_second": examples}


def test_examples_are_steps_times_the_batch_that_the_speeds_tell():
    train = [row(10, {"a": 1.0}, **rates(5.0, 40.0)), row(30, {"a": 1.0}, **rates(4.0, 64.0))]
    evaluated = [row(20, {"a": 1.0}), row(5, {"a": 1.0}), row(60, {"a": 1.0})]
    splits = picture(train, eval=evaluated)["splits"]
    assert splits["train"]["examples"] == [10 * 8, 10 * 8 + 20 * 16]
    assert splits["eval"]["examples"] == [80 + 160, 40, 800]  # between two rows, before, behind
    assert splits["train"]["seconds"] == [0.0, 20.0] and splits["eval"]["seconds"][0] == 10.0


def test_without_speeds_a_step_is_an_example_and_a_missing_time_stays_missing():
    train = [row(4, {"a": 1.0}), {**row(8, {"a": 1.0}), "time": None}]
    columns = picture(train)["splits"]["train"]
    assert columns["examples"] == [4, 8] and columns["seconds"] == [0.0, None]


def test_sizes_are_of_absolute_weighted_values():
    answer = picture([row(1, {"a": 2.0, "b": -1.0}, {"b": 0.5}), row(2, {"a": None, "b": 1.0})])
    assert answer["splits"]["train"]["sizes"] == [2.5, 1.0]
    assert answer["sizes"] == {"a": 2.0, "b": 0.75} and answer["negative"] is True
    assert picture([row(1, {"a": 1.0})])["negative"] is False


def test_without_rows_there_is_a_picture_too():
    answer = picture([], eval=[row(3, {"l2/a": 1.0})])
    assert answer["sizes"] == {} and answer["groups"] == {"l2/a": "l2/*"}
    assert answer["splits"]["eval"]["examples"] == [3]


def test_each_tag_beside_the_terms_is_in_one_chart():
    tags = ["total", "terms/a", "metrics/mae", "grad_norm/a", "grad_norm/b", "grad_norm/total"]
    tags += ["learning_rate", "steps_per_second", "multiplier/m", "loss_parameters/s"]
    assert charts_of(tags) == [
        ["metric", "mae", ["metrics/mae"]],
        ["loss parameter", "s", ["loss_parameters/s"]],
        ["constraint", "multiplier/m", ["multiplier/m"]],
        ["", "gradient norms of the terms", ["grad_norm/a", "grad_norm/b"]],
        ["", "gradient norm of the total", ["grad_norm/total"]],
        ["", "learning_rate", ["learning_rate"]],
        ["", "steps per second", ["steps_per_second"]],
    ]


@pytest.mark.parametrize("tags", [[], ["total", "terms/a", "raw/a", "weight/a"]])
def test_terms_alone_have_no_charts_beside_them(tags):
    assert charts_of(tags) == []
