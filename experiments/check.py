"""What a finished run must have reached: a value and its bounds."""

from __future__ import annotations

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class Check:
    """A value that a run came to, and what it must be; without bounds it is told and compared.

    Attributes:
      value: float; an array or tensor of one element is taken too.
      at_least, at_most: float, the bounds, which belong to what is accepted; None for none.
    Raises:
      TypeError: something else than numbers.
      ValueError: a bound that is not finite, or `at_least` above `at_most`.

    Example:
      >>> print(Check(0.934, at_least=0.9))
      0.934 >= 0.9
      >>> Check(0.834, at_least=0.9).reached
      False
    """

    value: float
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self):
        for name in ("value", "at_least", "at_most"):
            given = getattr(self, name)
            if given is None and name != "value":
                continue
            object.__setattr__(self, name, _number(name, given))
            if name != "value" and not math.isfinite(getattr(self, name)):
                raise ValueError(f"Check({name}={given}): give a finite number.")
        low, high = self.at_least, self.at_most
        if low is not None and high is not None and low > high:
            raise ValueError(
                f"Check(at_least={self.at_least}, at_most={self.at_most}): no value is both. "
                "Give the lower bound first."
            )

    @property
    def reached(self) -> bool:
        """Whether the value is finite and within its bounds."""
        low = -math.inf if self.at_least is None else self.at_least
        high = math.inf if self.at_most is None else self.at_most
        return math.isfinite(self.value) and low <= self.value <= high

    def __str__(self) -> str:
        shown = _shown(self.value, [self.at_least, self.at_most])
        if self.at_least is not None and self.at_most is not None:
            return f"{self.at_least:.6g} <= {shown} <= {self.at_most:.6g}"
        if self.at_least is not None:
            return f"{shown} >= {self.at_least:.6g}"
        return shown if self.at_most is None else f"{shown} <= {self.at_most:.6g}"

    def plain(self) -> dict[str, Any]:
        """What DONE.json holds: the value (None where it is not finite), bounds, `reached`."""
        bounds = {name: getattr(self, name) for name in ("at_least", "at_most")}
        return {
            "value": self.value if math.isfinite(self.value) else None,
            **{name: bound for name, bound in bounds.items() if bound is not None},
            "reached": self.reached,
        }


def _number(name: str, given) -> float:
    try:
        return float(given)
    except (TypeError, ValueError):
        raise TypeError(
            f"Check({name}={given!r}): is a {type(given).__name__}. Give one number."
        ) from None


def _shown(value: float, bounds: list[float | None]) -> str:
    """The value in four digits; in more where it would look like a bound that it is not."""
    near = [b for b in bounds if b is not None and b != value and f"{b:.4g}" == f"{value:.4g}"]
    return f"{value:.9g}" if near else f"{value:.4g}"
