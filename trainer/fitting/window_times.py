"""When the log windows of a call ended, by a clock that does not jump."""

from __future__ import annotations

import time

import numpy as np

from trainer.loop.train_loop import LoopResult


def end_times(result: LoopResult, done: list[int], count: int, seconds: float) -> np.ndarray:
    """When each log window of a call ended, float64 [W], in seconds since the call began.

    The loop notes the time of day; where that has jumped, or is not to be had, the steps are taken
    to be equally long.

    Args:
      result: of the call, which has just ended.
      done: the steps of the call up to the end of each window.
      count: the steps of the call.
      seconds: that it took, by a clock that does not jump.
    """
    ends = seconds - (time.time() - result.ended[:, -1])
    if np.all(np.isfinite(ends)) and ends[0] >= 0 and np.all(np.diff(ends) >= 0):
        return np.minimum(ends, seconds)
    return seconds * np.asarray(done, np.float64) / max(count, 1)


def stamped_windows(result: LoopResult, ends: np.ndarray, seconds: float) -> tuple:
    """The windows that ended, with the time of day, as a row tells it; and how long each took."""
    windows = result.ended.copy()
    windows[:, -1] = time.time() - seconds + ends
    return windows, np.diff(ends, prepend=0.0)
