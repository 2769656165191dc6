"""The weights of the terms: one form for all that may be a weight, and which one a term has."""

from __future__ import annotations

import fnmatch
import inspect
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from losses.checks import as_number
from losses.errors import TermwiseError, TermwiseTypeError
from losses.layers import stable_path
from losses.naming import suggestion
from losses.objective.outputs import flatten
from losses.objective.parameter import parameter_of


class Weight:
    """A term's weight in one form: called with the step, it gives a float32 [].

    Args:
      value: None (1), a number, a variable, a Keras schedule or another function of the step,
        or a trainable weight such as `UncertaintyWeight`: a function of the step whose `penalty()`
        is a term of its own.
      term: the term's name, for errors.
    Raises:
      ValueError: a number that is not finite.
      TypeError: anything else.
    """

    def __init__(self, value, term: str):
        self.value: Any = 1.0 if value is None else value
        self.term = term
        constant = as_number(self.value)
        if constant is not None:
            self.value = constant
            if not math.isfinite(constant):
                raise TermwiseError(
                    f"The weight of term {term!r} is {constant}. Give a finite number, a function "
                    "of the step, or a variable."
                )
        elif isinstance(self.value, (keras.Variable, tf.Variable)):
            if tf.TensorShape(self.value.shape).rank:
                raise TermwiseError(
                    f"The weight of term {term!r} is a variable of shape "
                    f"{tuple(self.value.shape)}. Give a scalar; weight points inside the term."
                )
        elif not callable(self.value) or inspect.isclass(self.value):
            raise TermwiseTypeError(
                f"The weight of term {term!r} is {value!r}. Accepted: a number, a function of the "
                "step (a keras.optimizers.schedules object is one), a variable, or a trainable "
                "weight such as losses.UncertaintyWeight()."
            )

    @property
    def constant(self) -> bool:
        """Whether it is a number, the same at every step."""
        return isinstance(self.value, float)

    def __call__(self, step) -> tf.Tensor:
        if self.constant:
            return tf.constant(self.value, tf.float32)
        value = self.value
        if not isinstance(value, (keras.Variable, tf.Variable)):
            value = value(step)
        value = tf.cast(tf.convert_to_tensor(value), tf.float32)
        if value.shape.rank != 0:
            raise TermwiseError(
                f"The weight of term {self.term!r} has shape {tuple(value.shape)} at a step. "
                "A weight is one number."
            )
        return value

    @property
    def scheduled(self) -> bool:
        """Whether it is a function of the step alone: it reads no variable, and draws nothing."""
        if self.constant or self.penalizes or not callable(self.value):
            return False
        if isinstance(self.value, (keras.Variable, tf.Variable)):
            return False
        function = tf.function(self.__call__, autograph=False)
        graph = function.get_concrete_function(tf.TensorSpec([], tf.int64)).graph
        reads = any(tensor.dtype == tf.resource for tensor in graph.inputs)
        return not reads and not any(node.op_def.is_stateful for node in graph.get_operations())

    @property
    def penalizes(self) -> bool:
        """Whether it is a trainable weight that adds a term of its own."""
        return callable(getattr(self.value, "penalty", None))

    def penalty(self) -> tf.Tensor | None:
        """What a trainable weight adds of its own, [], or None."""
        return self.value.penalty() if self.penalizes else None

    def dials(self, step) -> list[tf.Variable]:
        """The variables that it reads and that are its user's to set, at a step, int64 [].

        What is made to learn is none of them: a trainable weight, and a `Parameter` wherever it
        is read.
        """
        if self.constant or self.penalizes:
            return []
        with tf.GradientTape() as tape:
            self(step)
        return [v for v in tape.watched_variables() if parameter_of(v) is None]

    def __str__(self):
        if self.constant:
            return f"{self.value:g}"
        if isinstance(self.value, (keras.Variable, tf.Variable)):
            return f"variable {self.value.name.split(':')[0]}"
        if type(self.value).__repr__ is not object.__repr__ and not inspect.isfunction(self.value):
            return repr(self.value)
        return getattr(self.value, "__name__", type(self.value).__name__)


