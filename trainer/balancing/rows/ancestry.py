"""Which operations of a traced graph lead to some tensors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tensorflow as tf


class Ancestry:
    """The operations that lead to the parts of some terms, in the graph that holds them.

    Args:
      parts: tensors of one graph, of which gradients are taken.
      constants: tensors that the tape took for constants, though the graph computes them.
    Attributes:
      graph: that of the parts.
      starts: the operations of the parts.
      operations: that lead to them, theirs among them.
    """

    def __init__(self, parts: Iterable[tf.Tensor], constants: Iterable = ()):
        parts = list(parts)
        self.graph: Any = parts[0].graph
        ends = {tensor.op for tensor in constants if tf.is_symbolic_tensor(tensor)}
        self.starts = {part.op for part in parts}
        self.operations = set(self.starts)
        waiting = list(self.operations)
        while waiting:
            for tensor in waiting.pop().inputs:
                operation = tensor.op
                if operation not in ends and operation not in self.operations:
                    self.operations.add(operation)
                    waiting.append(operation)

    def consumers(self, tensor) -> list:
        """The operations on the way to the parts that take a tensor."""
        return [operation for operation in tensor.consumers() if operation in self.operations]

    def handle(self, variable: tf.Variable):
        """The tensor by which the graph knows a variable; None: it does not."""
        handle = variable.handle
        return next((inner for outer, inner in self.graph.captures if outer is handle), None)


def traced(tensor) -> bool:
    """Whether a tensor is one of a function that is being traced, not a value."""
    return tf.is_symbolic_tensor(tensor) and hasattr(tensor.graph, "captures")
