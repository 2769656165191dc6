"""Everything that trains as one flat vector."""

from __future__ import annotations

import tensorflow as tf

from trainer.model.variables import read, tensor_variable
from trainer.step.program import StepProgram


class Vector:
    """The variables that train, in the order of their paths in the run, as one vector [n].

    Its dtype is float64 where one of theirs is, else float32.

    Args:
      variables: path -> variable.
    """

    def __init__(self, variables: dict):
        self.variables = dict(variables)
        self._parts = [tensor_variable(variable) for variable in self.variables.values()]
        wide = any(part.dtype == tf.float64 for part in self._parts)
        self.dtype = tf.float64 if wide else tf.float32
        self._sizes = [part.shape.num_elements() for part in self._parts]

    @classmethod
    def of(cls, program: StepProgram) -> Vector:
        """Of what a step trains."""
        trainables = program.trainables.of_groups(program.trained)
        return cls({path: trainables.variables[path] for path in trainables.owners})

    @property
    def size(self) -> int:
        """n."""
        return sum(self._sizes)

    def read(self) -> tf.Tensor:
        """floating [n], the values; as they are kept, and so perhaps rounded."""
        return self._flat(tf.convert_to_tensor(part) for part in self._parts)

    def write(self, theta) -> None:
        """Sets the variables."""
        for part, values in zip(self._parts, tf.split(theta, self._sizes), strict=True):
            part.assign(tf.cast(tf.reshape(values, part.shape), part.dtype))

    def gradient(self, tape: tf.GradientTape, value) -> tf.Tensor:
        """floating [n], of a value []; 0 for what it does not reach."""
        zero = tf.UnconnectedGradients.ZERO
        return self._flat(tape.gradient(value, self._parts, unconnected_gradients=zero))

    def _flat(self, tensors) -> tf.Tensor:
        dense = [tf.convert_to_tensor(tensor) for tensor in tensors]
        return tf.concat([tf.reshape(tf.cast(t, self.dtype), [-1]) for t in dense], 0)

    def on_host(self):
        """[n], the values on the host."""
        return read(self.read())
