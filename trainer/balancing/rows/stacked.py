"""Gradients of several terms carried through an operation at once: one kernel instead of m."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import tensorflow as tf


class Stacked(NamedTuple):
    """The gradients of k terms by one tensor.

    Attributes:
      terms: int [k], which terms, ascending.
      value: [k, ...], one gradient for each.
    """

    terms: tuple[int, ...]
    value: Any

    @classmethod
    def of(cls, by_term: dict[int, Any]) -> Stacked | None:
        """Of term -> gradient, None where the term does not reach the tensor."""
        there = {term: by_term[term] for term in sorted(by_term) if by_term[term] is not None}
        if not there:
            return None
        return cls(tuple(there), tf.stack([tf.convert_to_tensor(g) for g in there.values()]))

    def by_term(self) -> dict[int, tf.Tensor]:
        """term -> its gradient."""
        return dict(zip(self.terms, tf.unstack(self.value, num=len(self.terms)), strict=True))

    def of_terms(self, terms: tuple[int, ...]) -> tf.Tensor:
        """[len(terms), ...], zeros for a term that does not reach the tensor."""
        if terms == self.terms:
            return self.value
        mine = self.by_term()
        return tf.stack([mine.get(term, tf.zeros_like(self.value[0])) for term in terms])


def added(parts: Iterable[Stacked]) -> Stacked:
    """The sum of gradients by one tensor, of one use each."""
    parts = list(parts)
    if len(parts) == 1:
        return parts[0]
    terms = tuple(sorted({term for part in parts for term in part.terms}))
    return Stacked(terms, tf.add_n([part.of_terms(terms) for part in parts]))


def known(operation) -> bool:
    """Whether an operation has a rule for all terms at once, where its shapes allow."""
    return operation.type in _RULES


def through(
    tape, operation, cotangents: dict[int, Stacked], wanted: list[int]
) -> dict[int, Stacked]:
    """The terms' gradients by some inputs of an operation, of those by its outputs.

    Args:
      tape: persistent, which recorded the operation.
      cotangents: place of an output -> gradients by it.
      wanted: the places of the inputs.
    Returns:
      place of an input -> gradients by it; without those that are not reached.
    """
    if not cotangents:
        return {}
    rule = _RULES.get(operation.type)
    found: dict[int, Stacked] = {}
    for place in wanted:
        value = None if rule is None else rule(operation, cotangents[0].value, place)
        if value is not None:
            found[place] = Stacked(cotangents[0].terms, value)
    rest = [place for place in wanted if place not in found]
    return found | _one_by_one(tape, operation, cotangents, rest)


def _one_by_one(tape, operation, cotangents, places) -> dict[int, Stacked]:
    """The same term by term."""
    first = {tensor.ref(): place for place, tensor in reversed([*enumerate(operation.inputs)])}
    places = [place for place in places if first[operation.inputs[place].ref()] == place]
    by_place: dict[int, dict[int, Any]] = {place: {} for place in places}
    by_output = {place: cotangent.by_term() for place, cotangent in cotangents.items()}
    for term in sorted({term for cotangent in cotangents.values() for term in cotangent.terms}):
        reached = [place for place in by_output if term in by_output[place]]
        given = [by_output[place][term] for place in reached]
        gradients = _by_inputs(tape, operation, reached, given, places) if places else []
        for place, gradient in zip(places, gradients, strict=True):
            by_place[place][term] = gradient
    found = {place: Stacked.of(by_term) for place, by_term in by_place.items()}
    return {place: stacked for place, stacked in found.items() if stacked is not None}


def _by_inputs(tape, operation, reached: list[int], given: list, places: list[int]) -> list:
    """The gradients by different inputs, of those by the outputs that are reached."""
    outputs = [operation.outputs[place] for place in reached]
    inputs = [operation.inputs[place] for place in places]
    if len(inputs) == 1:
        return tape.gradient(outputs, inputs, output_gradients=given)
    # one input may lead to another, through which the tape would go as well
    return tf.gradients(outputs, inputs, given, stop_gradients=list(operation.inputs))


def _folded(value) -> tf.Tensor:
    """[k * B, ...], of [k, B, ...]."""
    return tf.reshape(value, [-1, *value.shape[2:]])


def _unfolded(value, terms: int) -> tf.Tensor:
    """[k, B, ...], of [k * B, ...]."""
    return tf.reshape(value, [terms, -1, *value.shape[1:]])


def _by_product(operation, value, place):
    """Of x W: by x all terms' examples are rows of one product."""
    if operation.get_attr("transpose_a") or operation.get_attr("transpose_b"):
        return None
    x, matrix = operation.inputs
    if place == 1:
        return tf.matmul(x[None], value, transpose_a=True)
    return _unfolded(tf.matmul(_folded(value), matrix, transpose_b=True), value.shape[0])


