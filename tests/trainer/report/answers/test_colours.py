"""Colours of terms: one in all runs, and as many as there are within one."""

from trainer.report.answers.colours import HUES, Colours, group_of


def test_a_term_keeps_its_colour_when_other_runs_come():
    colours = Colours()
    colours.learn(["a", "b"])
    before = dict(colours.hues)
    colours.learn(["c", "b", "d"])
    assert {name: colours.hues[name] for name in before} == before
    assert len(set(colours.hues.values())) == 4


def test_the_terms_of_one_run_differ_although_others_have_used_up_the_colours():
    colours = Colours()
    colours.learn([f"x{letter}" for letter in "abcdefgh"])
    colours.learn(["new", "xa", "other"])
    hues = [colours.hues[name] for name in ("new", "xa", "other")]
    assert len(set(hues)) == 3 and max(colours.hues.values()) == HUES - 1


def test_folded_terms_have_a_colour_together_and_one_each():
    colours = Colours()
    colours.learn(["data", *(f"aux_{i}" for i in range(3)), "one_1"])
    assert colours.hues["data"] == 0 and colours.hues["aux_*"] == 1 and colours.hues["one_1"] == 2
    assert len({colours.hues[f"aux_{i}"] for i in range(3)}) == 3


def test_names_are_grouped_by_what_stands_before_a_slash_or_a_number():
    names = ["l2/dense/kernel", "aux_12", "v2", "/x", "7", "plain", "a1b"]
    groups = ["l2/*", "aux_*", "v*", "/x", "7", "plain", "a1b"]
    assert [group_of(name) for name in names] == groups
