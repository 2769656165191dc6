"""The demonstration of `helps_every=`: the signs of a term that helps and of one that harms."""

import statistics

import pytest

pytest.importorskip("sklearn")

from benchmarks.helps_on_digits import WEIGHTS, train


@pytest.mark.parametrize(("name", "helps"), [("pair", True), ("annotator", False)])
def test_the_sign_says_which_term_helps(name, helps):
    _, measured = train(0, {name: WEIGHTS[name]}, steps=100)
    assert (statistics.fmean(measured[name]) < 0) is helps
