"""The objective: every term by name, its weight, and the total as their sum."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from losses.errors import TermwiseError, TermwiseTypeError
from losses.naming import suggestion
from losses.objective.compiled import CompiledLoss, compiled_ratios, name_losses
from losses.objective.model_terms import add_loss_terms, regularization_terms
from losses.objective.outputs import flatten
from losses.objective.ratio import Ratio
from losses.objective.step import Step
from losses.objective.term import Term, as_ratios
from losses.objective.weights import Weight

NOTHING = (
    "There is nothing to minimise: no loss=, no terms=, no regularizer and no add_loss in the "
    "model. Pass loss= or terms=, or override compute_terms()."
)


@dataclass(frozen=True)
class Described:
    """One line of the table of terms."""

    name: str
    origin: str  # compiled, model, term, subclass or weight
    weight: str
    trains: tuple[str, ...] | None = None


class Objective:
    """What is minimised: compiled losses, the model's own losses, terms, and their weights.

    Args:
      loss, loss_weights: as `Model.compile` takes them; `loss_weights` may name any term.
      terms: `losses.Term` objects.
      add_loss_sums: patterns of layer paths whose `add_loss` is a sum over the examples.
      output_names: the model's output names, where it has them.
    Raises:
      ValueError: two terms of one name, or a weight that is not finite.
      TypeError: something in `terms` that is no Term, or a weight of no known kind.
    """

    def __init__(
        self, *, loss=None, loss_weights=None, terms=(), add_loss_sums=(), output_names=None
    ):
        self.loss = loss
        self.loss_weights = loss_weights
        self.terms = list(terms)
        self.add_loss_sums = tuple(add_loss_sums)
        self.output_names = output_names
        self.described: list[Described] | None = None  # known after the first trace
        self._compiled: list[CompiledLoss] | None = None
        self._weights: dict[str, Weight] = {}
        names: dict[str, Term] = {}
        for term in self.terms:
            if not isinstance(term, Term):
                raise TermwiseTypeError(
                    f"terms= holds {term!r}, which is no losses.Term. Make one of a function "
                    'with losses.term(function, name="...").'
                )
            if term.name in names:
                raise TermwiseError(
                    f"Term {term.name!r} is defined twice in terms=: by {_kind(names[term.name])} "
                    f"and by {_kind(term)}. Give one of them another name."
                )
            names[term.name] = term
            Weight(term.weight, term.name)
        if isinstance(loss_weights, dict):
            for name, weight in loss_weights.items():
                if not isinstance(weight, (dict, list, tuple)):
                    Weight(weight, name)

    @property
    def empty(self) -> bool:
        """No loss is given; the model or a subclass may still have some."""
        given = flatten(self.loss) if self.loss is not None else {}
        return not self.terms and not any(one is not None for one in given.values())

    def places(self) -> list[tuple[str, object]]:
        """(term name, loss, term or weight) that may hold loss parameters; for their names."""
        return [
            *((one.name, one.loss) for one in self._compiled or []),
            *((term.name, term) for term in self.terms),
            *((name, weight.given) for name, weight in self._weights.items()),
        ]

    def compiled_terms(self, step: Step, *, y, y_pred, sample_weight) -> dict[str, Ratio]:
        """The compiled losses of these labels and outputs: term name -> Ratio."""
        if self.loss is None:
            return {}
        if self._compiled is None:
            self._compiled = name_losses(self.loss, y_pred, self.output_names)
        return compiled_ratios(
            self._compiled,
            y=y,
            y_pred=y_pred,
            sample_weight=sample_weight,
            examples=step.examples,
            output_names=self.output_names,
        )

    def model_terms(self, step: Step) -> dict[str, Ratio]:
        """The model's own losses, to be read right after the clean forward pass."""
        terms = add_loss_terms(step.model, step.examples, self.add_loss_sums)
        return {**regularization_terms(step.model), **terms}

    def compute_terms(self, step: Step) -> dict[str, Ratio]:
        """The compiled losses and the terms: name -> Ratio, in that order."""
        found = step.compiled_terms()
        for term in self.terms:
            try:
                value = term.call(step)
            except Exception as error:
                if hasattr(error, "add_note"):
                    error.add_note(f"(while computing term {term.name!r})")
                raise
            _join(found, as_ratios(term.name, value, step), f"by term {term.name!r}", "by loss=")
        return found

    def complete(self, computed: dict, model_terms: dict[str, Ratio], step: Step):
        """All terms of a step as Ratios, those of the weights included, in the ledger's order.

        Args:
          computed: what `Trainer.compute_terms` returned: name -> Ratio or tensor.
          model_terms: of `model_terms`.
        Raises:
          ValueError: no term at all; two terms of one name; an unknown name in loss_weights.
        """
        if not isinstance(computed, dict):
            raise TermwiseTypeError(
                f"compute_terms() returned {type(computed).__name__}. Return a dict of terms by "
                "name: terms = super().compute_terms(step); terms[...] = ...; return terms."
            )
        terms: dict[str, Ratio] = {}
        for name, value in computed.items():
            _join(terms, as_ratios(name, value, step), "by compute_terms()", "there too")
        _join(terms, model_terms, "by the model", "by a loss, a term or an output")
        if not terms:
            raise TermwiseError(NOTHING)
        self._weigh(terms, check=step.training)
        for name in list(terms):
            penalty = self._weights[name].penalty()
            if penalty is not None:
                own = {f"uncertainty/{name}": Ratio.once(penalty)}
                _join(terms, own, f"by the weight of {name!r}", "by a term")
                self._weights.setdefault(f"uncertainty/{name}", Weight(1.0, name))
        if self.described is None:
            self.described = self._describe(terms, model_terms)
        return terms

    def weights(self, names, step) -> tf.Tensor:
        """float32 [terms], the weights at this step, in the order of `names`."""
        self._weigh(names, check=False)  # a term may ask before all terms are known
        weights = [self._weights[name] for name in names]
        if all(weight.constant for weight in weights):
            return tf.constant([weight.given for weight in weights], tf.float32)
        return tf.stack([weight(step) for weight in weights])

    def _weigh(self, terms, check) -> None:
        """Finds the weight of each term: of loss_weights=, else the term's own, else 1."""
        if all(name in self._weights for name in terms):
            return
        given = self._given_weights(terms, check)
        own = {term.name: term.weight for term in self.terms}
        for name in terms:
            parents = [name, *[name[:i] for i, c in enumerate(name) if c == "/"][::-1]]
            found = [source[p] for source in (given, own) for p in parents if p in source]
            self._weights[name] = Weight(found[0] if found else None, name)

    def _given_weights(self, terms, check) -> dict:
        given = self.loss_weights
        compiled = [one.name for one in self._compiled or []]
        if given is None:
            return {}
        if isinstance(given, (list, tuple)):
            if len(given) != len(compiled):
                raise TermwiseError(
                    f"loss_weights= is a list of {len(given)}, but there are {len(compiled)} "
                    f"compiled losses: {', '.join(map(repr, compiled))}. Give one for each, "
                    "or a dict by term name."
                )
            return dict(zip(compiled, given, strict=True))
        if not isinstance(given, dict):
            if len(compiled) != 1:
                raise TermwiseError(
                    f"loss_weights={given!r} is one weight, but there are {len(compiled)} compiled "
                    f"losses: {', '.join(map(repr, compiled))}. Give a dict by term name."
                )
            return {compiled[0]: given}
        flat: dict = {}
        for key, value in given.items():
            nested = isinstance(value, (dict, list, tuple))
            flat.update(flatten({key: value}) if nested else {key: value})
        groups = {name[:i] for name in terms for i, c in enumerate(name) if c == "/"}
        for name in flat:
            if check and name not in terms and name not in groups:
                raise TermwiseError(
                    f"loss_weights= names term {name!r}; the terms are "
                    f"{', '.join(map(repr, terms))}.{suggestion(name, terms)}"
                )
        return flat

    def _describe(self, terms, model_terms) -> list[Described]:
        compiled = {one.name for one in self._compiled or []}
        own = {term.name: term for term in self.terms}
        described = []
        for name in terms:
            heads = {name, *(name[:i] for i, c in enumerate(name) if c == "/")}
            term = next((own[head] for head in heads if head in own), None)
            if name in model_terms:
                origin = "model"
            elif term is not None:
                origin = "term"
            elif name.startswith("uncertainty/"):
                origin = "weight"
            else:
                origin = "compiled" if heads & compiled else "subclass"
            trains = getattr(term, "trains", None)
            trains = (trains,) if isinstance(trains, str) else trains and tuple(trains)
            described.append(Described(name, origin, str(self._weights[name]), trains))
        return described


def _kind(term: Term) -> str:
    function = getattr(term, "function", None)
    return type(term).__name__ if function is None else f"function {function.__name__}"


def _join(terms: dict, more: dict, by: str, other: str) -> None:
    for name, value in more.items():
        if name in terms:
            raise TermwiseError(
                f"Term {name!r} is defined twice: {by} and {other}. Give one of them another name."
            )
        terms[name] = value
