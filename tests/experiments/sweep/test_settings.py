"""What a sweep varies: axes as they are typed, settings, names of folders, results."""

import json

import pytest

from experiments.cli.configuration import ConfigurationError
from experiments.sweep import Axis, parse_axis, settings
from experiments.sweep.results import final_values, summarize, table


def test_values_are_separated_by_commas_outside_of_brackets_and_quotes():
    assert parse_axis("config.a.b=1e-4,1e-3") == Axis("a.b", ("1e-4", "1e-3"))
    assert parse_axis("--config.u=(8,16),(32,)").values == ("(8,16)", "(32,)")
    assert parse_axis("config.n='a,b',c").values == ("'a,b'", "c")
    assert parse_axis("config.seed=-1..2").values == ("-1", "0", "1", "2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed=0..4", "write --sweep=config.FIELD=VALUE,VALUE"),
        ("config.seed", "write --sweep=config.FIELD"),
        ("config.seed=", "a value is empty"),
        ("config.seed=1,,2", "a value is empty"),
        ("config.seed=4..0", "the lower first"),
        ("config.seed=0..99999", "at most 10000 numbers"),
        ("config.seed=1,2,1", "a value is there twice"),
    ],
)
def test_an_axis_that_is_wrong_is_refused(text, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_axis(text)


def test_settings_are_all_combinations_named_by_what_varies():
    made = settings([parse_axis("config.weights.l2=1e-4,1e-3"), parse_axis("config.seed=0..1")])
    assert [setting.name for setting in made] == [
        *("l2=1e-4,seed=0", "l2=1e-4,seed=1", "l2=1e-3,seed=0", "l2=1e-3,seed=1")
    ]
    assert made[3].overrides == ["--config.weights.l2=1e-3", "--config.seed=1"]
    assert {setting.group for setting in made} == {
        (("weights.l2", "1e-4"),),
        (("weights.l2", "1e-3"),),
    }


def test_fields_of_one_last_name_are_named_whole_and_folders_hold_no_slash():
    made = settings([parse_axis("config.a.rate=1,2"), parse_axis("config.b.rate='x/y'")])
    assert made[0].name == "a.rate=1,b.rate=_x_y_"
    with pytest.raises(ConfigurationError, match="two settings would have the folder 'n=a_b'"):
        settings([parse_axis("config.n=a/b,a:b")])
    with pytest.raises(ConfigurationError, match=r"config\.seed: is given twice"):
        settings([parse_axis("config.seed=1"), parse_axis("config.seed=2")])


def test_results_are_means_over_seeds_with_their_error_best_first(tmp_path):
    made = settings([parse_axis("config.w=1,2,3"), parse_axis("config.seed=0..2")])
    totals = dict(zip((s.name for s in made), [4.0, 5.0, 6.0, 1.0, 2.0, 3.0], strict=False))
    for name, total in totals.items():
        (tmp_path / name).mkdir()
        done = {"total": 9.0, "seconds": 1.0, "eval": {"total": total, "split": "eval"}}
        (tmp_path / name / "DONE.json").write_text(json.dumps(done))
    runs = [
        (s, "done" if s.name in totals else "failed (1)", final_values(tmp_path / s.name))
        for s in made
    ]
    entries = summarize(runs, "eval/total", descending=False)
    assert [entry["values"]["w"] for entry in entries] == ["2", "1", "3"]
    assert entries[0]["mean"] == 2.0 and entries[0]["error"] == pytest.approx(3**-0.5)
    assert entries[2]["mean"] is None
    assert table(entries, "eval/total").splitlines() == [
        "w  eval/total  ± standard error  runs",
        "2  2           0.58              3",
        "1  5           0.58              3",
        "3  -           -                 0, 3 not done",
    ]
    assert [e["values"]["w"] for e in summarize(runs, "eval/total", True)] == ["1", "2", "3"]
