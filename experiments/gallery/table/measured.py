"""What the runs of an experiment came to: means over seeds, standard errors, differences."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from experiments.check import Check
from experiments.sweep.results import mean_and_error


@dataclasses.dataclass(frozen=True)
class Gap:
    """The difference of two means over seeds.

    Attributes:
      mean: of the one less that of the other.
      error: its standard error, √(e₁² + e₂²) of those of the two means.
    """

    mean: float
    error: float

    @property
    def in_errors(self) -> float:
        """The difference as a multiple of its standard error; infinite where no run varies."""
        if self.error == 0.0:
            return math.copysign(math.inf, self.mean) if self.mean else 0.0
        return self.mean / self.error


@dataclasses.dataclass(frozen=True)
class Measured:
    """The checks of an experiment's runs.

    Attributes:
      runs: variant -> seed -> the plain checks of DONE.json, and "seconds" of training, as
        {"checks": {name: {"value", "at_least", "at_most", "reached"}}, "seconds": float}.
    """

    runs: Mapping[str, Mapping[str, Mapping[str, Any]]]

    def names(self) -> list[str]:
        """The names of all checks, in the order of the first run that has them."""
        runs = [run for seeds in self.runs.values() for run in seeds.values()]
        return list(dict.fromkeys(name for run in runs for name in run["checks"]))

    def values(self, variant: str, check: str) -> list[float]:
        """A check's value in the runs of a variant, by seed; NaN where it was not finite.

        Raises:
          KeyError: no such variant, or no run of it has such a check.
        """
        seeds = self.runs[variant]
        found = [run["checks"][check]["value"] for run in seeds.values() if check in run["checks"]]
        if not found:
            raise KeyError(f"{check}: no run of the variant {variant!r} has such a check.")
        return [math.nan if value is None else value for value in found]

    def mean(self, variant: str, check: str) -> float:
        """Over the seeds."""
        return _mean_and_error(self.values(variant, check))[0]

    def error(self, variant: str, check: str) -> float:
        """The standard error of the mean over the seeds; NaN of one run."""
        return _mean_and_error(self.values(variant, check))[1]

    def gap(self, check: str, variant: str, other: str) -> Gap:
        """By how much a check of one variant is above that of another."""
        mean = self.mean(variant, check) - self.mean(other, check)
        return Gap(mean, math.hypot(self.error(variant, check), self.error(other, check)))

    def checks(self, variant: str) -> dict[str, Check]:
        """The checks of a variant that have bounds, on the means over its seeds."""
        found: dict[str, Check] = {}
        for run in self.runs[variant].values():
            for name, check in run["checks"].items():
                bounds = {key: check[key] for key in ("at_least", "at_most") if key in check}
                if bounds:
                    found[name] = Check(self.mean(variant, name), **bounds)
        return found

    def seconds(self, variant: str) -> float:
        """Of training, the mean over the seeds."""
        runs = self.runs[variant].values()
        return sum(run["seconds"] for run in runs) / len(runs)


def _mean_and_error(values: list[float]) -> tuple[float, float]:
    """The mean and its standard error; NaN where a value is not finite, or there is one alone."""
    if not all(map(math.isfinite, values)):
        return math.nan, math.nan
    mean, error = mean_and_error(values)
    return mean, math.nan if error is None else error
