"""What the host reads of a log window, in numpy: its sums, and what stood beside them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class WindowSums(NamedTuple):
    """A log window on the host: float64 [T] sums of raw and weighted, float32 [T] weights."""

    raw: np.ndarray
    weighted: np.ndarray
    weight: np.ndarray
    examples: float
    grad_norm: float
    steps: int
    skipped: int

    @classmethod
    def of(cls, sums: np.ndarray, weight: np.ndarray) -> WindowSums:
        """Of the vectors of a `LogWindow`, float64 [2T + 4] and [T]."""
        terms = len(weight)
        examples, norm, steps, skipped = sums[2 * terms :]
        numbers = float(examples), float(norm), int(steps), int(skipped)
        return cls(sums[:terms], sums[terms : 2 * terms], weight.astype(np.float32), *numbers)

    @property
    def taken(self) -> int:
        """The steps of the window, skipped ones among them."""
        return self.steps + self.skipped

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.weighted).all() and np.isfinite(self.grad_norm))


class WindowSnapshot(NamedTuple):
    """What the host reads of a log window: its sums, and what stood beside them at its end.

    values: tag -> float, of loss parameters, metrics and learning rates; gradients: what
    `Diagnostics.values` takes, or None; time: seconds since 1970.
    """

    sums: WindowSums
    values: dict[str, float]
    gradients: Any
    time: float
