"""A run in words: the table of terms, and the configuration of one that was given none."""

from __future__ import annotations

import json

from losses.objective.outputs import flatten
from losses.objective.term import Term
from losses.objective.weights import Weight
from trainer.ledger.rows import format_table
from trainer.optimizers.arguments import describe_optimizer
from trainer.step.program import StepProgram

PENDING = "(the model's own losses and loss parameters are found by build(data) or fit)"


def describe_terms(objective, parameters: dict | None) -> str:
    """The table of terms as text.

    Args:
      objective: `losses.Objective`.
      parameters: name -> loss parameter; None before the first trace.
    """
    rows = [("term", "from", "weight")]
    if objective.described is None:
        rows += [(name, origin, weight) for name, origin, weight in _given(objective)]
        return "\n".join([_left(rows), PENDING])
    for one in objective.described:
        origin = one.origin if not one.trains else f"{one.origin}, trains {', '.join(one.trains)}"
        rows.append((one.name, origin, one.weight))
    lines = [_left(rows)]
    if parameters:
        head = [("loss parameter", "shape")]
        held = [(name, str(tuple(v.shape))) for name, v in parameters.items()]
        lines.append(_left(head + held))
    return "\n".join(lines)


def describe_run(program: StepProgram, seed: int, xla: bool) -> dict:
    """The configuration of a run that was given no `config=`: plain values by name."""
    optimizers, strategy = program.optimizers.of_group, program.placement.strategy
    made = {name: describe_optimizer(optimizer) for name, optimizer in optimizers.items()}
    described = {
        "model": program.model.name,
        "optimizer": made if len(made) > 1 else next(iter(made.values()), {}),
        "weights": {line.name: line.weight for line in program.objective.described or []},
        "strategy": type(strategy).__name__,
        "replicas": strategy.num_replicas_in_sync,
        "jit_compile": xla,
        "seed": seed,
    }
    return json.loads(json.dumps(described, default=str))


def _given(objective):
    """What is known before the model has run: the losses by output, and the terms."""
    given = flatten(objective.loss) if objective.loss is not None else {}
    weights = objective.loss_weights if isinstance(objective.loss_weights, dict) else {}
    for path, loss in given.items():
        if loss is None:
            continue
        name = path or getattr(loss, "name", None) or getattr(loss, "__name__", None) or str(loss)
        weight = weights.get(name) if path else objective.loss_weights or weights.get(name)
        shown = "pending" if isinstance(weight, (dict, list, tuple)) else str(Weight(weight, name))
        yield name, "compiled", shown
    term: Term
    for term in objective.terms:
        yield term.name, "term", str(Weight(weights.get(term.name, term.weight), term.name))


def _left(rows) -> str:
    """Left-aligned columns: words, not numbers."""
    width = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    padded = [[c.ljust(w) for c, w in zip(r, width, strict=True)] for r in rows]
    return format_table([tuple(row) for row in padded])
