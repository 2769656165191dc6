"""All rows of the shared variables in one backward pass, which carries every term's gradient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from trainer.balancing.rows.ancestry import Ancestry, traced
from trainer.balancing.rows.factored_rows import FactoredRows, pays
from trainer.balancing.rows.shared_part import SharedPart, find_shared_part
from trainer.balancing.rows.stacked import Stacked, added, known, through
from trainer.balancing.rows.uses import Use, uses_of

# gradients of one operation by one term, of which each takes the trace some milliseconds
_MOST_ALONE = 2000


def shared_rows(
    tape, parts: list, constants: Iterable, variables: Mapping, may_factor: bool
) -> dict[str, tuple[tuple[int, ...], Any]] | None:
    """The rows of the variables that at least two of the terms reach.

    The terms' own passes end where the model's part that they share begins; through that one pass
    goes, in which each kernel takes the examples of all terms at once.

    Args:
      tape: persistent, which recorded the parts.
      parts: of the m terms, [] each.
      constants: tensors in them that the tape took for constants.
      variables: path -> `tf.Variable`.
      may_factor: whether rows may be kept as `FactoredRows`, where that is cheaper.
    Returns:
      path -> the terms that reach it, and its rows, [m, ...] or FactoredRows; None where the terms
      have to be differentiated one by one.
    """
    shared = find_shared_part(parts, constants, variables) if traced(parts[0]) else None
    if shared is None or _alone(parts, shared) > _MOST_ALONE:
        return None
    uses = _factored_uses(parts, constants, variables) if may_factor else {}
    cotangents = _carried(tape, parts, shared, uses)
    rows = {}
    for path, variable in variables.items():
        tensors = [use.output.ref() for use in uses.get(path, ())] or shared.reads_of(path)
        found = [cotangents.get(tensor) for tensor in tensors]
        there = [*filter(None, found)]
        terms = tuple(sorted({term for each in there for term in each.terms}))
        if len(terms) < 2:
            continue
        if path in uses:
            rows[path] = terms, FactoredRows.of(uses[path], found, len(parts), variable)
        else:
            rows[path] = terms, added(there).of_terms(tuple(range(len(parts))))
    return rows


def _alone(parts: list, shared: SharedPart) -> int:
    """How many gradients would be taken of one operation by one term."""
    return len(parts) * sum(not known(operation) for operation in shared.operations)


def _factored_uses(parts: list, constants: Iterable, variables: Mapping) -> dict[str, list[Use]]:
    """path -> the uses of a variable whose rows are cheaper as two factors."""
    whole = Ancestry(parts, constants)
    found = {path: uses_of(whole, variable) for path, variable in variables.items()}
    return {p: uses for p, uses in found.items() if pays(uses, variables[p].shape, len(parts))}


def _carried(tape, parts: list, shared: SharedPart, uses: dict) -> dict[Any, Stacked]:
    """tensor -> the terms' gradients by it; of the shared part, from its ends to its beginnings."""
    found = _at_ends(tape, parts, shared.ends)
    left_out = {read for read, path in shared.reads.items() if path in uses}
    inside = set(shared.operations)
    for operation in reversed([op for op in shared.operations if op.type != "ReadVariableOp"]):
        outputs = {place: tensor.ref() for place, tensor in enumerate(operation.outputs)}
        cotangents = {place: added(found[ref]) for place, ref in outputs.items() if ref in found}
        found.update({outputs[place]: [stacked] for place, stacked in cotangents.items()})
        wanted = [
            place
            for place, tensor in enumerate(operation.inputs)
            if tensor.op in inside and tensor.dtype.is_floating and tensor.ref() not in left_out
        ]
        for place, stacked in through(tape, operation, cotangents, wanted).items():
            found.setdefault(operation.inputs[place].ref(), []).append(stacked)
    return {tensor: added(stacked) for tensor, stacked in found.items()}


def _at_ends(tape, parts: list, ends: list) -> dict[Any, list[Stacked]]:
    """tensor -> the terms' gradients by it, of those from which the terms part."""
    by_term = [tape.gradient(part, ends) for part in parts]
    stacked = [Stacked.of(dict(enumerate(by_end))) for by_end in zip(*by_term, strict=True)]
    return {end.ref(): [of] for end, of in zip(ends, stacked, strict=True) if of is not None}
