"""The benchmark harness: interleaved rounds, ratios that say what they mean, equal contestants."""

import json

import numpy as np
import pytest

from benchmarks import __main__ as program
from benchmarks import report
from benchmarks.ratios import ratios, shares
from benchmarks.references import handwritten, keras_fit
from benchmarks.rounds import Paused, measure
from benchmarks.suite import DEFAULT, HAND, SUITE, Benchmark
from benchmarks.termwise import termwise
from benchmarks.worker import run
from benchmarks.workloads import WORKLOADS, Workload, mlp


class Steady:
    """A contestant that takes the same time for each step, and writes down when it ran."""

    def __init__(self, label, seconds_per_step, log):
        self.label, self.seconds, self.log = label, seconds_per_step, log

    def __call__(self, steps):
        self.log.append((self.label, steps))
        return steps * self.seconds


def result(contestants, references, lower=False):
    return {
        "title": "a title",
        "unit": "s" if lower else "steps/s",
        "lower_is_better": lower,
        "references": references,
        "contestants": {label: {"rates": rates} for label, rates in contestants.items()},
    }


def test_each_contestant_runs_once_in_every_round_in_random_order():
    log = []
    runs = {label: Steady(label, 0.001, log) for label in "abcd"}
    measure(runs, rounds=30, seconds=0.1, unit=10)
    rounds = [tuple(label for label, _ in log[-120:][i : i + 4]) for i in range(0, 120, 4)]
    assert all(sorted(one) == list("abcd") for one in rounds)
    assert len(set(rounds)) > 10


def test_a_round_lasts_about_as_long_as_asked_whatever_the_contestant_costs():
    log = []
    runs = {"fast": Steady("fast", 1e-5, log), "slow": Steady("slow", 0.01, log)}
    found = measure(runs, rounds=3, seconds=2.0, unit=100)
    assert log[-6:].count(("fast", 200_000)) == log[-6:].count(("slow", 200)) == 3
    assert found["fast"]["rates"] == pytest.approx([1e5] * 3)
    assert found["slow"]["rates"] == pytest.approx([100.0] * 3)


def test_a_step_slower_than_a_round_still_gets_a_whole_unit():
    log = []
    measure({"slow": Steady("slow", 1.0, log)}, rounds=2, seconds=0.5, unit=100)
    assert log[-2:] == [("slow", 100)] * 2


def test_hosts_take_as_many_steps_as_the_slowest_of_them():
    log = []
    runs = {"a": Steady("a", 0.001, log)}
    measure(runs, rounds=1, seconds=1.0, unit=10, agree=lambda own: 2 * max(own))
    assert log[-1] == ("a", 500)


def test_a_contestant_that_fails_is_left_out_and_named_where_that_is_asked_for():
    def fails(steps):
        raise ValueError("no such kernel")

    runs, failures = {"a": Steady("a", 0.001, []), "b": fails}, {}
    found = measure(runs, rounds=1, seconds=0.1, unit=10, failures=failures)
    assert list(found) == ["a"]
    assert str(failures["b"]) == "no such kernel"
    with pytest.raises(ValueError, match="no such kernel"):
        measure(runs, rounds=1, seconds=0.1, unit=10)


def test_a_paused_loop_goes_on_where_it_stood_and_no_further():
    seen = []

    def loop(paused):
        for step in range(1, 10**6):
            seen.append(step)
            paused.reached(step)

    paused = Paused(loop)
    paused(5)  # after a first step, until which it starts
    assert seen == [1, 2, 3, 4, 5, 6]
    paused(3)
    assert seen[-1] == 9


def test_a_loop_that_takes_more_steps_than_asked_is_timed_for_those_asked():
    def loop(paused):
        for step in range(1, 100):
            if step % 10 == 1:
                paused.reached(step)  # after 1, 11, 21, ... steps

    paused = Paused(loop)
    seconds = paused(4)  # which took 10: a lower bound of what they would take alone
    assert paused.target == 11
    assert 0 < seconds < 1


def test_a_loop_that_fails_says_so_to_whom_drives_it():
    def loop(paused):
        paused.reached(1)
        raise ValueError("no data")

    with pytest.raises(RuntimeError, match="ended by itself: no data"):
        Paused(loop)(5)


def test_a_ratio_compares_best_rounds_and_rounds_one_by_one():
    # by hand: rounds 2/4, 6/3, 3/3; best 6/4
    [one] = ratios(result({"a": [2.0, 6.0, 3.0], "b": [4.0, 3.0, 3.0]}, {"a": "b"}))
    assert (one.best, one.median, one.low, one.high, one.rate) == (1.5, 1.0, 0.5, 2.0, 6.0)


def test_the_best_of_seconds_and_megabytes_is_the_least():
    [one] = ratios(result({"a": [3.0, 2.0], "b": [1.0, 4.0]}, {"a": "b"}, lower=True))
    assert (one.best, one.rate) == (2.0, 2.0)


def test_processor_time_is_compared_where_both_have_it():
    given = result({"a": [1.0], "b": [1.0]}, {"a": "b"})
    assert ratios(given)[0].cpu is None
    given["contestants"]["a"]["cpu"], given["contestants"]["b"]["cpu"] = [2.0], [3.0]
    assert ratios(given)[0].cpu == 1.5


