"""A log window as the host reads it: sums over its steps, and what stood beside them at its end."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np


class WindowSums(NamedTuple):
    """Sums over the steps of a log window; T is the number of terms.

    Attributes:
      raw, weighted: float64 [T], summed over the steps that count.
      weight: float32 [T], of the window's last step.
      examples: summed over the steps that count.
      grad_norm: the norm of the total's gradient, summed over the steps that count.
      steps: how many steps count.
      skipped: how many were left out, because a value in them was not finite.
    """

    raw: np.ndarray
    weighted: np.ndarray
    weight: np.ndarray
    examples: float
    grad_norm: float
    steps: int
    skipped: int

    @classmethod
    def of(cls, sums: np.ndarray, weight: np.ndarray) -> WindowSums:
        """The sums that stand in one vector.

        Args:
          sums: float64 [2T + 4]: raw, weighted, examples, grad_norm, steps, skipped.
          weight: [T].
        """
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
        """Whether every sum is."""
        return bool(np.isfinite(self.weighted).all() and np.isfinite(self.grad_norm))


class WindowSnapshot(NamedTuple):
    """What the host reads of one log window.

    Attributes:
      sums: over the window's steps.
      values: tag -> float at the window's end, of loss parameters, metrics and learning rates.
      gradients: what `Diagnostics.values` takes; None where nothing is measured.
      time: of the window's end, seconds since 1970.
    """

    sums: WindowSums
    values: dict[str, float]
    gradients: Any
    time: float


class WindowReader(Protocol):
    """Knows how the compiled loop packs a log window in one vector."""

    def read(self, row: np.ndarray, /) -> WindowSnapshot:
        """The snapshot that a float64 vector holds."""
        ...
