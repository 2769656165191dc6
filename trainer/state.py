"""Where a run stands: the step, the log window, and what its checkpoints hold."""

from __future__ import annotations

import keras
import tensorflow as tf

from trainer.checkpoint import Checkpoints
from trainer.loop import Window
from trainer.parameters import read


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
        self._restored = False
        self._resumed_window = False

    @property
    def step_now(self) -> int:
        return int(read(self.step))

    @property
    def terms(self) -> int:
        return len(self.trainer.loops.replica.layout.names)

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

    def open_checkpoints(self, keep_last) -> Checkpoints | None:
        """The checkpoints of the workdir; None where there is none."""
        trainer = self.trainer
        if trainer.workdir is None:
            return None
        if not self._window:
            empty = Window.empty(self.terms)
            self._window = [tf.Variable(value, trainable=False) for value in empty]
        replica = trainer.loops.replica
        held = [variable for term in trainer.terms for variable in term.variables]
        for value in vars(trainer).values():  # networks and variables a subclass keeps
            if isinstance(value, keras.Layer) and value is not trainer.model:
                held += value.variables
            elif isinstance(value, keras.Variable):
                held.append(value)
        owned = {id(v): v for v in [*replica.parameters.values(), *held]}
        optimizers = [updated.optimizer for updated in replica.optimizers.updated]
        state = {
            "model": trainer.model.variables,
            "optimizers": [v for optimizer in optimizers for v in optimizer.variables],
            "terms": list(owned.values()),
            "metrics": replica.train_metrics.variables,
            "window": self._window,
            "step": [self.step],
            "data_start": [self._data_start],
        }
        return Checkpoints(trainer.workdir.checkpoints, state, keep_last)

    def restore(self, checkpoints: Checkpoints | None) -> bool:
        """Restores the newest checkpoint, once per Trainer; whether there was one."""
        if checkpoints is None or self._restored:
            return False
        self._restored = True
        if checkpoints.latest is None:
            return False
        checkpoints.restore(checkpoints.latest)
        self._resumed_window = True
        return True

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
        source.start(self.step_now - began)
        return began

    @property
    def restorable(self) -> bool:
        """Whether the workdir holds a run that this Trainer has not restored yet."""
        workdir = self.trainer.workdir
        return workdir is not None and not self._restored and workdir.checkpoints.exists()
