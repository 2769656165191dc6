"""`python -m experiments.two_digits_table`: balancers compared on two digits laid over each other.

Trains each method once per seed, one after the other, and prints the test accuracy of both tasks
and their mean, in percent: the mean over the seeds ± its standard error, as a Markdown table. Takes
three minutes on two CPU cores; docs/balancing.md has what it printed.
"""

from __future__ import annotations

import argparse
import logging
import math
import statistics
import sys

from experiments.cli.startup import start_tensorflow
from experiments.configs.two_digits import get_config

METHODS = ("equal", "uncertainty", "pcgrad", "cagrad", "mgda", "fairgrad")
COLUMNS = ("left", "right", "mean")


def accuracies(method: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """Trains once; the test accuracy of left and right, and their mean, each in [0, 1].

    Args:
      method: the configuration's `balancer`.
      seed: the configuration's `seed`.
      steps: None for the configuration's.
    """
    from experiments.two_digits import experiment

    config = get_config()
    config.balancer, config.seed = method, seed
    with config.ignore_type():
        config.gradient_diagnostics_every = None  # nobody reads them here
    config.steps = config.validate_every = steps or config.steps
    run = experiment(config.lock(), strategy="one_device", workdir=None)
    run.trainer.fit(run.train_data, verbose=False, **run.fit)
    values = run.trainer.evaluate(run.test_data, batch_size=500)
    of_task = {task: values[f"metrics/{task}_accuracy"] for task in COLUMNS[:2]}
    return {**of_task, "mean": sum(of_task.values()) / 2}


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """The mean and its standard error: s / √n, s with n - 1; nan for one value.

    Example:
      >>> mean_and_error([1.0, 2.0, 3.0])
      (2.0, 0.577)
    """
    if len(values) == 1:
        return values[0], math.nan
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))


def table(runs: dict[str, list[dict[str, float]]]) -> str:
    """A Markdown table, one line per method.

    Args:
      runs: method -> what `accuracies` gave for each seed.
    """
    lines = ["| method | left % | right % | mean % |", "|---|---|---|---|"]
    for method, scores in runs.items():
        cells = []
        for column in COLUMNS:
            mean, error = mean_and_error([100 * score[column] for score in scores])
            cells.append(f"{mean:.2f} ± {error:.2f}")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Runs what the arguments say; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.two_digits_table",
        description="Compares balancers on two digits laid over each other.",
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, metavar="METHOD")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0, 1, ...; 5 by default")
    parser.add_argument("--steps", type=int, help="of each run; the configuration's by default")
    arguments = parser.parse_args(argv)
    for name in ("seeds", "steps"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            parser.error(f"--{name}={value}: give a whole number of at least 1.")
    start_tensorflow()
    logging.getLogger("tensorflow").setLevel("ERROR")  # it takes many Trainers for retraces
    runs: dict[str, list[dict[str, float]]] = {method: [] for method in arguments.methods}
    for seed in range(arguments.seeds):
        for method in arguments.methods:
            score = accuracies(method, seed, arguments.steps)
            runs[method].append(score)
            print(f"seed {seed}  {method}  {100 * score['mean']:.2f}", file=sys.stderr, flush=True)
    print(table(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
