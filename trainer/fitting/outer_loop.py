"""The outer loop: how many steps the next call of the inner loop takes, and what follows it.

on_train_begin
until the last step, or until a callback or a signal stops:
    on_epoch_begin                         an epoch is one validation interval
    until the interval's end:
        on_train_batch_begin
        a call of the inner loop           many steps; rows of the windows that ended in it
        not finite?                        an error, or back to the last checkpoint
        what helps validation, where due
        on_train_batch_end
        a checkpoint, where one is due
    on_test_begin, validation, on_test_end
    on_epoch_end
    a checkpoint, where one is due
on_train_end
the last checkpoint

An interrupted fit goes on in the midst of this: see `going_on.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from trainer.debugging.bad_values import told_by_cause
from trainer.debugging.blame import BadStep, blamed
from trainer.debugging.nonfinite import RESTORES, describe_nonfinite
from trainer.debugging.profile import Profile
from trainer.distributed.waiting import Waiting
from trainer.fitting.callbacks import epoch_logs, has_batch_events, lend_optimizer, open_callbacks
from trainer.fitting.course import Course
from trainer.fitting.going_on import Epoch, GoingOn, Saving
from trainer.fitting.helping import Helping
from trainer.fitting.open_window import OpenWindow
from trainer.fitting.phases import set_learning_rate
from trainer.fitting.plan import Plan
from trainer.fitting.preemption import Signals, stop
from trainer.fitting.validation import Evaluations
from trainer.ledger.writers import Writers
from trainer.loop.traced_step import TracedStep
from trainer.run.run import Run

CALL_SECONDS = 2.0  # a call of the loop is cut to about this long
FIRST_CALL = 1  # steps of the first call, which measures; a slow step must not make it long


class OuterLoop:
    """The host's side of training: it sees numbers only where something is due.

    Args:
      run: what is trained.
      traced: source -> the step, traced anew where `trainable` was set otherwise.
      source: the data, as the present phase draws them.
      validation: split -> data that are evaluated.
      course: where the run stands in its phases.
      best_split: the rows by which a checkpoint is one of the best.
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
        traced: Callable[[Any], TracedStep],
        source,
        validation: Mapping[str, Any],
        course: Course,
        best_split: str,
        plan: Plan,
        writers: Writers,
        checkpoints,
        signals: Signals,
        profile: Profile,
    ):
        self._run, self._traced, self._source = run, traced, source
        self._step = step = traced(source)
        self._course = course
        self._helping = Helping(run, next(iter(validation.values()), None))
        self._plan, self._profile, self._signals = plan, profile, signals
        self._writers, self._checkpoints = writers, checkpoints
        self._history = writers.history
        self._loop: Any = None  # an OpenLoop, see `open`
        self._data_start = 0  # the step at which the data began
        self._window = OpenWindow(run, step, writers, plan.steps, course.more)
        self.recorder, self._epoch = self._window.recorder, self._window.epoch
        self._evaluations = Evaluations(run, validation, writers, self.recorder, plan.steps)
        self._going: Any = None  # the GoingOn of `run`
        self._saving = Saving(
            run, plan, self._window, writers, checkpoints, best_split, self._note_for_checkpoint
        )
        self._waiting = Waiting(run.hosts.count, run.hosts.index)
        self._stopped = 0  # by which signal
        self._limit, self._grows = plan.steps_per_loop or FIRST_CALL, plan.steps_per_loop is None
        metrics = step.program.metrics.metrics
        # where the host reads the metrics, each log window is a call of the loop
        self._many_windows = not metrics or step.program.reads_metrics

    def open(self, data_start: int) -> None:
        """Opens the data, which began at a step; at the run's present step."""
        self._data_start = data_start
        self._loop = self._run.open(self._step, self._source, data_start, self._plan.single)

    def run(self, step: int, events, callbacks) -> None:
        """Trains from `step` to the plan's last step, or until a callback or a signal stops it.

        Args:
          step: the global step.
          events: the Trainer, as the first callback.
          callbacks: the user's.
        """
        plan, program = self._plan, self._step.program
        params = {"epochs": -(-plan.steps // plan.interval), "steps": plan.interval, "verbose": 0}
        watching = has_batch_events([events, *(callbacks or ())])
        if watching and plan.steps_per_loop is None:
            self._limit, self._grows = 1, False
            self._writers.console.line(
                f"calls of the loop are one step long, for the events of {', '.join(watching)}; "
                "steps_per_loop= makes them longer"
            )
        optimizer, metrics = program.optimizers.optimizer, program.metrics.metrics
        self._going = GoingOn(self._run, plan, [events, *(callbacks or ())])
        with open_callbacks(callbacks, events, program.model, optimizer, metrics, params) as opened:
            try:
                self._epochs(step, opened)
            except BaseException:
                self._going.interrupted(self._epoch.sums)
                raise

    def _epochs(self, step: int, events) -> None:
        model, going = self._step.program.model, self._going
        self._saving.at = step
        going.begin(events, model, self._writers.console.warning)
        if not self._course.begun:
            self._course.began = step
            self._begin_phase(step)
        self._follow_phases(step)
        logs: dict = {}
        if self._run.on_nonfinite == "restore" and not self._checkpoints.latest:
            self._saving.save(step, always=True)  # the first there is to restore
        while going.goes_on(step) and not model.stop_training and not self._stopped:
            epoch = going.epoch(step)
            going.begin_epoch(epoch, events)
            if not epoch.begun:
                self._epoch.begin()
            step = self._interval(step, epoch.end, events, model)
            if step < epoch.end and not model.stop_training:
                continue  # stopped, or restored to an earlier step
            logs = self._end_epoch(step, epoch, events)
            model.stop_training = self._agree(step, model.stop_training)
        self._finish(step, events, logs)

    def leave(self) -> None:
        """Leaves the data and the log window as they stand, for a further fit."""
        self._waiting.close()
        state, loop = self._run.state, self._loop
        if loop is not None and loop.seen and self._window.sums.finite:
            state.leave_window(self._window.values)
        if loop is not None and loop.in_place:
            state.data.leave(self._step, loop, state.step - self._data_start)

    def _interval(self, step: int, end: int, events, model) -> int:
        """Trains up to the step `end`, or until something stops it; the step after."""
        plan = self._plan
        while step < end and not model.stop_training and not self._stopped:
            many = self._many_windows and not self._course.by_rows
            due = min(plan.next_stop(step, many), self._course.next_stop(step))
            due = min(due, self._saving.next_stop(step))
            due = self._profile.next_stop(step, self._helping.next_stop(self._step, step, due))
            count = min(due - step, self._limit)
            events.on_train_batch_begin(step)
            self._follow_switches(step)
            self.tell(self._profile.before(step))
            step = self._advance(step, count)
            self.tell(self._profile.after(step))
            if not self._run.skips and not self._window.sums.finite:
                return self._not_finite(step)
            self._helping.measure(self._step, self._source, step, self._data_start, self._loop)
            if step == plan.steps:
                self._window.end(step)
            self._follow_phases(step)
            events.on_train_batch_end(step - 1, self._epoch.logs())
            if step < end:
                self._saving.save_if_due(step)
            model.stop_training = self._agree(step, model.stop_training)
        return step

    def _follow_switches(self, step: int) -> None:
        """Takes a step that was traced anew where a callback has set `trainable` otherwise."""
        if self._step.program.trainables.switches.changed:
            self._take_step(step)

    def _follow_phases(self, step: int) -> None:
        """Begins the next phase where the present one ends at a step."""
        course, history = self._course, self._history
        if course.by_rows:
            self.recorder.settle()
        if not course.over(step, history):
            return
        self._window.end(step)
        course.advance(step, history)
        before = self._source
        self._source = before.rerated(course.rates, step - self._data_start)
        self._begin_phase(step)
        self._window.more = course.more
        self._take_step(step, drawn_otherwise=self._source is not before)

    def _begin_phase(self, step: int) -> None:
        state, phase = self._run.state, self._course.now
        state.host = replace(self._course.noted(state.host), rates=self._source.noted_rates)
        if phase is not None:
            set_learning_rate(phase, self._run.program.optimizers.of_group)
            self._run.programs.phase_states.forget(phase.name)
            self.tell(f"phase {phase.name} from step {step}: {phase}")

    def _take_step(self, step: int, drawn_otherwise: bool = False) -> None:
        """Takes a step that was traced anew, of data that stay open unless drawn otherwise."""
        run, before, self._step = self._run, self._step, self._traced(self._source)
        lend_optimizer(self._step.program.model, self._step.program.optimizers.optimizer)
        self._window.change_step(self._step, step)
        if drawn_otherwise or before.memory is not self._step.memory:
            self.open(self._data_start)
        else:
            self._loop = run.continued(self._loop, self._step, self._source, self._plan.single)
        run.state.hold(run.programs, self._checkpoints)

    def _end_epoch(self, step: int, epoch: Epoch, events) -> dict:
        """Validation, and the callbacks' logs of an epoch."""
        with self._going.undone_if_it_fails():
            evaluation = self._evaluations.at(step, events, self._course.more)
            self.recorder.settle()
            logs = epoch_logs(self._history.last(), evaluation, self._epoch.mean())
            self._history.note_epoch(epoch.number, step, logs)
            events.on_epoch_end(epoch.number, logs)
            self._going.note(self._epoch.sums, epoch_ended=step)
        if step < self._plan.steps and not self._step.program.model.stop_training:
            self._saving.save_if_due(step, evaluated=True)  # the end is saved behind on_train_end
        return logs

    def _finish(self, step: int, events, logs: dict) -> None:
        """The end of a fit: the last row and checkpoint; SystemExit where a signal broke it off."""
        left = step < self._plan.steps and not self._step.program.model.stop_training
        if self._stopped and left:
            # what continues is the same run: no events now, and no checkpoint that the
            # undisturbed run has not
            self._saving.save(step, ranked=False)
            self._checkpoints.wait()
            stop(self._stopped, step, self._checkpoints.latest, self._run.hosts.chief)
        self._window.end(step)  # inside of which a callback may have stopped
        with self._going.undone_if_it_fails():
            events.on_train_end(logs)
        self._going.note(self._epoch.sums, ended=True)
        self._saving.save(step, always=True)
        if self._checkpoints is not None:
            self._checkpoints.wait()

    def _advance(self, step: int, count: int) -> int:
        """Runs up to `count` steps, and hands on the log windows that ended; the step after."""
        every, began = self._plan.log_every, time.perf_counter()
        left = every - step % every
        run, position = self._run, step - self._data_start
        steps = f"steps {step + 1} to {step + count}"
        told = told_by_cause(run, self._source, position, range(step, step + count))
        with told, self._waiting.call(steps):
            result = self._loop.run(self._window.values, position, count, left, every)
        seconds = max(time.perf_counter() - began, 1e-6)
        self._saving.took(count, seconds)
        if self._grows:
            longest = 16 * self._limit
            self._limit = max(1, min(int(count / seconds * CALL_SECONDS), longest))
        return self._window.take(result, step, left, every, seconds, self._checkpoints)

    def _not_finite(self, step: int) -> int:
        """What follows a step that is not finite: an error, or the last checkpoint.

        Returns:
          the restored step; the data goes on behind that step's batch.
        """
        run, checkpoints = self._run, self._checkpoints
        self.recorder.settle()
        if checkpoints is not None:
            checkpoints.wait()
        newest = checkpoints.latest if checkpoints else None
        sums = self._window.sums
        first = step - sums.taken + 1
        total = self._history.last_total()
        error = describe_nonfinite(self._window.names, sums, first, step, total, newest)
        if run.on_nonfinite == "restore" and newest and self._saving.restores < RESTORES:
            return self._restore(step, error)
        bad = BadStep(step, self._data_start, self._loop.last_batch, checkpoints)
        raise blamed(error, run, self._step, self._source, bad)

    def _restore(self, step: int, error) -> int:
        """Goes back to the newest checkpoint, and on with the data behind a step's batch."""
        run = self._run
        self._saving.restores += 1
        run.state.restore_newest(run.programs, self._checkpoints)
        self._course.stand_in(run.state.host.phase, run.state.host.phase_began)
        self._source = self._source.drawn_as(run.state.host.rates)
        self._step = self._traced(self._source)
        self._window.more = self._course.more
        self._window.restored(self._step)
        self._going.restored()
        self.open(run.state.leave_out(step - self._data_start))
        restored = self._saving.at = run.state.step
        if run.hosts.chief:
            self._writers.cut(restored, step)
            self._writers.console.warning(
                f"{error} Restored to step {restored}; the data goes on behind that step's."
            )
        else:
            self._history.cut(restored)
        return restored

    def tell(self, line: str | None) -> None:
        """Prints a line where there is one, behind the rows so far."""
        if line is not None:
            self.recorder.settle()
            self._writers.console.line(line)

    def _agree(self, step: int, stopping: bool) -> bool:
        """What the hosts must do alike: stop, take equally many steps in a call, save."""
        due = self._saving.proposed(step)
        numbers = self._signals.received, stopping, self._limit, due
        with self._waiting.call(f"an exchange behind step {step}"):
            table = self._run.hosts.exchange(*(float(number) for number in numbers))
        self._stopped = int(table[:, 0].max())
        self._limit = int(table[:, 2].min())
        self._saving.agreed(int(table[0, 3]))
        return bool(table[:, 1].any())

    def _note_for_checkpoint(self) -> None:
        self._going.note(self._epoch.sums, ended=self._run.state.host.ended)
