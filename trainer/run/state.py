"""Where a run stands: the step, the log window, and what its checkpoints hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
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
from trainer.run.held import check_moved, held_variables, plain_variables, shared_anew


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


@dataclass(frozen=True)
class TrainState:
    """The variables on which a run's future depends: what a checkpoint holds, part by part.

    model, optimizers: theirs. terms: name -> loss parameters, and what terms and a subclass own.
    random: the state of draws without a seed. balancer: of the balancer and the diagnostics.
    metrics: each replica's parts, [replicas, ...] each. window: of the log window. step,
    data_start: the global step, and that at which the data began. held: what the traced step
    reads or writes beside them, by where it is held.
    """

    model: list
    optimizers: list
    terms: dict
    random: list
    balancer: list
    metrics: list
    window: list
    step: list
    data_start: list
    held: dict

    def parts(self) -> dict:
        """part -> its variables, a list or a dict by name."""
        return {part.name: getattr(self, part.name) for part in fields(self)}

    def variables(self, *parts: str) -> list:
        """The variables of some parts, of all by default."""
        chosen = [self.parts()[part] for part in parts] if parts else self.parts().values()
        return [v for part in chosen for v in (part.values() if isinstance(part, dict) else part)]


class RunState:
    """The state of a run that is not the model's: made once, saved and restored with it.

    Args:
      strategy, hosts, workdir: the run's.
      counter: of `make_counter`.
      owned: () -> variables of terms, and of networks that a subclass keeps.
      places: () -> (name, object) pairs: what holds variables of the step.
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
        self._data_start = tf.Variable(0, dtype=tf.int64, trainable=False, name="data_start")
        self._window: list[tf.Variable] = []
        self._metrics: list[tf.Variable] = []  # [replicas, ...] each
        self._saved: Any = None  # the TrainState of the open checkpoints
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
        """The log window to go on with: a resumed run's, or an empty one."""
        if self._resumed_window:
            self._resumed_window = False
            return LogWindow(*(tf.convert_to_tensor(variable) for variable in self._window))
        programs.program.metrics.reset()
        return LogWindow.empty(len(programs.program.layout.names))

    def keep_window(self, window: LogWindow, metrics) -> None:
        """Puts the window, and the metrics' parts, where the next checkpoint saves them."""
        for variable, value in zip(self._window, window, strict=True):
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
        path = self._workdir.checkpoints
        return Checkpoints(path, self._saved.parts(), keep_last, **settings)

    def _train_state(self, programs: Programs) -> TrainState:
        program = programs.program
        metrics = program.metrics.variables
        if not self._window:
            empty = LogWindow.empty(len(program.layout.names))
            self._window = [tf.Variable(value, trainable=False) for value in empty]
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
            window=self._window,
            step=[self._step],
            data_start=[self._data_start],
            held={},
        )
        known = [*state.variables(), *metrics, *optimizers.mirrored_copies.values()]
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
        return self.restore_newest(programs, checkpoints)

    def restore_newest(self, programs: Programs, checkpoints: Checkpoints) -> bool:
        """Restores the newest checkpoint, on every host; whether there was one."""
        hosts, metrics = self._hosts, programs.program.metrics.variables

        def load() -> bool:
            if checkpoints.restore_latest() is None:
                return False
            for variable, parts in zip(metrics, self._metrics, strict=True):
                aggregation = tensor_variable(variable).aggregation
                parts.assign(shared_anew(read(parts), hosts.replicas, aggregation))
            return True

        # the chief is the only one that needs to see the files
        if not hosts.from_chief(load):
            return False
        self._broadcast(programs)
        first = hosts.index * (hosts.replicas // hosts.count)
        for variable, saved in zip(metrics, self._metrics, strict=True):
            for index, part in enumerate(self._parts(variable)):
                part.assign(saved[first + index])
        self._resumed_window, self._read = True, "all"
        return True

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
        variables = self._saved.variables(*parts)
        if self._hosts.count > 1:
            values = self._hosts.broadcast([read(v) for v in variables])
            for variable, value in zip(variables, values, strict=True):
                tensor_variable(variable).assign(value)
        self.spread_seeds(programs)

    def data_start(self, resumed: bool) -> int:
        """The step at which this run's data began: now, unless the run was resumed.

        A pipeline is positioned by skipping, and opened once: a second iterator of the same
        shuffle would draw on. TensorFlow's own iterator checkpoints are not used: restored, a
        shuffle that is repeated may draw an epoch's order again (seen in 2.21).
        """
        if not resumed:
            self._data_start.assign(self.step)
        return int(self._data_start)

    def leave_out(self, position: int) -> int:
        """`data_start`, when the data goes on at batch `position` from the restored step."""
        began = self.step - position
        self._data_start.assign(began)
        return began

    @property
    def restorable(self) -> bool:
        """Whether the workdir holds a run that this Trainer has not read yet."""
        workdir, known = self._workdir, self._restored or self._read == "all"
        waits = workdir is not None and not known and workdir.checkpoints.exists()
        return self._hosts.broadcast_json(waits)
