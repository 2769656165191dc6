"""The outer loop: how many steps the next call of the inner loop takes, and what follows it.

on_train_begin
until the last step, or until a callback or a signal stops:
    on_epoch_begin                         an epoch is one validation interval
    until the interval's end:
        on_train_batch_begin
        a call of the inner loop           many steps; rows of the windows that ended in it
        not finite?                        an error, or back to the last checkpoint
        a checkpoint, where one is due
        on_train_batch_end
    on_test_begin, validation, on_test_end
    on_epoch_end
    a checkpoint, where one is due
on_train_end
the last checkpoint
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from trainer.debugging.bad_values import evaluate_told, step_failure
from trainer.debugging.blame import BadStep, blamed
from trainer.debugging.nonfinite import RESTORES, describe_nonfinite
from trainer.debugging.profile import Profile
from trainer.distributed.hosts import peer_lost
from trainer.errors import OF_INPUT
from trainer.fitting.callbacks import epoch_logs, has_batch_events, open_callbacks
from trainer.fitting.epoch_mean import EpochMean
from trainer.fitting.plan import Plan
from trainer.fitting.preemption import Signals, stop
from trainer.fitting.window_times import end_times
from trainer.ledger.recorder import Recorder
from trainer.ledger.rows import stamped
from trainer.ledger.writers import Writers
from trainer.loop.programs import TracedStep
from trainer.loop.train_loop import LoopResult
from trainer.loop.window import LogWindow
from trainer.run.events import ReadingEvents
from trainer.run.run import Run

CALL_SECONDS = 2.0  # a call of the loop is cut to about this long
FIRST_CALL = 1  # steps of the first call, which measures; a slow step must not make it long


class OuterLoop:
    """The host's side of training: it sees numbers only where something is due.

    Args:
      run: what is trained.
      step: its traced step.
      source, validation: the data; validation may be None.
      plan: the cadences.
      writers: of rows.
      checkpoints: of the workdir, or None.
      signals: that ask to stop.
      profile: of some steps.
    """

    def __init__(
        self,
        run: Run,
        *,
        step: TracedStep,
        source,
        validation,
        plan: Plan,
        writers: Writers,
        checkpoints,
        signals: Signals,
        profile: Profile,
    ):
        self._run, self._step = run, step
        self._source, self._validation = source, validation
        self._plan, self._profile, self._signals = plan, profile, signals
        self._writers, self._checkpoints = writers, checkpoints
        self._history = writers.history
        self._names = step.program.layout.names
        self.recorder = Recorder(writers, self._names, step.diagnostics, plan.steps)
        self._loop: Any = None  # an OpenLoop, see `open`
        self._data_start = 0  # the step at which the data began
        self._window = run.state.window(run.programs)
        self._sums = self._window.read()
        self._epoch = EpochMean()
        self._epoch.restart(self._sums)
        self._result: Any = None  # the LoopResult of the last call
        self._seconds = 0.0  # spent on the window
        self._stopped = 0  # by which signal
        self._saved_at: int | None = None
        self._restores = 0  # since the last checkpoint
        self._limit = plan.steps_per_loop or FIRST_CALL
        self._grows = plan.steps_per_loop is None  # whether calls become longer
        metrics = step.program.metrics.metrics
        # where the host reads the metrics, each log window is a call of the loop
        self._many_windows = not metrics or step.program.reads_metrics

    def open(self, data_start: int) -> None:
        """Opens the data, which began at a step; at the run's present step."""
        self._data_start = data_start
        self._loop = self._run.open(self._step, self._source, data_start)

    def run(self, step: int, events, callbacks) -> None:
        """Trains from `step` to the plan's last step, or until a callback or a signal stops it.

        Args:
          step: the global step.
          events: the Trainer, as the first callback.
          callbacks: the user's.
        """
        plan, program = self._plan, self._step.program
        epochs = -(-plan.steps // plan.interval)
        params = {"epochs": epochs, "steps": plan.interval, "verbose": 0}
        watching = has_batch_events([events, *(callbacks or ())])
        if watching and plan.steps_per_loop is None:
            self._limit, self._grows = 1, False
            self._writers.console.line(
                f"calls of the loop are one step long, for the events of {', '.join(watching)}; "
                "steps_per_loop= makes them longer"
            )
        optimizer, metrics = program.optimizers.optimizer, program.metrics.metrics
        with open_callbacks(callbacks, events, program.model, optimizer, metrics, params) as opened:
            self._epochs(step, opened)

    def _epochs(self, step: int, events) -> None:
        plan, model = self._plan, self._step.program.model
        self._saved_at = step
        events.on_train_begin()
        logs: dict = {}
        if self._run.on_nonfinite == "restore" and not self._checkpoints.latest:
            self._save(step, always=True)  # the first there is to restore
        while step < plan.steps and not model.stop_training and not self._stopped:
            epoch = step // plan.interval
            end = min((epoch + 1) * plan.interval, plan.steps)
            events.on_epoch_begin(epoch)
            self._epoch.begin()
            step = self._interval(step, end, events, model)
            if step < end and not model.stop_training:
                continue  # stopped, or restored to an earlier step
            logs = self._end_epoch(step, epoch, events)
        self._finish(step, events, logs)

    def _interval(self, step: int, end: int, events, model) -> int:
        """Trains up to the step `end`, or until something stops it; the step after."""
        plan = self._plan
        while step < end and not model.stop_training and not self._stopped:
            due = self._profile.next_stop(step, plan.next_stop(step, self._many_windows))
            count = min(due - step, self._limit)
            events.on_train_batch_begin(step)
            self.tell(self._profile.before(step))
            step = self._advance(step, count)
            self.tell(self._profile.after(step))
            if not self._run.skips and not self._sums.finite:
                return self._not_finite(step)
            if step == plan.steps and self._sums.taken:
                self._end_window(step)
            if step < end:
                self._save_if_due(step)
            events.on_train_batch_end(step - 1, self._batch_logs())
            model.stop_training = self._agree(model.stop_training)
        return step

    def _batch_logs(self) -> dict:
        """The logs of a batch: the mean total of the epoch so far, as Keras reports it."""
        loss = self._epoch.mean()
        return {} if loss is None else {"loss": loss}

    def _end_epoch(self, step: int, epoch: int, events) -> dict:
        """Validation, and the callbacks' logs of an epoch."""
        evaluation = self._validate(step, events)
        self.recorder.settle()
        logs = epoch_logs(self._history.last(), evaluation, self._epoch.mean())
        events.on_epoch_end(epoch, logs)
        self._save_if_due(step)
        return logs

    def _finish(self, step: int, events, logs: dict) -> None:
        """The end of a fit: the last row and checkpoint; SystemExit where a signal has asked."""
        if self._stopped and step < self._plan.steps:
            # what continues is the same run: no events now, and no checkpoint that the
            # undisturbed run has not
            self._save(step, ranked=False)
            self._checkpoints.wait()
            stop(self._stopped, step, self._checkpoints.latest)
        if self._result and self._sums.taken:  # a callback stopped inside a window
            self._end_window(step)
        events.on_train_end(logs)
        self._save(step)
        if self._checkpoints is not None:
            self._checkpoints.wait()

    def _advance(self, step: int, count: int) -> int:
        """Runs up to `count` steps, and hands on the log windows that ended; the step after."""
        every, before = self._plan.log_every, self._sums.taken
        left = every - step % every
        began = time.perf_counter()
        result = self._call(step, count, left, every)
        seconds = max(time.perf_counter() - began, 1e-6)
        if self._grows:
            longest = 16 * self._limit
            self._limit = max(1, min(int(count / seconds * CALL_SECONDS), longest))
        self._window, self._result = result.window, result
        self._sums = result.now.sums
        self._epoch.add([result.codec.read(row).sums for row in result.ended], self._sums)
        ended = len(result.ended)
        if not ended:
            self._seconds += seconds
            return step + self._sums.taken - before
        steps = [step + left + every * number for number in range(ended)]
        after = steps[-1] + self._sums.taken
        ends = end_times(result, [number - step for number in steps], after - step, seconds)
        windows = result.ended.copy()
        windows[:, -1] = time.time() - seconds + ends  # the time, as a row tells it
        durations = np.diff(ends, prepend=0.0)
        durations[0] += self._seconds
        self.recorder.add(result.codec, windows, steps, durations, self._read_metrics())
        self._seconds = seconds - ends[-1]
        return after

    def _call(self, step: int, count: int, left: int, every: int) -> LoopResult:
        """One call of the inner loop; what TensorFlow raises is told by its cause."""
        position = step - self._data_start
        try:
            return self._loop.run(self._window, position, count, left, every)
        except OF_INPUT as error:
            if self._run.hosts.count > 1 and peer_lost(error):
                raise
            steps = range(step, step + count)
            raise step_failure(self._run, self._source, position, steps, error) from error

    def _not_finite(self, step: int) -> int:
        """What follows a step that is not finite: an error, or the last checkpoint.

        Returns:
          the restored step; the data goes on behind that step's batch.
        """
        run, checkpoints = self._run, self._checkpoints
        self.recorder.settle()
        last = self._history.last()
        if checkpoints is not None:
            checkpoints.wait()
        newest = checkpoints.latest if checkpoints else None
        first = step - self._sums.taken + 1
        total = last["total"] if last else None
        error = describe_nonfinite(self._names, self._sums, first, step, total, newest)
        if run.on_nonfinite == "restore" and newest and self._restores < RESTORES:
            return self._restore(step, error)
        bad = BadStep(step, self._data_start, self._loop.last_batch, checkpoints)
        raise blamed(error, run, self._step, self._source, bad)

    def _restore(self, step: int, error) -> int:
        """Goes back to the newest checkpoint, and on with the data behind a step's batch."""
        run = self._run
        self._restores += 1
        run.state.restore_newest(run.programs, self._checkpoints)
        self._window = run.state.window(run.programs)
        self._sums = self._window.read()
        self._epoch.restart(self._sums)
        self.open(run.state.leave_out(step - self._data_start))
        restored = self._saved_at = run.state.step
        if run.hosts.chief:
            self._writers.cut(restored)
            self._writers.console.warning(
                f"{error} Restored to step {restored}; the data goes on behind that step's."
            )
        else:
            self._history.cut(restored)
        return restored

    def _read_metrics(self) -> dict:
        """The metrics of the log window that has ended, where the loop cannot read them."""
        program = self._step.program
        if program.reads_metrics:
            return {}
        results = {f"metrics/{name}": v for name, v in program.metrics.results().items()}
        program.metrics.reset()
        return results

    def tell(self, line: str | None) -> None:
        """Prints a line where there is one, behind the rows so far."""
        if line is not None:
            self.recorder.settle()
            self._writers.console.line(line)

    def _agree(self, stopping: bool) -> bool:
        """What the hosts must do alike: stop, and take equally many steps in the next call."""
        numbers = self._signals.received, stopping, self._limit
        table = self._run.hosts.exchange(*(float(number) for number in numbers))
        self._stopped = int(table[:, 0].max())
        self._limit = int(table[:, 2].min())
        return bool(table[:, 1].any())

    def _end_window(self, step: int) -> None:
        """Hands on a log window that ends early, with the run."""
        result, metrics = self._result, self._read_metrics()
        self._step.program.metrics.reset()
        self.recorder.add(result.codec, result.packed[None], [step], [self._seconds], metrics)
        self._window = LogWindow.empty(len(self._names))
        self._sums = self._window.read()
        self._epoch.window_ended()
        self._seconds = 0.0

    def _validate(self, step: int, events) -> dict | None:
        if self._validation is None:
            return None
        reading = ReadingEvents.of("test", events.callbacks, events)
        values = evaluate_told(self._run, self._validation, None, reading)
        row = stamped(values, step=step, split="eval")
        self.recorder.settle()
        self._writers.write(row, self._plan.steps)
        return row

    def _save_if_due(self, step: int) -> None:
        every = self._plan.checkpoint_every
        if every and step % every == 0:
            self._save(step)

    def _save(self, step: int, always: bool = False, ranked: bool = True) -> None:
        """Saves a checkpoint of a step, once.

        Args:
          always: also where the fit began at this step.
          ranked: whether it counts among the best; by what was evaluated at this step, without
            validation by the window that ends here.
        """
        if self._checkpoints is None or (self._saved_at == step and not always):
            return
        run = self._run
        run.state.keep_window(self._window, self._step.program.metrics)
        self.recorder.settle()
        self._writers.flush()
        last = self._history.last("train" if self._validation is None else "eval")
        now = last if ranked and last and last["step"] == step else None
        if run.hosts.chief:
            self._checkpoints.save(step, now, wait=False)
        self._saved_at = step
        self._restores = 0
