"""The objective: every term by name, its weight, and the total as their sum."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import tensorflow as tf

from losses.errors import TermwiseError, TermwiseTypeError, add_note
from losses.layers import stable_names, stable_path
from losses.naming import checked_name
from losses.objective.compiled import (
    CompiledLoss,
    compiled_ratios,
    keys_are_sources,
    name_losses,
    name_losses_by_source,
)
from losses.objective.model_terms import add_loss_terms, computed_loss, regularization_terms
from losses.objective.outputs import flatten
from losses.objective.ratio import Ratio
from losses.objective.step import AbsentSource, Step
from losses.objective.term import Term, Trains, check_terms, placed_ratios, ratios_of
from losses.objective.weights import (
    LEAST_PAUSE,
    GivenWeights,
    Pauses,
    Weight,
    find_pauses,
    heads,
    weights_by_name,
)

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
    source: str | None = None  # of several


@dataclass(frozen=True)
class Resolved:
    """What an objective learns from the first step, each once; it stays for all later steps.

    Attributes:
      compiled: the compiled losses, named by the model's outputs; None before `compiled_terms`.
        They are made once, as a loss may hold parameters.
      described: the table of terms; None before `complete`.
      names: `stable_names` of the model's layers.
    """

    compiled: tuple[CompiledLoss, ...] | None = None
    described: tuple[Described, ...] | None = None
    names: Mapping[str, str] | None = None


class Objective:
    """What is minimised: compiled losses, the model's own losses, terms, and their weights.

    It is what the user gave, and `resolved`, which the first step fills in.

    Args:
      loss, loss_weights: as `Model.compile` takes them; `loss_weights` may name any term.
      terms: `losses.Term` objects.
      add_loss_sums: patterns of layer paths whose `add_loss` is a sum over the examples.
      output_names: the model's output names, where it has them.
      computes_loss: whether the model's own `compute_loss()` stands for all its losses.
    Raises:
      ValueError: two terms of one name, or a weight that is not finite.
      TypeError: something in `terms` that is no Term, or a weight of no known kind.
    """

    def __init__(
        self,
        *,
        loss=None,
        loss_weights=None,
        terms=(),
        add_loss_sums=(),
        output_names=None,
        computes_loss=False,
    ):
        self.loss = loss
        self.loss_weights = loss_weights
        self.terms = list(terms)
        self.add_loss_sums = tuple(add_loss_sums)
        self.output_names = output_names
        self.computes_loss = computes_loss
        self.overrides: Mapping = {}
        self.resolved = Resolved()
        check_terms(self.terms)
        if isinstance(loss_weights, dict):
            for name, weight in loss_weights.items():
                if not isinstance(weight, (dict, list, tuple)):
                    Weight(weight, name)

    def reweighted(self, weights: Mapping, names, by: str) -> Objective:
        """The same objective, some of whose terms have other weights.

        Args:
          weights: name or pattern -> weight.
          names, by: of all terms; who gives the weights, for errors.
        Raises:
          ValueError: a name that is no term's; a weight that is not finite, or that learns.
        """
        for name, weight in weights.items():
            if Weight(weight, name).penalizes:
                raise TermwiseError(
                    f"{by} gives term {name!r} a weight that learns. Give that in loss_weights=."
                )
        other = copy.copy(self)
        other.overrides = weights
        GivenWeights(weights, {}).check_names(names, by=by)
        return other

    @property
    def empty(self) -> bool:
        """No loss is given; the model or a subclass may still have some."""
        losses = [] if self.loss is None else flatten(self.loss).values()
        return all(each is None for each in losses) and not (self.terms or self.computes_loss)

    @property
    def described(self) -> tuple[Described, ...] | None:
        """The table of terms; None before the first step is traced."""
        return self.resolved.described

    @described.setter
    def described(self, lines: Iterable[Described]) -> None:
        self.resolved = replace(self.resolved, described=tuple(lines))

    def forget_table(self) -> None:
        """Has the next step that is traced make the table of terms anew."""
        self.resolved = replace(self.resolved, described=None)

    def describe_with(self, function: Callable[[tuple], Iterable[Described]]) -> None:
        """Changes the lines of the table of terms, for what weighs them further."""
        self.described = function(self.described or ())

    def places(self) -> list[tuple[str, object]]:
        """(term name, loss, term or weight) that may hold loss parameters; for their names."""
        weights = self._given_weights()
        return [
            *((compiled.name, compiled.loss) for compiled in self.resolved.compiled or ()),
            *((term.name, term) for term in self.terms),
            *((line.name, weights.of(line.name).value) for line in self.described or ()),
        ]

    def compiled_terms(self, step: Step, *, y, y_pred, sample_weight) -> dict[str, Ratio]:
        """The compiled losses of these labels and outputs: term name -> Ratio.

        Where the losses are by source, these are those of the step's own.
        """
        if self.loss is None:
            return {}
        compiled = [each for each in self._compiled(step) if each.source in (None, step.source)]
        if not compiled:
            return {}
        return compiled_ratios(
            compiled,
            y=y,
            y_pred=y_pred,
            sample_weight=sample_weight,
            examples=step.examples,
            output_names=self.output_names,
        )

    def _compiled(self, step: Step) -> tuple[CompiledLoss, ...]:
        """The compiled losses; those of the first call stay."""
        if self.resolved.compiled is None:
            if keys_are_sources(self.loss, step):
                compiled = name_losses_by_source(self.loss, step)
            else:
                compiled = name_losses(self.loss, step.y_pred, self.output_names)
            if not isinstance(self.loss, dict):  # no names that the user gave
                names = self._names(step.model)
                compiled = [replace(c, name=stable_path(c.name, names)) for c in compiled]
            self.resolved = replace(self.resolved, compiled=tuple(compiled))
        return self.resolved.compiled or ()

    def _names(self, model) -> Mapping[str, str]:
        """Keras's names of layers -> their names in those of terms; those of the first call."""
        if self.resolved.names is None:
            names = {} if model is None else stable_names(model)
            self.resolved = replace(self.resolved, names=names)
        return self.resolved.names or {}

    def model_terms(self, step: Step) -> dict[str, Ratio]:
        """The model's own losses, to be read right after the clean forward pass."""
        self._names(step.model)
        if self.computes_loss:
            return computed_loss(step)
        terms = add_loss_terms(step.model, step.examples, self.add_loss_sums)
        return {**regularization_terms(step.model), **terms}

    def compute_terms(self, step: Step) -> dict[str, Ratio]:
        """The compiled losses and the terms: name -> Ratio, in that order."""
        ratios = self._of_sources(step)
        for term in self.terms:
            if step.leaves_out(term.name):
                continue
            try:
                parts = ratios_of(term, step)
            except AbsentSource:
                continue
            except Exception as error:
                add_note(error, f"(while computing term {term.name!r})")
                raise
            _join(ratios, parts, f"by term {term.name!r}", "by loss=")
        return ratios

    def loss_of(self, source: str | None):
        """What `loss=` gives the labels of a source, of None where data have no names."""
        compiled = self.resolved.compiled or ()
        by_source = any(each.source is not None for each in compiled)
        return self.loss.get(source) if by_source else self.loss

    def _of_sources(self, step: Step) -> dict[str, Ratio]:
        """The compiled losses of a step, of all its sources where they are by source."""
        if not step.sources:
            return step.compiled_terms()
        ratios: dict[str, Ratio] = {}
        for name, other in step.sources.items():
            each = step if name == step.source else other
            if each is step or any(c.source == name for c in self._compiled(step)):
                parts = each.compiled_terms()
                ratios |= {key: ratio.placed_by(each) for key, ratio in parts.items()}
        return ratios

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
        trained: dict[str, tuple] = {}
        for name, value in computed.items():
            groups = value.groups if isinstance(value, Trains) else None
            value = value.value if isinstance(value, Trains) else value
            parts = placed_ratios(name, value, step, step.asked)
            _join(terms, parts, "by compute_terms()", "there too")
            if groups is not None:
                trained.update(dict.fromkeys(parts, groups))
        _join(terms, model_terms, "by the model", "by a loss, a term or an output")
        if not terms:
            raise TermwiseError(NOTHING)
        weights = self._given_weights()
        known = {line.name for line in self.described or ()}
        if step.training and not known.issuperset(terms):
            by_name = self.resolved.compiled if isinstance(self.loss, dict) else ()
            weights.check_names(terms, [compiled.name for compiled in by_name or ()])
        _add_penalties(terms, weights)
        if self.described is None:
            lines = [self._line(name, model_terms, weights) for name in terms]
            self.described = [
                replace(line, trains=trained.get(line.name, line.trains)) for line in lines
            ]
        return terms

    def weights(self, names, step) -> tf.Tensor:
        """float32 [terms], the weights at this step, in the order of `names`."""
        by_name = self._given_weights()
        weights = [by_name.of(name) for name in names]
        if all(weight.constant for weight in weights):
            return tf.constant([weight.value for weight in weights], tf.float32)
        return tf.stack([weight(step) for weight in weights])

    def dials(self, step) -> list[tf.Variable]:
        """The variables that the terms' weights read and that are the user's to set."""
        weights = self._given_weights()
        return [v for line in self.described or () for v in weights.of(line.name).dials(step)]

    def pauses(self, names, steps: int) -> Pauses:
        """Which of the terms pause up to a step: their scheduled weight is 0 for a while."""
        of_terms = self._given_weights()
        weights = {name: of_terms.of(name) for name in names}
        return find_pauses(weights, steps + LEAST_PAUSE)  # one that a later fit goes on with

    def constant_weights(self, names) -> dict[str, float | None]:
        """name -> the weight that a term has at every step; None where it may change."""
        weights = {name: self._given_weights().of(name) for name in names}
        return {name: w.value if w.constant else None for name, w in weights.items()}

    def _given_weights(self) -> GivenWeights:
        compiled = [loss.name for loss in self.resolved.compiled or ()]
        by_name = weights_by_name(self.loss_weights, compiled)
        of_terms = {term.name: term.weight for term in self.terms}
        return GivenWeights(by_name, of_terms, self.resolved.names or {}, self.overrides)

    def _line(self, name: str, model_terms, weights: GivenWeights) -> Described:
        """The table's line of one term."""
        wholes = [name, *heads(name)]
        terms = [term for term in self.terms if term.name in wholes]
        compiled = {loss.name: loss.source for loss in self.resolved.compiled or ()}
        sources = [term.source for term in terms] + [compiled.get(whole) for whole in wholes]
        if name in model_terms:
            origin = "model"
        elif terms:
            origin = "term"
        elif name.startswith("uncertainty/"):
            origin = "weight"
        else:
            origin = "compiled" if not compiled.keys().isdisjoint(wholes) else "subclass"
        source = next((each for each in sources if each is not None), None)
        return Described(name, origin, str(weights.of(name)), _trains(terms), source)


def _trains(terms: list[Term]) -> tuple[str, ...] | None:
    """The groups that the first of the terms trains alone; None for all, and for no term."""
    groups = terms[0].trains if terms else None
    return (groups,) if isinstance(groups, str) else groups and tuple(groups)


def _add_penalties(terms: dict[str, Ratio], weights: GivenWeights) -> None:
    """Adds `uncertainty/<term>` for each term whose weight is trained."""
    for name, term in list(terms.items()):
        penalty = weights.of(name).penalty()
        if penalty is not None:
            penalty_term = {f"uncertainty/{name}": Ratio.once(penalty, beside=term)}
            _join(terms, penalty_term, f"by the weight of {name!r}", "by a term")


def _join(terms: dict, more: dict, by: str, other: str) -> None:
    for name, value in more.items():
        checked_name(name, f"A term's name, given {by},")
        if name in terms:
            raise TermwiseError(
                f"Term {name!r} is defined twice: {by} and {other}. Give one of them another name."
            )
        terms[name] = value
