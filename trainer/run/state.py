"""Where a run stands: the step, the log window, and what its checkpoints hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from trainer.distributed.hosts import Hosts
from trainer.loop.programs import Programs
from trainer.loop.window import LogWindow
from trainer.model.variables import read, tensor_variable
from trainer.persistence.checkpoint import Checkpoints
from trainer.persistence.restore import WarmStart, initialize_from
from trainer.persistence.workdir import Workdir
from trainer.run.data_place import DataPlace
from trainer.run.held import check_moved, held_variables, plain_variables, shared_anew
from trainer.run.host_state import HostState
from trainer.run.settings import Settings
from trainer.run.train_state import TrainState
from trainer.run.training import settled, train_as, training_of


def make_counter(strategy) -> tf.Variable:
    """The global step of a run: int64 [] variable."""
    with strategy.scope():
        return tf.Variable(
            0,
            dtype=tf.int64,
            trainable=False,
            name="step",
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )


class RunState:
    """The state of a run that is not the model's: made once, saved and restored with it.

    Args:
      strategy, hosts, workdir: the run's.
      counter: of `make_counter`.
      owned: () -> variables of terms, and of networks that a subclass keeps.
      places: () -> (name, object) pairs: what holds variables of the step.
    Attributes:
      data: where it stands in its data.
      host: what the host goes on with.
      callbacks: of the fit that left `host` in this process; None where it was restored.
      evaluated: the step of the last row of an evaluation in this process.
      settings: what was set at the end of the last fit in this process.
    """

    def __init__(
        self,
        strategy,
        hosts: Hosts,
        workdir: Workdir | None,
        counter: tf.Variable,
        owned: Callable[[], list],
        places: Callable[[], list] = list,
    ):
        self._strategy, self._hosts, self._workdir = strategy, hosts, workdir
        self._owned, self._places = owned, places
        self._step = counter
        self.data = DataPlace()
        self.host = HostState()
        self.callbacks: list | None = None
        self.evaluated: int | None = None
        self.settings: Settings | None = None
        with tf.device("CPU:0"):
            self._packed = tf.Variable("", dtype=tf.string, trainable=False, name="host")
        self._window: tuple[list[tf.Variable], list[tf.Variable]] = [], []
        self._metrics: list[tf.Variable] = []  # [replicas, ...] each
        self._saved: Any = None  # the TrainState of the open checkpoints
        self._left: tuple[int, LogWindow] | None = None  # a window, and the step it stands at
        self._restored = False  # by a fit, which goes on from there
        self._read = ""  # "model" or "all", where it was read to be looked at
        self._initialized = False
        self._resumed_window = False

    @property
    def step(self) -> int:
        """The global step."""
        return int(read(self._step))

    @property
    def owns_variables(self) -> bool:
        """Whether terms, or a subclass, have variables of their own."""
        return bool(self._owned())

    @property
    def restored(self) -> bool:
        """Whether a fit has restored what there was, and goes on from there."""
        return self._restored

    def begin(self, programs: Programs) -> None:
        """Checks what the step moves, and gives each replica draws of its own; once.

        Raises:
          ValueError: a variable of which there is one, and which every replica would move.
        """
        if self._hosts.replicas > 1:
            check_moved(programs.written, self._places(), self._hosts.replicas)
        self.spread_seeds(programs)

    def spread_seeds(self, programs: Programs) -> None:
        """Gives each replica draws of its own; once, before the first step."""
        program = programs.program
        seeds = [*program.model.non_trainable_variables, *self._owned()]
        program.randomness.spread([*seeds, *program.randomness.variables])

    def window(self, programs: Programs) -> LogWindow:
        """The log window to go on with: a resumed run's, an interrupted fit's, or an empty one."""
        (step, window), self._left = self._left or (None, None), None
        if self._resumed_window:
            self._resumed_window = False
            return LogWindow.restored(*self._window)
        empty = LogWindow.empty(len(programs.program.layout.names))
        if window is not None and step == self.step and window.sums.shape == empty.sums.shape:
            return window
        programs.program.metrics.reset()
        return empty

    def leave_window(self, window: LogWindow) -> None:
        """A fit leaves a log window at the present step, with which the next one goes on."""
        self._left = self.step, window

    def keep_for_checkpoint(self, window: LogWindow, metrics) -> None:
        """Puts the window, the metrics' parts and what the host knows where it is saved."""
        self._packed.assign(self.host.packed())
        for variables, values in zip(self._window, window.saved(), strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        parts = [self._parts(v) for v in metrics.variables]
        values = [np.stack([np.asarray(part) for part in replicas]) for replicas in parts]
        for variable, value in zip(self._metrics, self._hosts.gather(values), strict=True):
            variable.assign(value)

    def _parts(self, variable) -> tuple:
        """This host's replicas' own parts of a metric's variable."""
        return self._strategy.experimental_local_results(tensor_variable(variable))

    def open_checkpoints(self, programs: Programs, keep_last, **settings) -> Checkpoints | None:
        """The checkpoints of the workdir; None where there is none.

        Args:
          programs: traced.
          keep_last, settings: of `Checkpoints`.
        """
        if self._workdir is None:
            return None
        self._saved = self._train_state(programs)
        parts, trains = self._saved.parts(), training_of(programs)
        return Checkpoints(self._workdir.checkpoints, parts, keep_last, trains=trains, **settings)

    def hold(self, programs: Programs, checkpoints: Checkpoints | None) -> None:
        """Has checkpoints saved of what the run is made of now, after it was traced anew."""
        self._saved = self._train_state(programs)
        if checkpoints is not None:
            checkpoints.hold(self._saved.parts(), training_of(programs))

    def trained_variables(self, programs: Programs) -> list:
        """The variables of a run that a callback may set, after the first trace."""
        self._saved = self._saved or self._train_state(programs)
        return self._saved.variables("model", "optimizers", "terms", "balancer", "held")

    def _train_state(self, programs: Programs) -> TrainState:
        program = programs.program
        metrics = program.metrics.variables
        empty = LogWindow.empty(len(program.layout.names)).saved()
        if [v.shape for v in self._window[0]] != [value.shape for value in empty[0]]:
            first, more = ([tf.Variable(v, trainable=False) for v in values] for values in empty)
            self._window = first, more
        if not self._metrics:
            for variable in metrics:
                zeros = tf.zeros([self._hosts.replicas, *variable.shape], variable.dtype)
                shape = tf.TensorShape([None, *variable.shape])  # a checkpoint of other replicas
                parts = tf.Variable(zeros, trainable=False, name="parts", shape=shape)
                self._metrics.append(parts)
        optimizers = program.optimizers
        state = TrainState(
            model=program.model.variables,
            optimizers=[v for updated in optimizers.updated for v in updated.optimizer.variables],
            terms=self._terms(program.trainables.parameters),
            random=program.randomness.variables,
            balancer=programs.balancing_variables,
            metrics=self._metrics,
            window=self._window[0],
            window_more=self._window[1],
            step=[self._step],
            data_start=[self.data.began],
            held={},
            host=[self._packed],
            phases=programs.phase_states.variables,
        )
        known = [*state.variables(), *metrics, *optimizers.mirrored_copies.values()]
        known += programs.phase_states.known
        held = held_variables(self._strategy, programs.variables, known, self._places())
        return replace(state, held=held)

    def _terms(self, parameters: dict) -> dict:
        """The loss parameters by name, for a warm start looks them up; then what terms own.

        A `tf.Variable` that is none of the loss parameters is among the held ones.
        """
        terms = dict(parameters)
        for variable in {id(v): v for v in self._owned()}.values():
            known = any(variable is parameter for parameter in terms.values())
            if isinstance(variable, keras.Variable) and not known:
                terms[f"{len(terms)}/{variable.path}"] = variable
        return terms

    def restore(self, programs: Programs, checkpoints: Checkpoints | None) -> bool:
        """Restores the newest checkpoint, once per Trainer; whether there was one."""
        if checkpoints is None or self._restored:
            return False
        self._restored = True
        script = programs.program.trainables.switches.now
        restored, trains = self._restore_newest(programs, checkpoints)
        if restored and trains is not None:
            programs.program.trainables.switches.turn(settled(trains, script))
            programs.follow_switches()
            self.hold(programs, checkpoints)
        return restored

    def restore_newest(self, programs: Programs, checkpoints: Checkpoints) -> bool:
        """Restores the newest checkpoint, on every host; whether there was one."""
        return self._restore_newest(programs, checkpoints)[0]

    def _restore_newest(self, programs: Programs, checkpoints) -> tuple[bool, dict | None]:
        """Whether a checkpoint was restored; and what trained when it was saved."""
        hosts = self._hosts
        self._packed.assign(b"")  # as a checkpoint of an older version leaves it
        trains = hosts.broadcast_json(checkpoints.newest_trains())
        if trains is not None and trains != training_of(programs):
            train_as(programs, trains)
            self.hold(programs, checkpoints)
        metrics = programs.program.metrics.variables

        def load() -> bool:
            if checkpoints.restore_latest() is None:
                return False
            for variable, parts in zip(metrics, self._metrics, strict=True):
                aggregation = tensor_variable(variable).aggregation
                parts.assign(shared_anew(read(parts), hosts.replicas, aggregation))
            return True

        # the chief is the only one that needs to see the files
        if not hosts.from_chief(load):
            return False, None
        self._broadcast(programs)
        first = hosts.index * (hosts.replicas // hosts.count)
        for variable, saved in zip(metrics, self._metrics, strict=True):
            for index, part in enumerate(self._parts(variable)):
                part.assign(saved[first + index])
        self.host = HostState.unpacked(bytes(self._packed.numpy()))
        self.callbacks = self.evaluated = None
        self._resumed_window, self._read = True, "all"
        return True, trains

    def initialize(self, programs: Programs, path, loss_parameters: bool) -> WarmStart:
        """Takes the model's weights, loss parameters and balance of another run's checkpoint."""
        self._initialized = True
        self._saved = self._saved or self._train_state(programs)
        balanced = [] if programs.balanced is None else programs.balanced.variables
        parts = {**self._saved.parts(), "balancer": balanced}
        warm = self._hosts.from_chief(
            lambda: list(initialize_from(path, parts, loss_parameters=loss_parameters))
        )
        self._broadcast(programs, "model", "terms", "balancer", "held")
        return WarmStart(*warm)

    def load_model(self, model, path) -> None:
        """Takes the model's weights of a checkpoint alone, once, where nothing was traced yet.

        Raises:
          ValueError: the model is not built.
        """
        if self._read:
            return
        if not model.built:
            raise TermwiseError(
                f"The model {model.name!r} is not built, so that no weights of {path} fit it. Call "
                "trainer.build(data) first."
            )
        parts = {"model": model.variables, "held": plain_variables(model)}
        self._hosts.from_chief(
            lambda: list(initialize_from(path, parts, loss_parameters=False)) and None
        )
        variables = [*parts["model"], *parts["held"].values()]
        if self._hosts.count > 1:
            values = self._hosts.broadcast([read(v) for v in variables])
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        self._read = "model"

    @property
    def fresh(self) -> bool:
        """Whether nothing was trained, restored or initialized yet."""
        return not (self.step or self._restored or self._initialized)

    def _broadcast(self, programs: Programs, *parts: str) -> None:
        """Gives every host what the chief has restored, and every replica its own draws."""
        variables = [v for v in self._saved.variables(*parts) if v is not self._packed]
        if self._hosts.count > 1:
            values = self._hosts.broadcast([read(v) for v in variables])
            for variable, value in zip(variables, values, strict=True):
                tensor_variable(variable).assign(value)
            self._packed.assign(self._hosts.broadcast_bytes(bytes(self._packed.numpy())))
        self.spread_seeds(programs)

    def leave_out(self, position: int) -> int:
        """The step at which the data began, when they go on at batch `position` from this one."""
        began = self.step - position
        self.data.began.assign(began)
        return began

    @property
    def restorable(self) -> bool:
        """Whether the workdir holds a run that this Trainer has not read yet."""
        workdir, known = self._workdir, self._restored or self._read == "all"
        waits = workdir is not None and not known and workdir.checkpoints.exists()
        return self._hosts.broadcast_json(waits)