def test_the_table_has_a_line_for_each_contestant_and_says_what_is_missing():
    given = result({"a": [2.0, 6.0], "b": [4.0, 3.0]}, {"a": "b"})
    given["missing"] = ["Orbit is left out: no module"]
    text = report.table({"one": given})
    assert "| a | b | 1.50 | 1.25 | 0.50 | 2.00 | | 6 |" in text
    assert "| b | | 1 | | | | | 4 |" in text
    assert "Orbit is left out: no module" in text


def test_a_column_is_the_share_of_the_fastest_of_its_labels_in_each_round():
    given = result({"a": [2.0, 6.0], "b": [4.0, 3.0], "c": [8.0, 2.0]}, {"a": "b"})
    given["columns"] = {"of the bound": ["b", "c"]}
    assert shares(given)["a"] == {"of the bound": (0.75, 1.125)}  # 2 / 8 and 6 / 3
    text = report.table({"one": given})
    assert "| a | b | 1.50 | 1.25 | 0.50 | 2.00 | | 0.75 (1.12) | 6 |" in text
    assert "| c | | 1 | | | | | | 8 |" in text


def test_the_processor_time_of_another_process_is_counted():
    class Elsewhere(Steady):
        ran, cpu = 50, 5.0

    found = measure({"a": Elsewhere("a", 0.001, [])}, rounds=1, seconds=0.1, unit=10)
    assert found["a"]["cpu"][0] == pytest.approx(0.1, rel=0.1)


def test_results_are_kept_as_a_page_and_as_numbers(tmp_path):
    given = {"one": result({"a": [2.0], "b": [4.0]}, {"a": "b"})}
    report.write(given, {"cores": "2"}, tmp_path)
    kept = json.loads((tmp_path / "results.json").read_text())
    assert kept == {"machine": {"cores": "2"}, "results": given}
    assert "- cores: 2" in (tmp_path / "results.md").read_text()


def test_every_reference_of_the_suite_is_a_contestant():
    for benchmark in SUITE.values():
        if benchmark.devices == benchmark.hosts == 1:
            labels = set(benchmark.contestants(None))
            assert set(benchmark.references) <= labels
            assert set(benchmark.references.values()) <= labels
            assert set(benchmark.points) <= labels
            assert {one for column in benchmark.columns.values() for one in column} <= labels


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_contestant_gets_the_same_weights_and_batches(name):
    workload = WORKLOADS[name]()
    first, second = workload.model(), workload.model()
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for (x, y), (other_x, other_y) in zip(workload.dataset(), workload.dataset(), strict=True):
        assert x.shape[0] == workload.batch
        np.testing.assert_array_equal(x, other_x)
        np.testing.assert_array_equal(y, other_y)


def test_the_hand_written_loop_trains_as_termwise_does(monkeypatch):
    workload, made = mlp(16, 8), []
    build = Workload.model

    def model(self):
        made.append(build(self))
        return made[-1]

    monkeypatch.setattr(Workload, "model", model)
    handwritten(workload)(100)
    paused = termwise(workdir=False, steps=100)(workload)
    with pytest.raises(RuntimeError, match="ran out of steps"):
        paused(1000)
    for a, b in zip(made[0].get_weights(), made[1].get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


def test_a_benchmark_is_measured_from_its_contestants_to_its_ratios():
    workload = mlp(16, 8)

    def missing():
        raise ImportError("no such package")

    def contestants(strategy):
        makers = {HAND: handwritten, DEFAULT: termwise(workdir=False), "fit": keras_fit(32)}
        made = {label: lambda make=make: make(workload) for label, make in makers.items()}
        return {**made, "Orbit": missing}

    references = {DEFAULT: HAND, "fit": HAND, "Orbit": HAND}
    found = run(Benchmark("tiny", contestants, references), rounds=2, seconds=0.05)
    assert found["missing"] == ["Orbit is left out: no such package"]
    assert [one.label for one in ratios(found)] == [DEFAULT, "fit"]
    for one in found["contestants"].values():
        assert len(one["rates"]) == len(one["cpu"]) == 2
        assert min(one["rates"]) > 0


def test_an_unknown_benchmark_is_refused_with_the_nearest_name(capsys):
    assert program.main(["mpl"]) == program.WRONG
    assert "error: no benchmark 'mpl'. Did you mean mlp?" in capsys.readouterr().err


def test_a_benchmark_that_fails_leaves_the_others_and_ends_in_one(monkeypatch, tmp_path, capsys):
    def measured(name, rounds, seconds):
        if name == "cnn":
            raise RuntimeError("exit code 1")
        return result({"a": [1.0], "b": [1.0]}, {"a": "b"})

    monkeypatch.setattr(program, "measured", measured)
    assert program.main(["cnn", "mlp", "--quick", "--folder", str(tmp_path)]) == 1
    assert "error: cnn failed: exit code 1" in capsys.readouterr().err
    assert list(json.loads((tmp_path / "results.json").read_text())["results"]) == ["mlp"]


@pytest.mark.parametrize("name", ["results.json", "results.md", "results.png"])
def test_files_of_these_names_that_are_no_results_are_left_alone(name, tmp_path, capsys):
    (tmp_path / name).write_text("years of work")
    assert program.main(["mlp", "--quick", "--folder", str(tmp_path)]) == program.WRONG
    assert f"{name} is not of `python -m benchmarks`, and would be" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "years of work"
