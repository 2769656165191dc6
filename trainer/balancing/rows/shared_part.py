"""The part of a traced pass that several terms share, where their gradients can go together."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, NamedTuple

import tensorflow as tf

from trainer.balancing.rows.ancestry import Ancestry

# a tape records these as a whole, or not at all: what is inside has no gradient of its own
_WHOLE = {
    "Case",
    "If",
    "IdentityN",
    "PartitionedCall",
    "StatefulPartitionedCall",
    "StatelessCase",
    "StatelessIf",
    "StatelessWhile",
    "While",
}
_STOPS = {"StopGradient", "ZerosLike", "OnesLike", "Shape", "Size", "Rank", "BroadcastGradientArgs"}


class SharedPart(NamedTuple):
    """The operations through which gradients of at least two terms go.

    Attributes:
      operations: in the order in which they run.
      ends: tensors from which the terms part, of which none leads to another.
      reads: the value of a variable -> its path.
    """

    operations: list
    ends: list
    reads: dict[Any, str]

    def reads_of(self, path: str) -> list:
        """The values of one variable."""
        return [read for read in self.reads if self.reads[read] == path]


def find_shared_part(parts: list, constants: Iterable, variables: Mapping) -> SharedPart | None:
    """The shared part of a pass.

    Args:
      parts: of the terms, tensors of one graph.
      constants: tensors that the tape took for constants.
      variables: path -> `tf.Variable`, whose gradients are wanted.
    Returns:
      None where gradients cannot be told from the graph alone: where a shared operation is a loop,
      a branch, a function or has a gradient of its own, where several terms use a variable apart
      from each other, and where a tensor from which terms part leads to another one.
    """
    constants = list(constants)
    by_term = [Ancestry([part], constants) for part in parts]
    counts = collections.Counter(chain.from_iterable(one.operations for one in by_term))
    whole = Ancestry(parts, constants)
    reads = _reads(whole, variables)
    if reads is None:
        return None
    below = _below(whole, reads)
    shared = {operation for operation in below if counts[operation] > 1}
    if _used_apart(reads, whole, by_term, below, shared):
        return None
    order = [op for op in whole.graph.get_operations() if op in shared]
    ends = _ends(order, whole, below - shared, reads)
    unclear = any(map(_is_whole, order)) or any(_leads_to_another(end, ends) for end in ends)
    return None if unclear or not order else SharedPart(order, ends, reads)


def _ends(order: list, whole: Ancestry, apart: set, reads: dict) -> list:
    """The tensors of the shared operations from which a term goes on alone, or ends."""

    def ends(tensor) -> bool:
        goes_on = any(operation in apart for operation in whole.consumers(tensor))
        return tensor.ref() not in reads and (goes_on or tensor.op in whole.starts)

    return [tensor for operation in order for tensor in operation.outputs if ends(tensor)]


def _reads(whole: Ancestry, variables: Mapping) -> dict[Any, str] | None:
    """The value of each variable, as often as it is read -> its path; None: it is not read only."""
    reads = {}
    for path, variable in variables.items():
        handle = whole.handle(variable)
        for operation in [] if handle is None else whole.consumers(handle):
            if operation.type != "ReadVariableOp":
                return None
            reads[operation.outputs[0].ref()] = path
    return reads


def _below(whole: Ancestry, reads: dict) -> set:
    """The operations that carry gradients to the reads, these among them."""
    below = {read.deref().op for read in reads}
    waiting = list(below)
    while waiting:
        for tensor in waiting.pop().outputs:
            if not tensor.dtype.is_floating:
                continue
            for operation in whole.consumers(tensor):
                if operation not in below and operation.type not in _STOPS:
                    below.add(operation)
                    waiting.append(operation)
    return below


def _is_whole(operation) -> bool:
    if operation.type == "ReadVariableOp":
        return False
    own = "_gradient_op_type" in operation.node_def.attr
    resource = any(tensor.dtype in (tf.resource, tf.variant) for tensor in operation.inputs)
    unknown = any(not tensor.shape.is_fully_defined() for tensor in operation.outputs)
    return own or resource or unknown or operation.type in _WHOLE


def _used_apart(reads: dict, whole: Ancestry, by_term: list, below: set, shared: set) -> bool:
    """Whether several terms reach a variable, and one of its uses is that of one term alone."""
    terms: dict[str, set] = {}
    uses: dict[str, set] = {}
    for read, path in reads.items():
        tensor = read.deref()
        reached = {i for i, one in enumerate(by_term) if tensor.op in one.operations}
        terms.setdefault(path, set()).update(reached)
        of_read = {operation for operation in whole.consumers(tensor) if operation in below}
        uses.setdefault(path, set()).update({tensor.op}, of_read)
    return any(len(terms[path]) > 1 and not uses[path] <= shared for path in uses)


def _leads_to_another(end, ends: list) -> bool:
    others = {other.op for other in ends if other is not end}
    return end.op in others or bool(others & Ancestry([end]).operations)
