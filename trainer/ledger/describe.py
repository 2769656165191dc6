"""A run in words: the table of terms, and the configuration of one that was given none."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

import keras
import tensorflow as tf

from losses.naming import own_name
from losses.objective.objective import Objective
from losses.objective.outputs import flatten
from losses.objective.weights import Weight
from trainer.ledger.format import format_table
from trainer.optimizers.arguments import describe_optimizer

PENDING = "(the model's own losses and loss parameters are found by build(data) or fit)"


def describe_terms(
    objective: Objective, parameters: Mapping | None, networks: Iterable = ()
) -> str:
    """The table of terms as text.

    Args:
      objective: the run's; its terms are complete after the first trace.
      parameters: name -> loss parameter; None before the first trace.
      networks: those outside the model that train, in words.
    """
    rows = [("term", "from", "weight")]
    if objective.described is None:
        rows += [*_losses_before_the_trace(objective), *_terms_before_the_trace(objective)]
        return "\n".join([format_table(rows, words=True), PENDING])
    for term in objective.described:
        trains = f", trains {', '.join(term.trains)}" if term.trains else ""
        source = f", of {term.source}" if term.source else ""
        rows.append((term.name, f"{term.origin}{source}{trains}", term.weight))
    tables = [format_table(rows, words=True)]
    if parameters:
        shapes = [(name, str(tuple(variable.shape))) for name, variable in parameters.items()]
        tables.append(format_table([("loss parameter", "shape"), *shapes], words=True))
    return "\n".join([*tables, *map(str, networks)])


def describe_run(
    *,
    model: keras.Model,
    optimizers: Mapping[str, keras.optimizers.Optimizer],
    objective: Objective,
    strategy: tf.distribute.Strategy,
    jit_compile: bool,
    seed: int,
) -> dict:
    """The configuration of a run that was given no `config=`: plain values by name.

    Args:
      model, objective, strategy, jit_compile, seed: of the run, after the first trace.
      optimizers: by group; there is one where there are no groups.
    """
    settings = {group: describe_optimizer(o) for group, o in optimizers.items()}
    described = {
        "model": model.name,
        "optimizer": settings if len(settings) > 1 else next(iter(settings.values()), {}),
        "weights": {term.name: term.weight for term in objective.described or ()},
        "strategy": type(strategy).__name__,
        "replicas": strategy.num_replicas_in_sync,
        "jit_compile": jit_compile,
        "seed": seed,
    }
    return json.loads(json.dumps(described, default=str))


def _weights_by_name(objective: Objective) -> Mapping:
    return objective.loss_weights if isinstance(objective.loss_weights, dict) else {}


def _losses_before_the_trace(objective: Objective) -> Iterator[tuple[str, str, str]]:
    """The rows of the compiled losses, as far as they are known before the model has run."""
    compiled = {} if objective.loss is None else flatten(objective.loss)
    weights = _weights_by_name(objective)
    for path, loss in compiled.items():
        if loss is None:
            continue
        name = path or _loss_name(loss)
        weight = weights.get(name) if path else objective.loss_weights or weights.get(name)
        pending = isinstance(weight, (dict, list, tuple))
        yield name, "compiled", "pending" if pending else str(Weight(weight, name))


def _loss_name(loss) -> str:
    """The name of a `keras.losses.Loss`, of a function, or of a name as `Model.compile` takes."""
    if getattr(loss, "name", None):
        return own_name(loss)
    return getattr(loss, "__name__", None) or str(loss)


def _terms_before_the_trace(objective: Objective) -> Iterator[tuple[str, str, str]]:
    """The rows of the terms that `terms=` and `build_terms()` gave."""
    weights = _weights_by_name(objective)
    for term in objective.terms:
        yield term.name, "term", str(Weight(weights.get(term.name, term.weight), term.name))
