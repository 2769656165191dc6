"""A bound on a quantity: a term whose weight is a multiplier that grows while it is violated."""

from __future__ import annotations

import copy
import fnmatch
import math
from collections.abc import Callable, Iterable, Mapping

import keras
import tensorflow as tf

from losses.checks import number, whole
from losses.errors import TermwiseError, TermwiseTypeError
from losses.objective import Ratio, Term, placed_ratios
from losses.terms.multiplier import Ascent, Multiplier
from losses.terms.proxy import after_of, stand_in

RATE, DAMPING, PENALTY, EVERY = 0.01, 1.0, 1.0, 100
# kind -> the arguments that are its own, and what they are by default
KINDS: dict[str, dict[str, float]] = {
    "lagrangian": {"rate": RATE},
    "damped": {"rate": RATE, "damping": DAMPING},
    "augmented": {"penalty": PENALTY, "every": EVERY},
}
BOUNDS = {"at_most": "at most", "at_least": "at least", "equals": "equal to"}


@keras.saving.register_keras_serializable(package="termwise")
class Constraint(Term):
    """A quantity that is to keep a bound while the other terms are minimised.

        raw        = quantity - at_most,  at_least - quantity,  or  quantity - equals
        multiplier = [multiplier + rate * raw]+                       after each update
        weight     = [multiplier + damping * raw of the step before]+

    The weights descend weight * raw as they do every term; the multiplier ascends it, by plain
    steps of its own rate, whatever the optimizer is. [ ]+ is "not below 0"; of an equation the
    sign is free. At the optimum raw <= 0, and the multiplier is that of Karush, Kuhn and Tucker:
    by how much the other terms would fall for one unit of bound. A row has `raw/<name>` (0 or
    less: kept), `weight/<name>`, `multiplier/<name>` and `violation/<name>`, by how much the row
    breaks the bound. An evaluation moves nothing.

    kind="damped" is Platt and Barr's method: the damping pulls back at once, where the multiplier
    alone would swing past the bound, and makes objectives converge that are linear or not convex
    in the direction of the constraint. kind="augmented" is the method of multipliers: the same
    with damping = rate = `penalty`, the multiplier moving every so many updates, between which the
    weights come near their minimum. kind="lagrangian" has no damping: it converges where the other
    terms are strictly convex and the rate is small, and circles around the optimum where they are
    linear. The damping reads the violation of the step before: another batch than the one whose
    gradient it weighs, so that their product is right in the mean; and the same weight for all
    steps of an accumulated update.

    The bound is on the global batch by default, exact on any number of replicas; accumulated steps
    are one batch. It needs no memory, follows the weights at once, and its mean over batches is
    what the multiplier follows. A rate that few examples of a batch decide is noisy there, and a
    noisy multiplier that may not be negative stays too large: then give `average=`. It moves the
    multiplier, and damps, by decayed sums of numerators and denominators over the batches; the
    weights' gradient stays that of the batch.

    Args:
      fn: a function of the step that returns what a term may (values [examples], a scalar or a
        `Ratio`, one quantity), or a `losses.Term`, in the quantity's own unit.
      name: str; the function's own name by default.
      at_most, at_least, equals: float, the bound; one of them.
      kind: "damped", "augmented" or "lagrangian".
      rate: float > 0, or a function of the global step; of "damped" and "lagrangian", 0.01.
      damping: float >= 0, of "damped", 1.0.
      penalty: float > 0, of "augmented", 1.0.
      every: int, of "augmented": updates between two moves of the multiplier, 100.
      average: None, or a decay between 0 and 1.
      proxy: for a quantity without a gradient, such as a rate: a differentiable stand-in, as `fn`.
        The multiplier and the rows go by `fn`, the weights by the gradient of `proxy`.
      initial: float, the first multiplier.
      trains, source: as in `Term`.
    Returns:
      Ratio.
    Raises:
      ValueError: no bound or several; a number outside its range; an argument of another kind;
        several quantities; a quantity without a gradient and without `proxy` (when it is traced).
    Source: Platt and Barr 1987 (differential multipliers, and their damping); Bertsekas 1982,
      chapters 2 and 3 (the method of multipliers); Cotter, Jiang and Sridharan 2019 (proxies, as in
      TFCO); compare Cooper (Gallego-Posada et al. 2025).

    Example: the mean output is to be at most 1; here it is 3.
      >>> from losses import Step
      >>> step = Step(x=tf.zeros([2, 1]), model=None, step=0, training=True)
      >>> step.y_pred = tf.constant([[2.0], [4.0]])
      >>> mean = Constraint(lambda s: s.y_pred[:, 0], name="mean", at_most=1.0)
      >>> float(mean.call(step).value())
      2.0
    """

    def __init__(
        self,
        fn,
        name=None,
        *,
        at_most=None,
        at_least=None,
        equals=None,
        kind="damped",
        rate=None,
        damping=None,
        penalty=None,
        every=None,
        average=None,
        proxy=None,
        initial=0.0,
        trains=None,
        source=None,
    ):
        source = getattr(fn, "source", None) if source is None else source
        super().__init__(self._weight_of_run, name or _name_of(fn), trains, source)
        self._quantity = _checked(self.name, fn)
        self._proxy = None if proxy is None else _checked(self.name, proxy)
        self.fn, self.proxy, self.kind = fn, proxy, kind
        self.bounds = {"at_most": at_most, "at_least": at_least, "equals": equals}
        self._relation, self._bound = self._checked_bound()
        numbers = {"rate": rate, "damping": damping, "penalty": penalty, "every": every}
        self.arguments = {**numbers, "average": average, "initial": initial}
        self._ascent = self._checked_ascent(numbers, average, initial)
        self._multiplier: Multiplier | None = None

    def _checked_bound(self) -> tuple[str, float]:
        """Which bound was given, and where it is."""
        chosen = {name: bound for name, bound in self.bounds.items() if bound is not None}
        if len(chosen) != 1:
            raise TermwiseError(
                f"Constraint {self.name!r} was given {' and '.join(chosen) or 'no bound'}. Give "
                "one of at_most=, at_least= and equals=; two bounds are two constraints."
            )
        relation, bound = next(iter(chosen.items()))
        return relation, number(relation, bound, owner=self)

    def _checked_ascent(self, numbers: dict, average, initial) -> Ascent:
        """How the multiplier moves, of the arguments of this kind alone."""
        if self.kind not in KINDS:
            accepted = ", ".join(map(repr, KINDS))
            raise TermwiseError(f"Constraint(kind={self.kind!r}): accepted are {accepted}.")
        for name, value in numbers.items():
            if value is not None and name not in KINDS[self.kind]:
                raise TermwiseError(
                    f"Constraint({name}={value!r}): kind={self.kind!r} has no {name}. It takes "
                    f"{' and '.join(f'{n}=' for n in KINDS[self.kind])}."
                )
        values: dict = dict(KINDS[self.kind])
        values.update({name: value for name, value in numbers.items() if value is not None})
        signed = self._relation == "equals"
        penalty = values.get("penalty")
        if penalty is not None:
            values["rate"] = values["damping"] = number("penalty", penalty, above=0, owner=self)
        rate = values["rate"]
        if not callable(rate):
            rate = number("rate", rate, above=0, owner=self)
        if average is not None:
            accepted = "a decay above 0 and below 1, such as 0.9, or None"
            average = number("average", average, above=0, owner=self, accepted=accepted)
            number("average", 1 - average, above=0, owner=self, accepted=accepted)
        return Ascent(
            kind=self.kind,
            bound=f"{BOUNDS[self._relation]} {self._bound:g}",
            signed=signed,
            rate=rate,
            damping=number("damping", values.get("damping", 0.0), least=0, owner=self),
            every=whole("every", values.get("every", 1), owner=self),
            average=average,
            initial=number("initial", initial, least=-math.inf if signed else 0, owner=self),
        )

    def for_run(self) -> Constraint:
        """The same constraint with a multiplier of its own, made in the strategy's scope."""
        constraint = copy.copy(self)
        constraint.weight = constraint._multiplier = Multiplier(self.name, self._ascent)
        return constraint

    @property
    def multiplier(self) -> Multiplier:
        """Of this run. ValueError: the constraint is of no run; see `Trainer.multipliers`."""
        if self._multiplier is None:
            raise TermwiseError(
                f"Constraint {self.name!r} has a multiplier in a run alone. Read "
                f"trainer.multipliers[{self.name!r}]."
            )
        return self._multiplier

    def _weight_of_run(self, step) -> tf.Tensor:
        return self.multiplier(step)

    @property
    def bound(self) -> str:
        """The bound in words."""
        return self._ascent.bound

    @property
    def ascent(self) -> Ascent:
        """How its multiplier moves."""
        return self._ascent

    @property
    def variables(self) -> list:
        """Those of what it bounds, and of its multiplier."""
        of_terms = [
            v for each in (self.fn, self.proxy) if isinstance(each, Term) for v in each.variables
        ]
        return of_terms + (self._multiplier.state.variables if self._multiplier else [])

    def violation(self, raw: float) -> float:
        """By how much a raw value breaks the bound."""
        return abs(raw) if self._ascent.signed else max(raw, 0.0)

    def call(self, step) -> Ratio:
        quantity = self._ratio(self._quantity, step)
        placed = quantity.placed
        if self._proxy is not None:
            quantity = stand_in(quantity, self._ratio(self._proxy, step), self.name)
        violation = self._bounded(quantity)
        violation.placed = placed
        return violation

    def _ratio(self, function: Callable, step) -> Ratio:
        seen = step.watched()
        value = function(seen)
        ratios = placed_ratios(self.name, value, seen, seen.asked, alone=True)
        if len(ratios) != 1:
            raise TermwiseError(
                f"Constraint {self.name!r} bounds one quantity; its function returned "
                f"{len(ratios)}: {', '.join(ratios)}. Give each a constraint of its own."
            )
        return next(iter(ratios.values()))

    def _bounded(self, quantity: Ratio) -> Ratio:
        """The violation of a quantity: linear where the quantity is."""
        sign, bound = (-1.0 if self._relation == "at_least" else 1.0), self._bound
        numerator, denominator = quantity.numerator, quantity.denominator
        rest = quantity.present, quantity.alike
        if quantity.after is None and denominator is not None:
            # a bound on n / d is one on n - bound * d, which needs no value before its gradient
            numerator = sign * (numerator - bound * tf.stop_gradient(denominator))
            return Ratio(numerator, denominator, None, None, *rest)

        def violation(divided):
            return sign * (after_of(quantity, divided) - bound)

        return Ratio(numerator, denominator, violation, None, *rest)

    def get_config(self):
        config = {"fn": self.fn, "name": self.name, "kind": self.kind, "proxy": self.proxy}
        config = {**config, **self.bounds, **self.arguments, "trains": self.trains}
        return {**config, "source": self.source}


