"""The mean total of an epoch's steps, whatever log windows they fall into."""

from __future__ import annotations

from trainer.ledger.window import WindowSums


class EpochMean:
    """Adds up the totals of steps: of log windows that ended, and of the one that has not."""

    def __init__(self) -> None:
        self._ended = (0.0, 0)  # the sum of totals, and the steps, of the windows that ended
        self._open = (0.0, 0)  # of the window that has not
        self._began = (0.0, 0)  # of all steps before the epoch

    def restart(self, window: WindowSums) -> None:
        """Begins with a log window that holds steps already."""
        self._ended, self._open = (0.0, 0), _sums(window)
        self.begin()

    def begin(self) -> None:
        """An epoch begins."""
        self._began = _plus(self._ended, self._open)

    def add(self, ended: list[WindowSums], window: WindowSums) -> None:
        """Takes the log windows that ended in a call, and the one that has not."""
        for sums in ended:
            self._ended = _plus(self._ended, _sums(sums))
        self._open = _sums(window)

    def window_ended(self) -> None:
        """The window that had not ended has ended early."""
        self._ended, self._open = _plus(self._ended, self._open), (0.0, 0)

    def mean(self) -> float | None:
        """The mean total of the epoch's steps; None where no step counted."""
        total, steps = _plus(self._ended, self._open)
        steps -= self._began[1]
        return (total - self._began[0]) / steps if steps else None


def _sums(window: WindowSums) -> tuple[float, int]:
    return float(window.weighted.sum()), window.steps


def _plus(a: tuple[float, int], b: tuple[float, int]) -> tuple[float, int]:
    return a[0] + b[0], a[1] + b[1]
