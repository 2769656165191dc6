"""One call of fit: which steps run in one call of the loop, and what happens between calls."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import numpy as np

from trainer.debugging.bad_values import check_arrays, step_failure
from trainer.debugging.nonfinite import RESTORES, blamed, describe_nonfinite
from trainer.debugging.profile import Profile
from trainer.debugging.tensorflow_errors import OF_INPUT
from trainer.distributed import LOST, PeerLost, describe_devices, peer_lost
from trainer.fitting.callbacks import check_callbacks, epoch_logs, open_callbacks
from trainer.fitting.evaluate import evaluate
from trainer.fitting.plan import Plan
from trainer.fitting.preemption import Signals, stop
from trainer.ledger.console import Console
from trainer.ledger.describe import describe_run
from trainer.ledger.format import duration, ledger_table
from trainer.ledger.history import History
from trainer.ledger.recorder import Recorder
from trainer.ledger.rows import stamped
from trainer.ledger.writers import Writers
from trainer.loop.jit_choice import decide
from trainer.loop.window import Window
from trainer.persistence import WorkdirLock, check_keep

CALL_SECONDS = 2.0  # a call of the loop is cut to about this long
FIRST_CALL = 1  # steps of the first call, which measures; a slow step must not make it long


def run_fit(
    trainer, source, validation, plan: Plan, *, keep: dict, callbacks, verbose, profile: Profile
) -> History:
    """Restores what there is, trains what is left, and leaves the run finished or resumable."""
    check_callbacks(callbacks)
    check_keep(keep["keep_last"], keep["keep_best"])
    trainer.hosts.check_same("fit", vars(plan))
    if validation is not None:
        trainer.reading.step(validation)  # what cannot be read is found before a file is written
    check_arrays(trainer, source)
    notes = decide(trainer, source)
    workdir = trainer.workdir if trainer.hosts.chief else None  # the only host that writes
    with contextlib.ExitStack() as stack:
        trainer.hosts.from_chief(
            lambda: stack.enter_context(WorkdirLock(workdir.path)) and None if workdir else None
        )
        given = keep, callbacks, verbose, notes, profile
        return _run_fit(trainer, source, validation, plan, workdir, *given)


def _run_fit(trainer, source, validation, plan, workdir, keep, callbacks, verbose, notes, profile):
    began = time.time()
    state, hosts = trainer.state, trainer.hosts
    console = Console(quiet=not (verbose and hosts.chief))
    checkpoints = state.open_checkpoints(**keep, writes=hosts.chief, say=console.warning)
    resumed = state.restore(checkpoints)
    start = state.step_now
    # a run that was killed before its first checkpoint has left rows too
    rows = hosts.from_chief(lambda: workdir.cut_metrics(start) if workdir else [])
    history = History(rows if resumed else ())
    standing = "new" if not start else f"resumed from {start}" if resumed else f"from {start}"
    if trainer.init_from and not start:
        warm = state.initialize(trainer.init_from, trainer.init_loss_parameters)
        standing += f", weights of {warm.path}"
    console.line(
        f"run {trainer.name} | {describe_devices(trainer.strategy)} | {plan.steps} steps | "
        f"global batch {source.batch_size or 'varies'} | {standing}"
    )
    console.line(trainer.describe())
    if start >= plan.steps:
        console.line(f"step {start} is already reached: nothing to do")
        if checkpoints is not None:
            checkpoints.wait()
        if workdir is not None and workdir.seconds() is None:  # killed after its last checkpoint
            workdir.done(_final(history, began))
    else:
        config = trainer.config or describe_run(
            model=trainer.model,
            optimizers=trainer.loops.replica.optimizers.of_group,
            objective=trainer.objective,
            strategy=trainer.strategy,
            jit_compile=trainer.loops.jit_compile,
            seed=trainer.seed,
        )
        if workdir is not None:
            workdir.start(config, start if resumed else None, notes)
        writers = Writers(history, console, workdir, config, start if resumed else None)
        finished = False
        try:
            with Signals(noted=trainer.workdir is not None) as signals:
                given = plan, writers, checkpoints, signals, profile
                fit = Fit(trainer, source, validation, *given)
                try:
                    with contextlib.closing(fit.recorder):
                        fit.run(start, state.open_data(source, resumed), callbacks)
                finally:
                    fit.tell(profile.close())
            finished = True
        except LOST as error:
            if hosts.count == 1 or not peer_lost(error):
                raise
            kept = checkpoints.latest if checkpoints else None
            raise PeerLost(_lost(error, kept)) from error
        finally:
            try:
                if checkpoints is not None:
                    checkpoints.wait()
            finally:
                writers.close(finished)
        if workdir is not None:
            workdir.done(_final(history, began))
        hosts.any(False)  # no host leaves while another still needs it
    seconds = workdir.seconds() if workdir is not None else time.time() - began
    _summarize(console, history, checkpoints, workdir, seconds or time.time() - began)
    return history


def _final(history, began) -> dict:
    values = {**(history.last() or {}), "eval": history.last("eval")}
    return {**values, "seconds": time.time() - began}


def _lost(error, kept) -> str:
    cause = str(error).strip().splitlines()[0][:200]
    return (
        f"another host is gone ({type(error).__name__}: {cause}). Start all hosts again: the same "
        f"command continues. Kept: {kept or 'nothing, no checkpoint was written'}."
    )


def _summarize(console, history, checkpoints, workdir, seconds) -> None:
    first, last = history.first(), history.last()
    if not last:
        return
    console.line(ledger_table(history))
    saved = f" | {checkpoints.latest}" if checkpoints is not None else ""
    console.line(
        f"done {last['step']} steps in {duration(seconds)} | total {last['total']:.4g} "
        f"(first {first['total']:.4g}){saved}"
    )
    if workdir is not None:
        console.line(f"see it: tensorboard --logdir {workdir.events}")


class Fit:
    """The host's side of training: it sees numbers only where something is due."""

    def __init__(
        self, trainer, source, validation, plan, writers, checkpoints, signals, profile: Profile
    ):
        self.trainer = trainer
        self.hosts = trainer.hosts
        self.signals = signals
        self.stopped = 0  # by which signal
        self.source = source
        self.validation = validation
        self.plan = plan
        self.history = writers.history
        self.writers = writers
        self.checkpoints = checkpoints
        self.replica = trainer.loops.replica
        self.names = self.replica.layout.names
        self.recorder = Recorder(writers, self.names, trainer.loops.diagnostics, plan.steps)
        self.window = trainer.state.window()
        self.sums = self.window.read()
        self.seconds = 0.0  # spent on the window
        self.saved_at: int | None = None
        self.restores = 0  # since the last checkpoint
        self.limit = plan.steps_per_loop or FIRST_CALL
        # where the host reads the metrics, each log window is a call of the loop
        self.windows = not self.replica.train_metrics.metrics or self.replica.reads_metrics
        self.called: Any = None
        self.profile = profile

    def run(self, step: int, data_start: int, callbacks) -> None:
        """Trains from `step` to the plan's last step, or until a callback stops it."""
        plan = self.plan
        epochs = -(-plan.steps // plan.interval)
        params = {"epochs": epochs, "steps": plan.interval, "verbose": 0}
        events, seen = open_callbacks(callbacks, self.trainer, params)
        self.saved_at = step
        events.on_train_begin()
        logs: dict = {}
        if self.trainer.on_nonfinite == "restore" and not self.checkpoints.latest:
            self._save(step, always=True)  # the first there is to restore
        while step < plan.steps and not seen.stop_training and not self.stopped:
            epoch = step // plan.interval
            end = min((epoch + 1) * plan.interval, plan.steps)
            events.on_epoch_begin(epoch)
            while step < end and not seen.stop_training and not self.stopped:
                stop_at = self.profile.next_stop(step, plan.next_stop(step, self.windows))
                count = min(stop_at - step, self.limit)
                events.on_train_batch_begin(step)
                self.tell(self.profile.before(step))
                step = self._advance(step, count, data_start)
                self.tell(self.profile.after(step))
                if not self.trainer.loops.skipping and not self.sums.finite:
                    step, data_start = self._not_finite(step, data_start)
                    break
                if step == plan.steps and self.sums.taken:
                    self._log(step)
                if plan.checkpoint_every and step % plan.checkpoint_every == 0 and step < end:
                    self._save(step)
                events.on_train_batch_end(step - 1)
                seen.stop_training = self._agree(seen.stop_training)
            if step < end and not seen.stop_training:
                continue  # stopped, or restored to an earlier step
            evaluation = self._validate(step, events)
            self.recorder.settle()
            logs = epoch_logs(self.history.last(), evaluation)
            events.on_epoch_end(epoch, logs)
            if plan.checkpoint_every and step % plan.checkpoint_every == 0:
                self._save(step)
        if self.stopped and step < plan.steps:  # what continues is the same run: no events now
            self._save(step, ranked=False)  # the undisturbed run has no checkpoint here
            self.checkpoints.wait()
            stop(self.stopped, step, self.checkpoints.latest)
        if self.called and self.sums.taken:  # a callback stopped inside a window
            self._log(step)
        events.on_train_end(logs)
        self._save(step)
        if self.checkpoints is not None:
            self.checkpoints.wait()

    def _not_finite(self, step: int, data_start: int) -> tuple[int, int]:
        """What follows a step that is not finite: an error, or the last checkpoint.

        Returns:
          the restored step, and where the data now began: behind that step's batch.
        """
        trainer, checkpoints = self.trainer, self.checkpoints
        self.recorder.settle()
        last = self.history.last()
        if checkpoints is not None:
            checkpoints.wait()
        kept = checkpoints.latest if checkpoints else None
        first = step - self.sums.taken + 1
        total = last["total"] if last else None
        error = describe_nonfinite(self.names, self.sums, first, step, total, kept)
        if trainer.on_nonfinite == "restore" and kept and self.restores < RESTORES:
            self.restores += 1
            trainer.state.restore_newest(checkpoints)
            self.window = trainer.state.window()
            self.sums = self.window.read()
            began = trainer.state.leave_out(self.source, step - data_start)
            restored = self.saved_at = trainer.state.step_now
            if self.hosts.chief:
                self.writers.cut(restored)
                self.writers.console.warning(
                    f"{error} Restored to step {restored}; the data goes on behind that step's."
                )
            else:
                self.history.cut(restored)
            return restored, began
        raise blamed(error, trainer, self.source, step, data_start, checkpoints)

    def _advance(self, step: int, count: int, data_start: int) -> int:
        """Runs up to `count` steps, and hands on the log windows that ended; the step after."""
        every, before = self.plan.log_every, self.sums.taken
        left, position = every - step % every, step - data_start
        began = time.time()
        try:
            called = self.trainer.loops.train(
                self.source, self.window, position, count, left, every
            )
        except OF_INPUT as error:
            if self.hosts.count > 1 and peer_lost(error):
                raise
            steps = range(step, step + count)
            raise step_failure(self.trainer, self.source, position, steps, error) from error
        seconds = max(time.time() - began, 1e-6)
        if self.plan.steps_per_loop is None:
            self.limit = max(1, min(int(count / seconds * CALL_SECONDS), 16 * self.limit))
        self.window, self.called = called.window, called
        self.sums = called.now.sums
        ended = len(called.ended)
        if not ended:
            self.seconds += seconds
            return step + self.sums.taken - before
        times = called.ended[:, -1]  # when each window ended
        self.recorder.add(
            called.row,
            called.ended,
            [step + left + every * number for number in range(ended)],
            [self.seconds + times[0] - began, *np.diff(times)],
            self._read_metrics(),
        )
        self.seconds = began + seconds - times[-1]
        return step + left + every * (ended - 1) + self.sums.taken

    def _read_metrics(self) -> dict:
        """The metrics of the log window that has ended, where the loop cannot read them."""
        if self.replica.reads_metrics:
            return {}
        metrics = self.replica.train_metrics
        found = {f"metrics/{name}": value for name, value in metrics.results().items()}
        metrics.reset()
        return found

    def tell(self, line: str | None) -> None:
        """Prints a line where there is one, behind the rows so far."""
        if line is not None:
            self.recorder.settle()
            self.writers.console.line(line)

    def _agree(self, stopping: bool) -> bool:
        """What the hosts must do alike: stop, and take equally many steps in the next call."""
        numbers = self.signals.received, stopping, self.limit
        table = self.hosts.exchange(*(float(number) for number in numbers))
        self.stopped = int(table[:, 0].max())
        self.limit = int(table[:, 2].min())
        return bool(table[:, 1].any())

    def _log(self, step: int) -> None:
        """Hands on a log window that ends early, with the run."""
        called, more = self.called, self._read_metrics()
        self.replica.train_metrics.reset()
        self.recorder.add(called.row, called.packed[None], [step], [self.seconds], more)
        self.window = Window.empty(len(self.names))
        self.sums = self.window.read()
        self.seconds = 0.0

    def _validate(self, step: int, events) -> dict | None:
        if self.validation is None:
            return None
        events.on_test_begin()
        values = evaluate(self.trainer, self.validation)
        row = stamped(values, step=step, split="eval")
        self.recorder.settle()
        self.writers.write(row, self.plan.steps)
        events.on_test_end(values)
        return row

    def _save(self, step: int, always: bool = False, ranked: bool = True) -> None:
        if self.checkpoints is None or (self.saved_at == step and not always):
            return
        self.trainer.state.keep_window(self.window)
        self.recorder.settle()
        self.writers.flush()
        # ranked by what was evaluated at this step; without validation by the window that ends here
        last = self.history.last("train" if self.validation is None else "eval")
        now = last if ranked and last and last["step"] == step else None
        if self.hosts.chief:
            self.checkpoints.save(step, now, wait=False)
        self.saved_at = step
        self.restores = 0
