"""A log window as the host reads it: sums over its steps, and what stood beside them at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

NUMBERS = 4  # behind the terms' sums: examples, grad_norm, steps, skipped


class WindowSums(NamedTuple):
    """Sums over the steps of a log window; T is the number of terms.

    Attributes:
      raw, weighted: float64 [T], summed over the steps that count.
      weight: float32 [T], of the window's last step.
      examples: summed over the steps that count.
      grad_norm: the norm of the total's gradient, summed over the steps that count.
      steps: how many steps count.
      skipped: how many were left out, because a value in them was not finite.
      absent: float64 [T], of the steps that count those from which a term was absent.
      loss: the total times the examples, summed over the steps that count.
      by_examples: whether a step weighs as many as it has examples in the sums of raw, weighted,
        grad_norm and absent; else 1.
    """

    raw: np.ndarray
    weighted: np.ndarray
    weight: np.ndarray
    examples: float
    grad_norm: float
    steps: int
    skipped: int
    absent: Any = 0.0
    loss: float = 0.0
    by_examples: bool = False

    @classmethod
    def of(cls, sums: np.ndarray, weight: np.ndarray, by_examples: bool = False) -> WindowSums:
        """The sums that stand in one vector.

        Args:
          sums: float64 [3T + 5]: raw, weighted, examples, grad_norm, steps, skipped, absent, loss.
          weight: [T].
          by_examples: as in the attributes.
        """
        return StackedSums.of(sums[None], weight[None], by_examples).at(0)

    @property
    def mass(self) -> float:
        """What the sums are divided by for means over the steps that count."""
        return self.examples if self.by_examples else self.steps

    @property
    def taken(self) -> int:
        """The steps of the window, skipped ones among them."""
        return self.steps + self.skipped

    @property
    def finite(self) -> bool:
        """Whether every sum is."""
        return bool(np.isfinite(self.weighted).all() and np.isfinite(self.grad_norm))


class StackedSums(NamedTuple):
    """The sums of W log windows as columns; each is that of `WindowSums` with a first axis [W].

    Attributes:
      raw, weighted, absent: float64 [W, T].
      weight: float32 [W, T].
      examples, grad_norm, loss: float64 [W].
      steps, skipped: int64 [W].
      by_examples: as in `WindowSums`.
    """

    raw: np.ndarray
    weighted: np.ndarray
    weight: np.ndarray
    examples: np.ndarray
    grad_norm: np.ndarray
    steps: np.ndarray
    skipped: np.ndarray
    absent: np.ndarray
    loss: np.ndarray
    by_examples: bool

    @classmethod
    def of(cls, sums: np.ndarray, weight: np.ndarray, by_examples: bool = False) -> StackedSums:
        """The columns of vectors as `WindowSums.of` takes them, [W, 3T + 5] and [W, T]."""
        terms = weight.shape[1]
        raw, weighted, numbers, absent, loss = np.split(
            sums, np.cumsum([terms, terms, NUMBERS, terms]), axis=1
        )
        examples, norm, steps, skipped = numbers.T
        counts = steps.astype(np.int64), skipped.astype(np.int64)
        last = weight.astype(np.float32)
        return cls(raw, weighted, last, examples, norm, *counts, absent, loss[:, 0], by_examples)

    @classmethod
    def stack(cls, windows: Sequence[WindowSums]) -> StackedSums:
        """The columns of some windows, one at least."""
        zeros = np.zeros(len(windows[0].weight))  # `absent` may be one number
        whole = [window._replace(absent=window.absent + zeros) for window in windows]
        *columns, by_examples = zip(*whole, strict=True)
        named = zip(cls._fields, map(np.asarray, columns), strict=False)
        return cls(**dict(named), by_examples=by_examples[0])

    def at(self, place: int) -> WindowSums:
        """One of the windows."""
        raw, weighted, weight, examples, norm, steps, skipped, absent, loss = (
            column[place] for column in self[:-1]
        )
        numbers = float(examples), float(norm), int(steps), int(skipped)
        return WindowSums(raw, weighted, weight, *numbers, absent, float(loss), self.by_examples)

    @property
    def mass(self) -> np.ndarray:
        """[W], as of `WindowSums`."""
        return self.examples if self.by_examples else self.steps

    @property
    def taken(self) -> np.ndarray:
        """int64 [W], as of `WindowSums`."""
        return self.steps + self.skipped


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


class WindowColumns(NamedTuple):
    """What the host reads of W log windows.

    Attributes:
      sums: over their steps.
      values: tag -> W numbers, as of `WindowSnapshot`.
      gradients: float64 [W, ...]; None where nothing is measured.
      times: W numbers, each window's end.
    """

    sums: StackedSums
    values: dict[str, list[float]]
    gradients: Any
    times: list[float]


class WindowReader(Protocol):
    """Knows how the compiled loop packs a log window in one vector."""

    def read_many(self, rows: np.ndarray, /) -> WindowColumns:
        """What W vectors hold, float64 [W, ...]."""
        ...
