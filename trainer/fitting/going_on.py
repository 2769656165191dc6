"""How a fit goes on where an earlier one was interrupted, and what it notes for the next."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from trainer.fitting.callback_state import CallbackStates
from trainer.fitting.open_window import OpenWindow
from trainer.fitting.plan import Plan, Timing, failure_seconds
from trainer.ledger.writers import Writers
from trainer.model.variables import read, tensor_variable
from trainer.persistence.checkpoint import Checkpoints
from trainer.run.run import Run

NOTED = "checkpoints"  # in starts.jsonl: what `checkpoint_every="auto"` has chosen


class Epoch(NamedTuple):
    """An epoch of the callbacks: its number, the step at its end, whether it had begun before."""

    number: int
    end: int
    begun: bool


class GoingOn:
    """The events of a fit as parts of its run.

    An interrupted fit goes on in the midst of its epoch: what `on_train_begin` and
    `on_epoch_begin` change of the run then has been changed already, and is put back. What fails at
    the end of an epoch is done once more by the next fit.

    Args:
      run: what is trained.
      plan: the cadences.
      callbacks: all of the fit.
    """

    def __init__(self, run: Run, plan: Plan, callbacks: list):
        self._run, self._plan = run, plan
        self._states = CallbackStates(callbacks)
        self._again = not run.state.host.ended
        self._model: Any = None  # of `begin`

    def begin(self, events, model, say: Callable[[str], object]) -> None:
        """`on_train_begin`; then callbacks go on with what they knew.

        Args:
          events: of the callbacks.
          model: whose `stop_training` they set.
          say: called with a sentence about what cannot be gone on with.
        """
        state, host = self._run.state, self._run.state.host
        same_call = self._again and self._states.same(host.callbacks)
        with self._put_back() if same_call else self.undone_if_it_fails():
            events.on_train_begin()
        self._states.begin()
        if self._again or not host.stopping:  # behind one that a callback has ended, they begin
            told = self._states.go_on(host.callbacks, state.callbacks, same_objects=not self._again)
            for sentence in told:
                say(sentence)
        if same_call:
            model.stop_training = host.stopping
        self._model = model
        self.note(host.epoch_sums)

    def goes_on(self, step: int) -> bool:
        """Whether something is left to do at a step: to train, or the end of an epoch."""
        return step < self._plan.steps or self._pending(step)

    def _pending(self, step: int) -> bool:
        """Whether the end of the epoch that ends at a step was interrupted."""
        ends = step == self._plan.steps or step % self._plan.interval == 0
        return self._again and step > 0 and ends and self._run.state.host.epoch_ended != step

    def epoch(self, step: int) -> Epoch:
        """The epoch that is next at a step."""
        interval, pending = self._plan.interval, self._pending(step)
        begun = self._again and (pending or step % interval != 0)
        self._again = False
        number = (step - pending) // interval
        return Epoch(number, min((number + 1) * interval, self._plan.steps), begun)

    def begin_epoch(self, epoch: Epoch, events) -> None:
        """`on_epoch_begin`; that of an epoch which had begun changes nothing of the run."""
        with self._put_back() if epoch.begun else self.undone_if_it_fails():
            events.on_epoch_begin(epoch.number)

    def restored(self) -> None:
        """The run is back at a checkpoint of this fit."""
        self._states.go_on(self._run.state.host.callbacks)
        self._again = True

    def note(self, epoch_sums: tuple[float, float], *, ended: bool = False, **changes) -> None:
        """Notes how far the fit and its callbacks are.

        Args:
          epoch_sums, ended, changes: attributes of the `HostState`.
        """
        state = self._run.state
        state.host = replace(
            state.host,
            steps=self._plan.steps,
            ended=ended,
            stopping=bool(self._model.stop_training),
            epoch_sums=epoch_sums,
            callbacks=self._states.noted(),
            **changes,
        )
        state.callbacks = self._states.callbacks

    def interrupted(self, epoch_sums: tuple[float, float]) -> None:
        """Notes what it can where the fit is broken off."""
        if self._model is not None:
            with contextlib.suppress(Exception):  # the failure itself is told
                self.note(epoch_sums)

    @contextlib.contextmanager
    def undone_if_it_fails(self) -> Iterator[None]:
        """What events have changed of the run and of callbacks is put back where one fails."""
        values, noted = self._values(), self._states.noted()
        try:
            yield
        except BaseException:
            values.put_back()
            self._states.go_on(noted, self._states.callbacks, same_objects=True)
            raise

    @contextlib.contextmanager
    def _put_back(self) -> Iterator[None]:
        """What events change of the run and of callbacks within it is put back."""
        values, noted = self._values(), self._states.noted()
        try:
            yield
        finally:
            values.put_back()
            self._states.go_on(noted, self._states.callbacks, same_objects=True)

    def _values(self) -> _Values:
        return _Values(self._run.state.trained_variables(self._run.programs))


class Saving:
    """The checkpoints of a fit: when one is due, and what is put into it.

    Under `checkpoint_every="auto"` the chief tells when, and the hosts hear it at the end of each
    call of the loop. What is saved between two evaluations then never counts among the best, and
    where there are best ones each evaluation is saved: these do not depend on the clock.

    Args:
      run: what is trained.
      plan: the cadences.
      window: the log window.
      writers: of rows.
      checkpoints: of the workdir, or None.
      best_split: the rows by which a checkpoint is one of the best.
      note: () -> None, notes how far the fit and its callbacks are.
    Attributes:
      at: the step at which the fit began, or saved last.
      restores: since the last checkpoint.
    """

    def __init__(
        self,
        run: Run,
        plan: Plan,
        window: OpenWindow,
        writers: Writers,
        checkpoints: Checkpoints | None,
        best_split: str,
        note: Callable[[], None],
    ):
        self._run, self._plan, self._window = run, plan, window
        self._writers, self._checkpoints = writers, checkpoints
        self._best_split, self._note = best_split, note
        self.at: int | None = None
        self.restores = 0
        self._waited = 0.0  # for the checkpoint that is being written
        self._due = 2**62
        self._timing: Timing | None = None
        if plan.auto and checkpoints is not None:
            workdir = run.workdir if run.hosts.chief else None
            starts = [] if workdir is None else workdir.starts()
            noted = None if workdir is None else workdir.noted(NOTED)
            self._timing = Timing(noted, failure_seconds(starts))
            if self._timing.known:
                self._tell()

    def next_stop(self, step: int) -> int:
        """The step at which a checkpoint is due whose time is chosen, or a large number."""
        return max(self._due, step + 1)

    def took(self, steps: int, seconds: float) -> None:
        """A call of the loop took so long."""
        if self._timing is not None:
            self._timing.took(steps, seconds)

    def proposed(self, step: int) -> int:
        """When the next one is due, as this host sees it."""
        timing, checkpoints = self._timing, self._checkpoints
        if timing is None or checkpoints is None or not self._run.hosts.chief:
            return 2**52
        if (written := checkpoints.take_seconds()) is not None:
            timing.saved(self._waited + written)
            if timing.new:
                self._tell()
        return timing.due(step)

    def agreed(self, due: int) -> None:
        """When it is due, as the chief has said."""
        self._due = due if self._timing is not None else 2**62

    def save_if_due(self, step: int, *, evaluated: bool = False) -> None:
        """Saves where a checkpoint is due at a step.

        Args:
          evaluated: whether it is the end of an interval of validation.
        """
        if not self._plan.auto:
            if self._plan.saves_at(step):
                self.save(step)
        elif self._checkpoints is not None:
            best = evaluated and self._checkpoints.keeps_best
            if best or step >= self._due:
                self.save(step, ranked=evaluated)

    def save(self, step: int, always: bool = False, ranked: bool = True) -> None:
        """Saves a checkpoint of a step, once.

        Args:
          always: also where the fit began at this step.
          ranked: whether it counts among the best; by what was evaluated at this step, without
            validation by the window that ends here.
        """
        if self._checkpoints is None or (self.at == step and not always):
            return
        run, began = self._run, time.perf_counter()
        if self._timing is not None:
            self._timing.begin()
        self._note()
        run.state.keep_for_checkpoint(self._window.values, self._window.metrics)
        self._window.recorder.settle()
        self._writers.flush()
        last = self._writers.history.last(self._best_split)
        now = last if ranked and last and last["step"] == step else None
        if run.hosts.chief:
            self._checkpoints.save(step, now, wait=False)
        self.at, self.restores = step, 0
        self._waited = time.perf_counter() - began

    def _tell(self) -> None:
        """Notes and prints what was chosen."""
        assert self._timing is not None and self._run.workdir is not None
        note, sentence = self._timing.told()
        self._run.workdir.note({NOTED: note})
        self._window.recorder.settle()
        self._writers.console.line(sentence)


class _Values:
    """The values of variables; they share the variables' memory until these change."""

    def __init__(self, variables: list):
        self._values = [(v, tf.convert_to_tensor(v)) for v in map(tensor_variable, variables)]

    def put_back(self) -> None:
        """Gives the variables that have changed their values."""
        for variable, value in self._values:
            if not np.array_equal(read(variable), np.asarray(value)):
                variable.assign(value)
