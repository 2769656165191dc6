"""A run in words: the table of terms, and the configuration of one that was given none."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping

import keras
import tensorflow as tf

from losses.naming import own_name
from losses.objective.objective import Objective
from losses.objective.outputs import flatten
from losses.objective.term import Term
from losses.objective.weights import Weight
from trainer.ledger.format import format_table
from trainer.ledger.notebook import html_tables
from trainer.optimizers.arguments import describe_optimizer


class TermTable(str):
    """The table of terms: text, which a notebook shows as tables.

    Args:
      text: the table as it is printed.
      tables: its parts, lists of rows of cells, the head first; for notebooks.
      notes: lines below.
    """

    _tables: list
    _notes: list

    def __new__(cls, text: str, tables: Iterable = (), notes: Iterable = ()):
        table = super().__new__(cls, text)
        table._tables, table._notes = list(tables), list(map(str, notes))
        return table

    def _repr_html_(self) -> str:
        return html_tables(self._tables, self._notes)

    def _repr_pretty_(self, printer, cycle: bool) -> None:
        printer.text(str(self))


PENDING = "(the model's own losses and loss parameters are found by build(data) or fit)"


def describe_terms(
    objective: Objective,
    parameters: Mapping | None,
    networks: Iterable = (),
    shares: Mapping[str, float] | None = None,
) -> TermTable:
    """The table of terms as text; a notebook shows it as a table.

    Args:
      objective: the run's; its terms are complete after the first trace.
      parameters: name -> loss parameter; None before the first trace.
      networks: those outside the model that train, in words.
      shares: term -> the share of a batch that it learns from, the hardest; None: all of each.
    """
    rows: list[tuple[str, ...]] = [("term", "from", "weight")]
    if objective.described is None:
        rows += [*_losses_before_the_trace(objective), *_terms_before_the_trace(objective)]
        return TermTable("\n".join([format_table(rows, words=True), PENDING]), [rows], [PENDING])
    for term in objective.described:
        trains = f", trains {', '.join(term.trains)}" if term.trains else ""
        source = f", of {term.source}" if term.source else ""
        share = (shares or {}).get(term.name)
        hardest = "" if share is None else f", hardest {share:g}"
        rows.append((term.name, f"{term.origin}{source}{trains}{hardest}", term.weight))
    tables: list[list[tuple[str, ...]]] = [rows]
    if parameters:
        shapes = [(name, str(tuple(variable.shape))) for name, variable in parameters.items()]
        tables.append([("loss parameter", "shape"), *shapes])
    notes = [str(network) for network in networks]
    lines = [format_table(table, words=True) for table in tables]
    return TermTable("\n".join([*lines, *notes]), tables, notes)


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


def term_notes(objective: Objective) -> list[dict[str, str]]:
    """What the files of a run say of each term: name, from, weight, and its equation if any."""
    equations = {
        name: equation_of(place)
        for name, place in objective.places()
        if isinstance(place, (keras.losses.Loss, Term))  # of a weight it is another's
    }
    notes = []
    for term in objective.described or ():
        note = {"name": term.name, "from": term.origin, "weight": term.weight}
        equation = equations.get(term.name)
        notes.append({**note, "equation": equation} if equation else note)
    return notes


def equation_of(place: object) -> str | None:
    """The equation in a class's docstring: its first indented paragraph before `Args:`.

    Example:
      >>> from losses import Charbonnier
      >>> equation_of(Charbonnier())
      'value = mean over the last axis of sqrt(e^2 + epsilon^2),   e = y_true - y_pred'
    """
    text = (inspect.getdoc(type(place)) or "").partition("\nArgs:")[0]
    for paragraph in text.split("\n\n"):
        lines = paragraph.splitlines()
        if lines and all(line.startswith("    ") for line in lines):
            return "\n".join(line[4:] for line in lines)
    return None


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
