"""Where a traced pass uses a variable, if all it does there has a gradient of two known factors."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from trainer.balancing.rows.ancestry import Ancestry


class Use(NamedTuple):
    """One product with a variable, or one look-up in it, of which the gradient has two factors.

    Attributes:
      inputs: float32 [..., n_in] of a product, int [...] of a look-up.
      output: float32 [..., n_out], by which the second factor is the gradient.
    """

    inputs: Any
    output: Any

    @property
    def looks_up(self) -> bool:
        return self.inputs.dtype.is_integer

    @property
    def places(self) -> int:
        """B, over how many places (examples, words) the gradient sums."""
        return self.output.shape.num_elements() // self.output.shape[-1]


def uses_of(ancestry: Ancestry, variable: tf.Variable) -> list[Use]:
    """All uses of a matrix in a pass; none where one of them is of another kind.

    Known are the products of `Dense` (x W, of any rank of x) and the look-ups of `Embedding`, in
    float32 and of shapes that are known when traced.
    """
    handle = ancestry.handle(variable)
    if handle is None or variable.shape.rank != 2 or variable.dtype != tf.float32:
        return []
    uses: list[Use | None] = []
    for read in ancestry.consumers(handle):
        if read.type != "ReadVariableOp":
            return []
        value = read.outputs[0]
        uses += [_use(operation, value) for operation in ancestry.consumers(value)]
    known = [use for use in uses if use is not None]
    alike = len({use.looks_up for use in known}) == 1
    return known if alike and len(known) == len(uses) else []


def _use(operation, matrix) -> Use | None:
    """What an operation does with a matrix; None where that is not known."""
    second_factor, output = _SECOND_FACTOR.get(operation.type), operation.outputs[0]
    if second_factor is None or not output.shape.is_fully_defined():
        return None
    of_matrix = [place for place, tensor in enumerate(operation.inputs) if tensor is matrix]
    inputs = second_factor(operation, of_matrix)
    return None if inputs is None else Use(inputs, output)


def _multiplied(operation, of_matrix: list[int]):
    """What a product multiplies by the matrix; None where it is not x W."""
    turned = operation.get_attr("transpose_a") or operation.get_attr("transpose_b")
    return operation.inputs[0] if of_matrix == [1] and not turned else None


def _looked_up(operation, of_matrix: list[int]):
    """The rows that are looked up in the matrix; None where they are not its rows."""
    by_row = tf.get_static_value(operation.inputs[2]) == 0
    plain = by_row and operation.get_attr("batch_dims") == 0
    return operation.inputs[1] if of_matrix == [0] and plain else None


_SECOND_FACTOR = {"MatMul": _multiplied, "GatherV2": _looked_up}