@dataclass(frozen=True)
class Pauses:
    """The terms whose scheduled weight is 0 for a while, and which of them are so together.

    Attributes:
      weights: name -> the weight of each such term.
      sets: those that are 0 at once for a while, the largest set first; the last is empty.
    """

    weights: Mapping[str, Weight] = field(default_factory=dict)
    sets: tuple[frozenset[str], ...] = (frozenset(),)

    def counts(self, name: str, step) -> tf.Tensor:
        """float32 [], 1 where a term counts at a step, int64 []; 0 where its weight is 0."""
        return tf.cast(tf.not_equal(self.weights[name](step), 0), tf.float32)

    def which(self, step) -> tf.Tensor:
        """int32 [], the first of the sets whose terms all have the weight 0 at a step, int64 []."""
        if len(self.sets) == 1:
            return tf.zeros([], tf.int32)
        idle = {name: tf.equal(weight(step), 0) for name, weight in self.weights.items()}
        fits = [tf.reduce_all([idle[name] for name in names]) for names in self.sets[:-1]]
        return tf.argmax(tf.stack([*fits, tf.constant(True)]), output_type=tf.int32)


LEAST_PAUSE = 10  # steps in a row
MOST_SETS = 5  # each is a trace of the step
_AT_A_TIME = 2**16  # steps


def find_pauses(weights: Mapping[str, Weight], steps: int) -> Pauses:
    """The terms that pause: whose scheduled weight is 0 for at least `LEAST_PAUSE` steps in a row.

    Args:
      weights: name -> weight, of all terms.
      steps: the last step that is looked at, counted from 0.
    """
    scheduled = {name: weight for name, weight in weights.items() if weight.scheduled}
    if not scheduled:
        return Pauses()
    idle = np.concatenate(list(_zeros(scheduled, steps)))
    names = [name for name, zero in zip(scheduled, idle.T, strict=True) if _pauses(zero)]
    if not names:
        return Pauses()
    columns = idle[:, [name in names for name in scheduled]]
    rows, counts = np.unique(columns, axis=0, return_counts=True)
    common = [row for row, count in zip(rows, counts, strict=True) if count >= LEAST_PAUSE]
    common = sorted(common, key=lambda row: -counts[(rows == row).all(1)][0])[:MOST_SETS]
    sets = {frozenset(n for n, zero in zip(names, row, strict=True) if zero) for row in common}
    ordered = sorted(sets - {frozenset()}, key=lambda names: (-len(names), sorted(names)))
    return Pauses({name: scheduled[name] for name in names}, (*ordered, frozenset()))


def _zeros(scheduled: Mapping[str, Weight], steps: int) -> Iterable[np.ndarray]:
    """Where weights are 0: bool [steps, weights], some steps at a time."""

    def zero(step):
        return tf.stack([tf.equal(weight(step), 0) for weight in scheduled.values()])

    count = min(steps, _AT_A_TIME)

    def look(start):
        return tf.map_fn(zero, start + tf.range(count, dtype=tf.int64), fn_output_signature=tf.bool)

    def traced(jit_compile):
        function = tf.function(look, autograph=False, jit_compile=jit_compile)
        return function.get_concrete_function(tf.TensorSpec([], tf.int64))

    # many steps are looked through in one program, unless the schedule is one of Python's
    function = traced(steps > 1000 or None)
    for start in range(0, steps, count):
        try:
            zeros = function(tf.constant(start, tf.int64))
        except tf.errors.OpError:
            function = traced(None)
            zeros = function(tf.constant(start, tf.int64))
        yield zeros.numpy()[: steps - start]


def _pauses(zero: np.ndarray) -> bool:
    """Whether bools [steps] are true `LEAST_PAUSE` times in a row."""
    changes = np.flatnonzero(np.diff(np.concatenate([[0], zero.astype(int), [0]])))
    return bool(len(changes)) and int(np.max(changes[1::2] - changes[::2])) >= LEAST_PAUSE


