"""What the second-order methods of a run remember, in variables that checkpoints hold."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from trainer.second_order.method import Point, SecondOrder
from trainer.second_order.vector import Vector
from trainer.step.program import StepProgram


class Memory:
    """What a method of one phase remembers from step to step.

    Args:
      method: of the phase.
      program: of its step.
    Attributes:
      vector: of what trains.
      variables: name -> `tf.Variable`; what a checkpoint holds.
    """

    def __init__(self, method: SecondOrder, program: StepProgram):
        self.method, self.vector = method, Vector.of(program)
        terms = len(program.layout.names)
        size, dtype = self.vector.size, self.vector.dtype
        nothing = tf.zeros([terms])
        theta = tf.zeros([size], dtype)
        point = Point(theta, tf.zeros([], dtype), theta, (nothing, nothing))
        with program.placement.strategy.scope():
            state = method.start(size, dtype)
            self.variables = {name: tf.Variable(v, trainable=False) for name, v in state.items()}
            # what was found at the last point need not be computed again, nor be saved
            self._point = tf.nest.map_structure(lambda v: tf.Variable(v, trainable=False), point)
            self._current = tf.Variable(False, trainable=False)

    @property
    def known(self) -> list[tf.Variable]:
        """The variables that no checkpoint need hold."""
        return [*tf.nest.flatten(self._point), self._current]

    def renew(self) -> None:
        """Has the next step compute where it stands anew: the host may have changed something."""
        self._current.assign(False)

    def forget(self) -> None:
        """Begins anew."""
        state = self.method.start(self.vector.size, self.vector.dtype)
        for name, value in state.items():
            self.variables[name].assign(value)

    def state(self) -> dict[str, tf.Tensor]:
        """What the method remembers."""
        return {name: tf.convert_to_tensor(v) for name, v in self.variables.items()}

    def point(self, at: Callable[[tf.Tensor], Point]) -> tuple[Point, tf.Tensor]:
        """Where the variables stand; bool [], whether it is where the last step has ended.

        Args:
          at: theta -> Point.
        """
        theta = self.vector.read()
        last = tf.nest.map_structure(tf.convert_to_tensor, self._point)
        same = self._current & tf.reduce_all(tf.equal(theta, last.theta))
        return tf.cond(same, lambda: last, lambda: at(theta)), same

    def keep(self, point: Point, state: dict) -> None:
        """Where a step has ended."""
        self.vector.write(point.theta)
        for variable, value in zip(
            tf.nest.flatten(self._point), tf.nest.flatten(point), strict=True
        ):
            variable.assign(value)
        for name, value in state.items():
            self.variables[name].assign(value)
        self._current.assign(True)

    @property
    def told(self) -> dict[str, tf.Tensor]:
        """tag -> [], what rows show."""
        told = self.method.told
        return {f"optimizer/{name}": tf.convert_to_tensor(self.variables[name]) for name in told}
