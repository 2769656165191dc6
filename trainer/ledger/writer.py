"""What every writer of rows can do: the one interface behind which they stand."""

from __future__ import annotations

import abc


class Writer(abc.ABC):
    """One place that the rows of a run go to."""

    @abc.abstractmethod
    def write(self, row: dict, total_steps: int) -> None:
        """Writes one row.

        Args:
          row: as `rows.stamped` makes it.
          total_steps: the last step of the fit.
        """

    @abc.abstractmethod
    def cut(self, step: int) -> None:
        """Takes back the rows after a step: the run was restored to it."""

    @abc.abstractmethod
    def flush(self, to_disk: bool) -> None:
        """Hands the rows so far to their readers.

        Args:
          to_disk: return only when the rows would survive a power cut, where that is promised.
        """

    @abc.abstractmethod
    def close(self, finished: bool) -> None:
        """Ends the writing.

        Args:
          finished: whether the run reached its last step.
        """