@dataclass(frozen=True)
class GivenWeights:
    """The weights that the user gave, by the name of a term or of the term it is a part of.

    Attributes:
      by_name: those of `loss_weights=`, which come first; a key may be a pattern of names.
      of_terms: those of the `losses.Term` objects.
      aliases: Keras's name of a layer -> the name it has in those of terms.
      overrides: what comes before `by_name`: of a phase.
    """

    by_name: Mapping[str, Any]
    of_terms: Mapping[str, Any]
    aliases: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def of(self, name: str) -> Weight:
        """The weight of a term: its own, else that of the term it is a part of, else 1.

        A pattern of `loss_weights=` counts where no name does. What a trainable weight adds of its
        own, `uncertainty/<term>`, counts as it is.

        Raises:
          ValueError: two patterns with different weights match it.
        """
        head, _, weighed = name.partition("/")
        if head == "uncertainty" and weighed and self.of(weighed).penalizes:
            return Weight(1.0, name)
        by_name = [(self._named(w), self._matching(w, name)) for w in self._given]
        for weights in (*itertools.chain(*by_name), self.of_terms):
            for whole in (name, *heads(name)):
                if whole in weights:
                    return Weight(weights[whole], name)
        return Weight(None, name)

    @property
    def _given(self) -> list[Mapping[str, Any]]:
        """The weights by name, those first that come first."""
        return [self.overrides, self.by_name] if self.overrides else [self.by_name]

    def _named(self, weights: Mapping[str, Any]) -> dict[str, Any]:
        """Weights by name, with each of Keras's names under that of the term too."""
        return {**{stable_path(n, self.aliases): w for n, w in weights.items()}, **weights}

    def _matching(self, weights: Mapping[str, Any], name: str) -> dict[str, Any]:
        """The weight of the patterns that match a name, by that name."""
        matching = {p: w for p, w in weights.items() if _matches(p, name)}
        if len({identity_of(weight) for weight in matching.values()}) > 1:
            raise TermwiseError(
                f"loss_weights= has the patterns {' and '.join(map(repr, matching))}, which both "
                f"match term {name!r}. Give it a weight by its own name."
            )
        return dict.fromkeys([name] if matching else [], next(iter(matching.values()), None))

    def check_names(
        self, terms: Iterable[str], exact: Iterable[str] = (), by: str = "loss_weights="
    ) -> None:
        """Raises ValueError where `by_name` names what is no term and no part's whole.

        Args:
          terms: the names of all terms.
          exact: those that the user gave, which mean themselves.
          by: who gives the weights, for errors.
        """
        known = list(terms)
        wholes = {whole for name in known for whole in heads(name)}
        for name in self.by_name:
            other = stable_path(name, self.aliases)
            if name in known and other in known and name != other and name not in exact:
                raise TermwiseError(
                    f"{by} names {name!r}: a term, and Keras's name for term {other!r}. "
                    "Give the layers names of your own."
                )
            named = {name, other} & {*known, *wholes}
            if not named and not any(_matches(name, term) for term in known):
                raise TermwiseError(
                    f"{by} names term {name!r}; the terms are "
                    f"{', '.join(map(repr, known))}.{suggestion(name, known)}"
                )


def identity_of(weight):
    """What two equal weights have in common: a number, or the object."""
    number = as_number(weight)
    return id(weight) if number is None else number


def _matches(pattern: str, name: str) -> bool:
    """Whether a key of `loss_weights=` is a pattern, and matches the name of a term."""
    return any(sign in pattern for sign in "*?[") and fnmatch.fnmatchcase(name, pattern)


def heads(name: str) -> list[str]:
    """The terms that a term is a part of, the nearest first: `a/b/c` -> `a/b`, `a`."""
    return [name[:i] for i, letter in enumerate(name) if letter == "/"][::-1]


def weights_by_name(loss_weights, compiled: Sequence[str]) -> dict[str, Any]:
    """What `loss_weights=` gives, by the names of terms.

    Args:
      loss_weights: as `Model.compile` takes it: None, one weight, a list, or a (nested) dict.
      compiled: the names of the compiled losses, which one weight or a list is meant for.
    Raises:
      ValueError: another number of weights than of compiled losses.
    """
    if loss_weights is None:
        return {}
    names = ", ".join(map(repr, compiled))
    if isinstance(loss_weights, (list, tuple)):
        if len(loss_weights) != len(compiled):
            raise TermwiseError(
                f"loss_weights= is a list of {len(loss_weights)}, but there are {len(compiled)} "
                f"compiled losses: {names}. Give one for each, or a dict by term name."
            )
        return dict(zip(compiled, loss_weights, strict=True))
    if not isinstance(loss_weights, dict):
        if len(compiled) != 1:
            raise TermwiseError(
                f"loss_weights={loss_weights!r} is one weight, but there are {len(compiled)} "
                f"compiled losses: {names}. Give a dict by term name."
            )
        return {compiled[0]: loss_weights}
    by_name: dict[str, Any] = {}
    for key, value in loss_weights.items():
        nested = isinstance(value, (dict, list, tuple))
        by_name.update(flatten({key: value}) if nested else {key: value})
    return by_name