def _by_convolution(operation, value, place):
    """Of a convolution by its input: all terms' examples are one batch; by its kernel: their
    channels are those of one gradient, so that the input's patches are taken once."""
    (x, kernel), terms = operation.inputs, value.shape[0]
    if operation.get_attr("data_format") != b"NHWC" or x.shape[-1] != kernel.shape[2]:
        return None
    how = {
        "strides": operation.get_attr("strides"),
        "padding": operation.get_attr("padding").decode(),
        "explicit_paddings": operation.get_attr("explicit_paddings"),
        "dilations": operation.get_attr("dilations"),
    }
    if place == 0:
        sizes = [terms * x.shape[0], *x.shape[1:]]
        found = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=sizes, filter=kernel, out_backprop=_folded(value), **how
        )
        return _unfolded(found, terms)
    channels = kernel.shape[-1]
    by_channel = tf.transpose(value, [1, 2, 3, 0, 4])
    by_channel = tf.reshape(by_channel, [*value.shape[1:4], terms * channels])
    found = tf.raw_ops.Conv2DBackpropFilter(
        input=x,
        filter_sizes=[*kernel.shape[:3], terms * channels],
        out_backprop=by_channel,
        **how,
    )
    found = tf.reshape(found, [*kernel.shape[:3], terms, channels])
    return tf.transpose(found, [3, 0, 1, 2, 4])


def _by_bias(operation, value, place):
    """Of x + b: as it is by x, summed over the places by b."""
    if operation.get_attr("data_format") != b"NHWC":
        return None
    return value if place == 0 else tf.reduce_sum(value, list(range(1, value.shape.rank - 1)))


def _by_addition(operation, value, place):
    """Of a sum, by a summand of its shape."""
    return value if operation.inputs[place].shape == operation.outputs[0].shape else None


def _by_shape(operation, value, place):
    """Of a change of shape."""
    return tf.reshape(value, [value.shape[0], *operation.inputs[0].shape]) if place == 0 else None


def _of_output(kernel):
    """The gradient of a function of each element, by a kernel that reads the output."""

    def rule(operation, value, place):
        terms, seen = value.shape[0], operation.outputs[0]
        repeated = tf.tile(tf.reshape(seen, [1, -1]), [terms, 1])
        found = kernel(repeated, tf.reshape(value, [terms, -1]))
        return tf.reshape(found, [terms, *seen.shape])

    return rule


# by the type of an operation: (operation, cotangents [k, ...], place of an input) -> [k, ...], or
# None where another way has to be taken
_RULES = {
    "MatMul": _by_product,
    "Conv2D": _by_convolution,
    "BiasAdd": _by_bias,
    "AddV2": _by_addition,
    "Reshape": _by_shape,
    "ExpandDims": _by_shape,
    "Squeeze": _by_shape,
    "Identity": _by_shape,
    "Relu": _of_output(lambda y, dy: tf.raw_ops.ReluGrad(gradients=dy, features=y)),
    "Tanh": _of_output(lambda y, dy: tf.raw_ops.TanhGrad(y=y, dy=dy)),
    "Sigmoid": _of_output(lambda y, dy: tf.raw_ops.SigmoidGrad(y=y, dy=dy)),
}
