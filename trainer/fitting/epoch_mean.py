"""The mean total over an epoch's examples, whatever log windows its steps fall into."""

from __future__ import annotations

from trainer.ledger.window import WindowSums


class EpochMean:
    """Adds up the totals of steps: of log windows that ended, and of the one that has not.

    A step weighs as many as it has examples, as in Keras: of a short last batch less.
    """

    def __init__(self) -> None:
        self._ended = (0.0, 0.0)  # the sum of totals, and the examples, of the windows that ended
        self._open = (0.0, 0.0)  # of the window that has not
        self._began = (0.0, 0.0)  # of all steps before the epoch

    def restart(self, window: WindowSums) -> None:
        """Begins with a log window that holds steps already."""
        self._ended, self._open = (0.0, 0.0), _sums(window)
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
        self._ended, self._open = _plus(self._ended, self._open), (0.0, 0.0)

    def mean(self) -> float | None:
        """The mean total of the epoch's examples; None where no step counted."""
        total, examples = _plus(self._ended, self._open)
        examples -= self._began[1]
        return (total - self._began[0]) / examples if examples else None


def _sums(window: WindowSums) -> tuple[float, float]:
    return window.loss, window.examples


def _plus(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return a[0] + b[0], a[1] + b[1]
