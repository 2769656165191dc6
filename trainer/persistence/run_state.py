"""Where a run stands: the step, the log window, and what its checkpoints hold."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from trainer.loop.window import Window
from trainer.model.variables import read, tensor_variable
from trainer.persistence.checkpoint import Checkpoints
from trainer.persistence.restore import WarmStart, initialize_from


class State:
    """The state of a run that is not the model's: made once, saved and restored with it.

    Attributes:
      step: int64 variable, the global step.
    """

    def __init__(self, trainer):
        self.trainer = trainer
        with trainer.strategy.scope():
            self.step = tf.Variable(
                0,
                dtype=tf.int64,
                trainable=False,
                name="step",
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
        self._data_start = tf.Variable(0, dtype=tf.int64, trainable=False, name="data_start")
        self._window: list[tf.Variable] = []
        self._metrics: list[tf.Variable] = []  # [replicas, ...] each
        self._saved: dict = {}
        self._restored = False
        self._resumed_window = False

    @property
    def step_now(self) -> int:
        return int(read(self.step))

    @property
    def terms(self) -> int:
        return len(self.trainer.loops.replica.layout.names)

    def spread_seeds(self) -> None:
        """Gives each replica draws of its own; once, before the first step."""
        replica = self.trainer.loops.replica
        held = [*self.trainer.model.non_trainable_variables, *self._held()]
        replica.randomness.spread([*held, *replica.randomness.variables])

    def window(self) -> Window:
        """The log window to go on with: a resumed run's, or an empty one."""
        if self._resumed_window:
            self._resumed_window = False
            return Window(*(tf.convert_to_tensor(variable) for variable in self._window))
        self.trainer.loops.replica.train_metrics.reset()
        return Window.empty(self.terms)

    def keep_window(self, window: Window) -> None:
        """Puts the window where the next checkpoint saves it."""
        for variable, value in zip(self._window, window, strict=True):
            variable.assign(value)
        parts = [self._parts(v) for v in self.trainer.loops.replica.train_metrics.variables]
        values = [np.stack([np.asarray(part) for part in own]) for own in parts]
        for variable, value in zip(self._metrics, self.trainer.hosts.gather(values), strict=True):
            variable.assign(value)

    def _parts(self, variable) -> tuple:
        """This host's replicas' own parts of a metric's variable."""
        return self.trainer.strategy.experimental_local_results(tensor_variable(variable))

    def _held(self) -> list:
        """The variables of terms, and those of networks that a subclass keeps."""
        trainer = self.trainer
        held = [variable for term in trainer.terms for variable in term.variables]
        for value in vars(trainer).values():
            if isinstance(value, keras.Layer) and value is not trainer.model:
                held += value.variables
            elif isinstance(value, keras.Variable):
                held.append(value)
        return held

    def open_checkpoints(self, keep_last, **settings) -> Checkpoints | None:
        """The checkpoints of the workdir; None where there is none.

        Args:
          keep_last, settings: of `Checkpoints`.
        """
        trainer = self.trainer
        if trainer.workdir is None:
            return None
        replica = trainer.loops.replica
        if not self._window:
            empty = Window.empty(self.terms)
            self._window = [tf.Variable(value, trainable=False) for value in empty]
            for variable in replica.train_metrics.variables:
                parts = [trainer.hosts.replicas, *variable.shape]
                self._metrics.append(
                    tf.Variable(tf.zeros(parts, variable.dtype), trainable=False, name="parts")
                )
        terms = dict(replica.trained.parameters)  # by name: a warm start looks them up
        for variable in {id(v): v for v in self._held()}.values():
            if not any(variable is one for one in terms.values()):
                terms[f"{len(terms)}/{variable.path}"] = variable
        optimizers = [updated.optimizer for updated in replica.optimizers.updated]
        state: dict = {
            "model": trainer.model.variables,
            "optimizers": [v for optimizer in optimizers for v in optimizer.variables],
            "terms": terms,
            "random": replica.randomness.variables,
            "balancer": trainer.loops.balancer_variables,
            "metrics": self._metrics,
            "window": self._window,
            "step": [self.step],
            "data_start": [self._data_start],
        }
        known = [v for held in state.values() for v in _values(held)]
        known += [*replica.train_metrics.variables, *replica.optimizers.mirrored_copies.values()]
        state["others"] = trainer.loops.others(known)
        self._saved = state
        return Checkpoints(trainer.workdir.checkpoints, state, keep_last, **settings)

    def restore(self, checkpoints: Checkpoints | None) -> bool:
        """Restores the newest checkpoint, once per Trainer; whether there was one."""
        if checkpoints is None or self._restored:
            return False
        self._restored = True
        return self.restore_newest(checkpoints)

    def restore_newest(self, checkpoints: Checkpoints) -> bool:
        """Restores the newest checkpoint, on every host; whether there was one."""
        hosts = self.trainer.hosts
        # the chief is the only one that needs to see the files
        if not hosts.from_chief(lambda: checkpoints.restore_latest() is not None):
            return False
        self._broadcast(list(self._saved))
        first = hosts.index * (hosts.replicas // hosts.count)
        metrics = self.trainer.loops.replica.train_metrics.variables
        for variable, saved in zip(metrics, self._metrics, strict=True):
            for index, part in enumerate(self._parts(variable)):
                part.assign(saved[first + index])
        self._resumed_window = True
        return True

    def initialize(self, path, loss_parameters: bool) -> WarmStart:
        """Takes the model's weights, and the loss parameters, of another run's checkpoint."""
        state, hosts = self._saved, self.trainer.hosts
        warm = hosts.from_chief(
            lambda: list(initialize_from(path, state, loss_parameters=loss_parameters))
        )
        self._broadcast(["model", "terms"])
        return WarmStart(*warm)

    def _broadcast(self, parts) -> None:
        """Gives every host what the chief has restored, and every replica its own draws."""
        hosts = self.trainer.hosts
        held = [v for part in parts for v in _values(self._saved[part])]
        if hosts.count > 1:
            values = hosts.broadcast([read(v) for v in held])
            for variable, value in zip(held, values, strict=True):
                tensor_variable(variable).assign(value)
        self.spread_seeds()

    def open_data(self, source, resumed: bool) -> int:
        """Starts the data of a fit where the run stands.

        A pipeline is positioned by skipping, and opened once: a second iterator of the same
        shuffle would draw on. TensorFlow's own iterator checkpoints are not used: restored, a
        shuffle that is repeated may draw an epoch's order again (seen in 2.21).

        Returns:
          The step at which this run's data began: now, unless the run was resumed.
        """
        if not resumed:
            self._data_start.assign(self.step_now)
        began = int(self._data_start)
        self.trainer.loops.open(source, self.step_now - began, self.step_now)
        return began

    def leave_out(self, source, position: int) -> int:
        """Goes on, from the restored step, with the data that begins at a batch; as `open_data`."""
        began = self.step_now - position
        self._data_start.assign(began)
        self.trainer.loops.open(source, position, self.step_now)
        return began

    @property
    def restorable(self) -> bool:
        """Whether the workdir holds a run that this Trainer has not restored yet."""
        workdir = self.trainer.workdir
        found = workdir is not None and not self._restored and workdir.checkpoints.exists()
        return self.trainer.hosts.broadcast_json(found)


def _values(held) -> list:
    return list(held.values()) if isinstance(held, dict) else list(held)
