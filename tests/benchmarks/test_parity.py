"""The comparison of benchmarks/parity.py: its arithmetic, and two of its cases."""

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import parity


def weights(**values):
    return {path: np.array(value, "float32") for path, value in values.items()}


def test_a_difference_is_relative_above_one_and_absolute_below():
    runs = {"one": weights(a=[4.0, 0.5], b=1.0), "two": weights(a=[5.0, 0.625], b=1.0)}
    assert parity.difference(runs.get, "one", "two") == 0.25  # |5 - 4| / 4; below 1 it is 0.125


def test_weights_that_are_no_numbers_differ_without_bound():
    runs = {"one": weights(a=[1.0, 2.0]), "two": weights(a=[np.nan, 2.0])}
    assert parity.difference(runs.get, "one", "two") == np.inf


def test_an_error_on_two_devices_is_told_by_its_kind_and_first_line():
    def fails(strategy):
        raise ValueError("{{node a/b}} The cause.\nThe graph.")

    assert parity.difference(fails, "one", "two") == "ValueError: The cause."


def test_the_table_marks_what_is_more_than_rounding():
    rows = [("a case", "ValueError: a|b", 0.25, 1e-7), ("another", np.inf, 2e-6, 0.0)]
    lines = parity.table(rows).splitlines()
    assert lines[2] == "| a case | ValueError: a\\|b | **2.5e-01** | 1.0e-07 |"
    assert lines[3] == "| another | **not finite** | 2.0e-06 | 0.0e+00 |"


@pytest.mark.very_slow
@pytest.mark.slow
def test_termwise_gives_the_weights_of_one_device_where_fit_does_not(two_replicas):
    names = ["a scalar loss", "clipping by norm"]
    rows = list(parity.compare(names, tf.distribute.get_strategy(), two_replicas))
    assert [name for name, *_ in rows] == names
    for _, uneven, even, termwise in rows:
        assert isinstance(uneven, str) or uneven > 1e-3
        assert isinstance(even, str) or even > 1e-3
        assert termwise <= parity.ROUNDING
    assert all(f"| {name} |" in parity.report(rows) for name in names)
