"""The log window that is being filled, as the host sees it: its sums, its time, and its row."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from losses.errors import TermwiseError
from losses.terms.constraint import constraints_of
from trainer.debugging.constraint_watch import ConstraintWatch
from trainer.fitting.window_watch import WindowWatch
from trainer.ledger.recorder import Recorder
from trainer.ledger.window import StackedSums, WindowSums
from trainer.ledger.writers import Writers
from trainer.loop.traced_step import TracedStep
from trainer.loop.train_loop import LoopResult
from trainer.loop.window import LogWindow
from trainer.run.run import Run


class OpenWindow:
    """Takes what calls of the loop return, and hands on the windows that end.

    Args:
      run: what is trained.
      step: its traced step.
      writers: of rows.
      steps: of the fit.
      more: what else stands in each row.
    Attributes:
      names: the terms.
      values: the `LogWindow` with which the loop goes on.
      sums: the same on the host.
      epoch: the mean over the epoch's examples.
      recorder: in whose thread windows become rows.
    """

    values: LogWindow
    sums: WindowSums

    def __init__(
        self, run: Run, step: TracedStep, writers: Writers, steps: int, more: dict | None = None
    ):
        self.more = more or {}
        self._run, self._step, self._writers = run, step, writers
        self._by_examples = step.program.means_by_examples
        self._result: Any = None  # the LoopResult of the last call
        self._seconds = 0.0  # spent on the window
        self.names = step.program.layout.names
        constraints = constraints_of(step.program.objective.terms)
        watch = ConstraintWatch(constraints, writers.history.rows, writers.console.warning)
        self.recorder = Recorder(writers, self.names, step.measured, steps, constraints, watch.look)
        self.epoch = EpochMean()
        self._watch = self._watched()
        self.reopen()

    @property
    def metrics(self):
        """The `StepMetrics` of the step."""
        return self._step.program.metrics

    def reopen(self) -> None:
        """Goes on with the window and the epoch's sums of the run's state."""
        self._set(self._run.state.window(self._run.programs))
        self.epoch.restart(self.sums, self._run.state.host.epoch_sums)

    def take(
        self, result: LoopResult, step: int, left: int, every: int, seconds: float, checkpoints
    ) -> int:
        """Takes what a call of the loop gave.

        Args:
          step: at which the call began.
          left: steps from there to the end of the window it began in.
          every: steps of a window.
          seconds: that the call took.
          checkpoints: of the run, or None.
        Returns:
          the step after the call.
        """
        before = self.sums.taken
        self.values, self._result = result.window, result
        self.sums = result.now.sums
        windows = result.codec.read_many(result.ended).sums
        self.epoch.add(windows, self.sums)
        ends = [step + left + every * number for number in range(len(result.ended))]
        after = ends[-1] + self.sums.taken if ends else step + self.sums.taken - before
        if ends:
            self._record(result, step, ends, after, seconds)
        else:
            self._seconds += seconds
        self._watch.look(windows, self.sums, after, checkpoints)
        return after

    def end(self, step: int) -> None:
        """Hands on the window, where it holds steps of this fit, before it is full."""
        if not self._result or not self.sums.taken:
            return
        result, metrics = self._result, {**self.more, **self._read_metrics()}
        self._step.program.metrics.reset()
        self.recorder.add(result.codec, result.packed[None], [step], [self._seconds], metrics)
        self._set(LogWindow.empty(len(self.names)))
        self.epoch.window_ended()
        self._seconds = 0.0

    def change_step(self, traced: TracedStep, step: int) -> None:
        """Goes on with a step that was traced anew; one of other terms ends the window.

        Args:
          step: the global step.
        Raises:
          ValueError: it has other terms while gradients of several steps are added up.
        """
        self._step = traced
        if traced.program.layout.names == self.names:
            return
        if traced.program.optimizers.accumulation > 1:
            raise TermwiseError(
                "A callback has set `trainable` so that the model has other regularizers, while "
                "gradients of several steps are added up. End the fit, and call fit() again."
            )
        self.end(step)
        self._take_up_terms()
        self._set(LogWindow.empty(len(self.names)))

    def restored(self, traced: TracedStep) -> None:
        """Goes on with the step and the window of a checkpoint."""
        self._step = traced
        if traced.program.layout.names != self.names:
            self._take_up_terms()
        self.reopen()

    def _take_up_terms(self) -> None:
        """Has rows, and what is watched in windows, be of the terms that the step has now."""
        self.names = self._step.program.layout.names
        self.recorder.take_up(self.names, self._step.measured)
        self._watch = self._watched()

    def _watched(self) -> WindowWatch:
        program, balanced = self._step.program, self._run.programs.balanced
        say = self._writers.console.warning
        return WindowWatch.of(program, balanced, self._writers.history, say)

    def _set(self, window: LogWindow) -> None:
        self.values, self.sums = window, window.read(self._by_examples)

    def _record(self, result: LoopResult, step: int, steps, after: int, seconds: float) -> None:
        """Hands on the windows that ended in a call, of steps after `step` up to `after`."""
        ends = _end_times(result, [number - step for number in steps], after - step, seconds)
        windows, durations = _stamped_windows(result, ends, seconds)
        durations[0] += self._seconds
        more = {**self.more, **self._read_metrics()}
        self.recorder.add(result.codec, windows, steps, durations, more)
        self._seconds = seconds - ends[-1]

    def _read_metrics(self) -> dict:
        """The metrics of the window that has ended, where the loop cannot read them."""
        program = self._step.program
        if program.reads_metrics:
            return {}
        results = {f"metrics/{name}": v for name, v in program.metrics.results().items()}
        program.metrics.reset()
        return results


def _end_times(result: LoopResult, done: list[int], count: int, seconds: float) -> np.ndarray:
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


def _stamped_windows(result: LoopResult, ends: np.ndarray, seconds: float) -> tuple:
    """The windows that ended, with the time of day, as a row tells it; and how long each took."""
    windows = result.ended.copy()
    windows[:, -1] = time.time() - seconds + ends
    return windows, np.diff(ends, prepend=0.0)


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

    def add(self, ended: StackedSums, window: WindowSums) -> None:
        """Takes the log windows that ended in a call, and the one that has not."""
        for sums in zip(ended.loss.tolist(), ended.examples.tolist(), strict=True):
            self._ended = _plus(self._ended, sums)  # one by one: alike however calls are cut
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
