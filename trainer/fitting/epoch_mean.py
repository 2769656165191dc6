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

    def restart(self, window: WindowSums, so_far: tuple[float, float] = (0.0, 0.0)) -> None:
        """Begins with a log window that holds steps already, and the sums of the epoch so far."""
        self._ended, self._open = (0.0, 0.0), _sums(window)
        self._began = _minus(self._open, so_far)

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

    @property
    def sums(self) -> tuple[float, float]:
        """The sum of totals times examples of the epoch's steps, and the examples that count."""
        return _minus(_plus(self._ended, self._open), self._began)

    def mean(self) -> float | None:
        """The mean total of the epoch's examples; None where no step counted."""
        total, examples = self.sums
        return total / examples if examples else None

    def logs(self) -> dict:
        """The logs of a batch: the mean so far, as Keras reports it."""
        loss = self.mean()
        return {} if loss is None else {"loss": loss}


def _sums(window: WindowSums) -> tuple[float, float]:
    return window.loss, window.examples


def _plus(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return a[0] + b[0], a[1] + b[1]


def _minus(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return a[0] - b[0], a[1] - b[1]
