"""How a fit goes on where an earlier one was interrupted, and what it notes for the next."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from trainer.fitting.callback_state import CallbackStates
from trainer.fitting.plan import Plan
from trainer.model.variables import read, tensor_variable
from trainer.run.run import Run


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


class _Values:
    """The values of variables; they share the variables' memory until these change."""

    def __init__(self, variables: list):
        self._values = [(v, tf.convert_to_tensor(v)) for v in map(tensor_variable, variables)]

    def put_back(self) -> None:
        """Gives the variables that have changed their values."""
        for variable, value in self._values:
            if not np.array_equal(read(variable), np.asarray(value)):
                variable.assign(value)