def constraints_of(terms: Iterable) -> list[Constraint]:
    """The constraints among terms."""
    return [each for each in terms if isinstance(each, Constraint)]


def check_weights(terms: Iterable, weights, by: str = "loss_weights=") -> None:
    """Raises ValueError where something else would weigh a constraint, which its multiplier does.

    Args:
      terms: of a run.
      weights: name or pattern of terms -> weight, or what else `loss_weights=` may be.
      by: who gives them.
    """
    names = list(weights) if isinstance(weights, Mapping) else []
    for constraint in constraints_of(terms):
        for name in names:
            if fnmatch.fnmatchcase(constraint.name, str(name)):
                raise TermwiseError(
                    f"{by} names {name!r}, which weighs constraint {constraint.name!r}: "
                    "its weight is its multiplier. Leave it out; rate=, damping= or penalty= of "
                    "the constraint say how strongly it pulls, and a weight of 0 in a phase leaves "
                    "it out."
                )


def _name_of(fn) -> str:
    """The name of what is bounded."""
    name = getattr(fn, "name", None) or getattr(fn, "__name__", type(fn).__name__)
    if name == "<lambda>":
        raise TermwiseError(
            'losses.Constraint was given a lambda without a name. Pass name="..."; it is what the '
            "ledger and TensorBoard show."
        )
    return str(name)


def _checked(name: str, fn) -> Callable:
    """What is bounded, as a function of the step."""
    if isinstance(fn, Constraint):
        raise TermwiseTypeError(
            f"Constraint {name!r} bounds a constraint. Give the function or term that it bounds."
        )
    if isinstance(fn, Term):
        if fn.weight != 1.0:
            raise TermwiseError(
                f"Constraint {name!r}: its term has the weight {fn.weight!r}, which a bound on the "
                "raw value does not read. Leave weight= out."
            )
        return fn.call
    if not callable(fn):
        raise TermwiseTypeError(
            f"Constraint {name!r} takes a function of the step or a losses.Term, received {fn!r}."
        )
    return fn
