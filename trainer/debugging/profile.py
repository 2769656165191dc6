"""A TensorFlow profile of some steps of a fit; profile_shares.py reads what it wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from losses.errors import TermwiseError
from trainer.data.batch import is_whole
from trainer.debugging.profile_shares import WINDOW, newest, read_shares, shares_line


class Profile:
    """Records the steps after `steps[0]` up to `steps[1]` of one fit.

    Every host has one, so that their calls end alike; only the chief's records. What is written
    lies in `<workdir>/tb/plugins/profile`, where TensorBoard's profile plugin looks.

    Args:
      steps: (first, last), whole numbers, 0 <= first < last: the profile begins when step `first`
        is done and ends with step `last`. Step 0 also records how the loop is traced. None: no
        profile.
      workdir: the run's `Workdir`.
      total_steps: the global step that the fit trains to.
      chief: whether this host writes.
    Raises:
      ValueError: there is no workdir, or `steps` is something else, or ends after the fit.

    Example:
      >>> Profile((10, 20), None, 100)
      Traceback (most recent call last):
      losses.errors.TermwiseError: profile_steps=(10, 20) needs a workdir to write to. Pass ...
    """

    def __init__(self, steps, workdir, total_steps: int, chief: bool = True):
        self._first, self._last = (-1, -1) if steps is None else _checked(steps, total_steps)
        if steps is not None and workdir is None:
            raise TermwiseError(
                f"profile_steps={steps!r} needs a workdir to write to. Pass workdir= to the "
                "Trainer."
            )
        self._folder = None if workdir is None else Path(workdir.events)
        self._records = chief and steps is not None
        self._span: Any = None  # open while recording
        self._done = 0  # the last step that ended

    def next_stop(self, step: int, stop: int) -> int:
        """Where the call of the loop after `step` ends: at `stop`, or where the profile begins or
        ends, if that is sooner."""
        return min([stop, *(border for border in (self._first, self._last) if border > step)])

    def before(self, step: int) -> str | None:
        """Called before each call of the loop; begins the profile where it is due.

        Returns:
          None, or a line that says why there will be no profile.
        """
        if not self._records or self._span is not None or step < self._first:
            return None
        if step > self._first:
            self._records = False
            return f"{self._named}: nothing is recorded, the run is at step {step} already"
        try:
            tf.profiler.experimental.start(str(self._folder))
        except (tf.errors.OpError, OSError) as error:
            self._records = False
            return f"{self._named}: nothing is recorded: {_first_line(error)}"
        self._done = step
        self._span = tf.profiler.experimental.Trace(WINDOW)
        self._span.__enter__()
        return None

    def after(self, step: int) -> str | None:
        """Called after each call of the loop, which ended with `step`; ends the profile there.

        Returns:
          the summary's line once the last profiled step is done, else None.
        """
        if self._span is None:
            return None
        self._done = step
        return self._end() if step >= self._last else None

    def close(self) -> str | None:
        """Ends a profile that the end of training has left open; its line, or None."""
        return None if self._span is None else self._end()

    def _end(self) -> str:
        self._span.__exit__(None, None, None)
        self._span, self._records = None, False
        first, count = self._first + 1, self._done - self._first
        try:
            tf.profiler.experimental.stop(save=count > 0)
            if count < 1:  # restored to before, or ended within the first call
                return f"{self._named}: none of these steps ended, nothing is written"
            shares = read_shares(newest(self._folder))
        except (tf.errors.OpError, OSError, ValueError) as error:
            return f"{self._named}: could not be written or read: {_first_line(error)}"
        steps = f"{first}-{self._done}" if count > 1 else f"{first}"
        told = shares_line(shares, count)
        return f"profile of steps {steps}: {told} | tensorboard --logdir {self._folder}"

    @property
    def _named(self) -> str:
        return f"profile_steps={self._first},{self._last}"


def _checked(steps, total_steps) -> tuple[int, int]:
    """`steps` as a pair.

    Raises:
      ValueError: it is none, or ends after the fit.
    """
    pair = tuple(steps) if isinstance(steps, (tuple, list)) else ()
    if len(pair) != 2 or not all(map(is_whole, pair)) or not 0 <= pair[0] < pair[1]:
        raise TermwiseError(
            f"profile_steps={steps!r}: give two whole numbers (first, last), 0 <= first < last; "
            "the profile begins when step first is done and ends with step last."
        )
    if pair[1] > total_steps:
        raise TermwiseError(
            f"profile_steps={steps!r} ends after the last step, {total_steps}. Give steps of "
            "this fit."
        )
    return int(pair[0]), int(pair[1])


def _first_line(error) -> str:
    text = getattr(error, "message", None) or str(error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__
