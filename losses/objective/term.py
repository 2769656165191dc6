"""Terms that need more than labels and predictions: the base class, and terms of a function."""

from __future__ import annotations

from collections.abc import Iterable

import keras
import tensorflow as tf

from losses.checks import share_of_batch
from losses.distributed.gather import own_examples
from losses.errors import TermwiseError, TermwiseTypeError
from losses.naming import checked_name, snake_case
from losses.objective.parameter import Parameter
from losses.objective.ratio import Ratio
from losses.objective.step import Step
from losses.objective.weights import Weight


class Term:
    """One named term of the objective; subclasses implement `call(step)`.

    Args:
      weight: a number, a function of the step, a variable or a trainable weight.
      name: str, its name in every table and log; the class name in snake_case by default.
      trains: None (every group of variables it reaches), or a group's name or a list of them.
      source: the source of data whose step `call` is given, and whose examples it is a mean over;
        None: the main one.
      hardest: None, or the share of a batch's examples, the hardest, that it learns from alone.

    Example:
      >>> class Sparsity(Term):
      ...     def call(self, step):
      ...         return tf.reduce_sum(tf.abs(step.y_pred), axis=-1)     # [examples]
      >>> Sparsity(weight=0.1).name
      'sparsity'
    """

    def __init__(self, weight=1.0, name=None, trains=None, source=None, hardest=None):
        self.weight = weight
        self.source = checked_source(source)
        self.hardest = None if hardest is None else share_of_batch(hardest, owner=self)
        name = str(name) if name else snake_case(type(self).__name__)
        self.name = checked_name(name, "A term's name")
        self.trains = trains
        self._weights: list = []

    def add_weight(
        self,
        name,
        shape=(),
        initializer="zeros",
        *,
        constraint=None,
        maximize=False,
        trainable=True,
        dtype=None,
    ) -> Parameter:
        """A parameter of this term, trained with the model unless `trainable=False`.

        Args:
          name: str; it is listed as `<term>/<name>`.
          shape: tuple of int.
          initializer: a Keras initializer, its name, or a number.
          constraint, maximize, trainable, dtype: as in `losses.Parameter`.
        Returns:
          Parameter, a `keras.Variable`.
        """
        if isinstance(initializer, (int, float)):
            initializer = keras.initializers.Constant(initializer)
        with keras.name_scope(self.name):
            parameter = Parameter(
                name,
                keras.initializers.get(initializer),
                shape=shape,
                constraint=constraint,
                maximize=maximize,
                trainable=trainable,
                dtype=dtype,
            )
        self._weights.append(parameter)
        return parameter

    @property
    def variables(self) -> list:
        """Its variables: those of `add_weight` and of the variables and layers it holds."""
        variables = list(self._weights)
        for value in vars(self).values():
            if isinstance(value, (keras.Variable, tf.Variable)):
                variables.append(value)
            elif isinstance(value, keras.Layer):
                variables.extend(value.variables)
        return list({id(variable): variable for variable in variables}.values())

    def call(self, step: Step):
        """The raw value: floating [examples], [], a `Ratio`, or a dict of these (sub-terms)."""
        raise NotImplementedError(
            f"{type(self).__name__} has no call(step). Implement it: it returns one value "
            "per example, a scalar, or losses.Ratio."
        )

    def for_run(self) -> Term:
        """What a run trains on: the term itself, unless it has a state of its own in each run."""
        return self

    def get_config(self) -> dict:
        """The arguments that make this term again; a subclass adds its own."""
        config = {"weight": self.weight, "name": self.name, "trains": self.trains}
        more = {"source": self.source, "hardest": self.hardest}
        return {**config, **{name: value for name, value in more.items() if value is not None}}

    @classmethod
    def from_config(cls, config):
        """The term of a `get_config()`."""
        config = {
            key: keras.saving.deserialize_keras_object(value)
            if isinstance(value, dict) and "class_name" in value
            else value
            for key, value in config.items()
        }
        return cls(**config)


def listed_terms(terms, built: Iterable = ()) -> list:
    """`terms=` as a list; one Term alone, or None, is an error that says so.

    Args:
      terms: as the Trainer takes it; called in the scope of its strategy.
      built: the terms that come before them.
    Raises:
      TypeError: it is no list of terms.
    """
    if isinstance(terms, Term) or not isinstance(terms, Iterable) or isinstance(terms, (str, dict)):
        raise TermwiseTypeError(
            f"terms= is a {type(terms).__name__}. Give a list of losses.Term objects."
        )
    return [term.for_run() if isinstance(term, Term) else term for term in [*built, *terms]]


def check_terms(terms: list) -> None:
    """Raises where one is no Term, two have one name, or a weight cannot be one."""
    by_name: dict[str, Term] = {}
    for term in terms:
        if not isinstance(term, Term):
            raise TermwiseTypeError(
                f"terms= holds {term!r}, which is no losses.Term. Make one of a function "
                'with losses.term(function, name="...").'
            )
        if term.name in by_name:
            raise TermwiseError(
                f"Term {term.name!r} is defined twice in terms=: by {_kind(by_name[term.name])} "
                f"and by {_kind(term)}. Give one of them another name."
            )
        by_name[term.name] = term
        Weight(term.weight, term.name)


def _kind(term: Term) -> str:
    function = getattr(term, "function", None)
    return type(term).__name__ if function is None else f"function {function.__name__}"


class _FunctionTerm(Term):
    def __init__(self, function, **arguments):
        super().__init__(**arguments)
        self.function = function

    def call(self, step):
        return self.function(step)


def checked_source(source) -> str | None:
    """The name of a source. TypeError: it is neither a string nor None."""
    if source is None or isinstance(source, str):
        return source
    raise TermwiseTypeError(f"source={source!r}: give the name of a source, a string.")


def term(function, name=None, weight=1.0, trains=None, source=None, hardest=None) -> Term:
    """A term of a function of the step.

    Args:
      function: takes a `losses.Step`; returns what `Term.call` returns.
      name: str; the function's own name by default (a lambda needs one).
      weight, trains, source, hardest: as in `Term`.
    Raises:
      ValueError: a lambda without a name.
      TypeError: not a function.

    Example:
      >>> sparsity = term(lambda step: tf.reduce_sum(tf.abs(step.y_pred), -1), name="sparsity")
    """
    if not callable(function):
        raise TermwiseTypeError(
            f"losses.term() takes a function of the step, received {function!r}."
        )
    name = name or getattr(function, "__name__", type(function).__name__)
    if name == "<lambda>":
        raise TermwiseError(
            'losses.term() was given a lambda without a name. Pass name="..."; '
            "it is what the ledger and TensorBoard show."
        )
    arguments = {"weight": weight, "trains": trains, "source": source, "hardest": hardest}
    return _FunctionTerm(function, name=name, **arguments)


class Trains:
    """A term of `compute_terms` that trains some groups of variables alone, as `Term(trains=)`.

    Args:
      value: what a term may be: floating [examples], [], a `Ratio`, or a dict of these.
      groups: a group's name, or a list of them.

    Example:
      >>> Trains(tf.constant([0.5]), "critic").groups
      ('critic',)
    """

    def __init__(self, value, groups):
        self.value = value
        self.groups = (groups,) if isinstance(groups, str) else tuple(groups)


def as_ratios(name: str, value, step: Step) -> dict[str, Ratio]:
    """What a term returned, as Ratios by name.

    Args:
      name: the term's name; sub-terms of a dict become `<name>/<key>`.
      value: Ratio, floating [examples] or [], or a dict of these.
      step: for the number of examples.
    Raises:
      TypeError: nothing, or integers, or something that is no tensor.
      ValueError: a shape that is neither [examples] nor [].
    """
    if isinstance(value, Ratio):
        return {name: value}
    if isinstance(value, dict) and value:
        parts = {}
        for key, part in value.items():
            parts.update(as_ratios(f"{name}/{key}", part, step))
        return parts
    value = _as_tensor(name, value)
    if value.shape.rank == 0:
        return {name: Ratio.by_share(value, step.examples)}
    batch = tf.nest.flatten(step.x)[0].shape[0]
    # a fixed size beside a batch of unknown size is not one value per example
    if value.shape.rank == 1 and value.shape[0] in (None, batch):
        return {name: Ratio.of_examples(value)}
    size = "examples" if batch is None else batch
    raise TermwiseError(
        f"Term {name!r} returned shape {tuple(value.shape)}. Accepted: ({size},), one value per "
        f"example, or (), a scalar. Reduce the other axes: tf.reduce_mean(..., axis=-1)."
    )


def _as_tensor(name: str, value) -> tf.Tensor:
    """What a term returned as a floating tensor."""
    accepted = "one floating value per example, a scalar, or losses.Ratio"
    if value is None or isinstance(value, dict):
        nothing = "nothing" if value is None else "an empty dict"
        raise TermwiseTypeError(f"Term {name!r} returned {nothing}. Return {accepted}.")
    try:
        tensor = tf.convert_to_tensor(value)
    except (TypeError, ValueError) as error:
        raise TermwiseTypeError(
            f"Term {name!r} returned {type(value).__name__}, which is no tensor. Return {accepted}."
        ) from error
    if not tensor.dtype.is_floating:
        raise TermwiseTypeError(
            f"Term {name!r} returned {tensor.dtype.name}, which has no gradient. "
            f"Return {accepted}; tf.cast(..., tf.float32) what you count."
        )
    return tensor


def ratios_of(term: Term, step: Step) -> dict[str, Ratio]:
    """The Ratios of a term.

    Args:
      step: of the main source.
    Raises:
      AbsentSource: the step has no batch of the term's source.
    """
    if not step.sources and term.source is None:
        return as_ratios(term.name, term.call(step), step)
    seen = step.watched()
    seen = seen if term.source is None else seen[term.source].watched()
    with own_examples(seen.present):  # a padding example is no one's pair
        value = term.call(seen)
    return placed_ratios(term.name, value, seen, seen.asked, alone=True)


def placed_ratios(
    name: str, value, step: Step, asked: list[str], alone: bool = False
) -> dict[str, Ratio]:
    """What a term returned, as Ratios that count the examples of the source they are of.

    Args:
      name: the term's name.
      value: what `Term.call` or `compute_terms` may return.
      step: what it was given.
      asked: the sources that were asked for by name.
      alone: whether it was for this term alone: one other source is then taken to be its own.
    Raises:
      ValueError: one value per example that may be of several sources.
    """
    if not step.sources:
        return as_ratios(name, value, step)
    if isinstance(value, dict) and value:
        parts: dict[str, Ratio] = {}
        for key, part in value.items():
            parts.update(placed_ratios(f"{name}/{key}", part, step, asked, alone))
        return parts
    if isinstance(value, Ratio) and value.placed:
        return {name: value}
    of_source = _source_of(name, value, step, asked, alone)
    ratios = as_ratios(name, value, of_source)
    return {key: ratio.placed_by(of_source) for key, ratio in ratios.items()}


def _source_of(name: str, value, step: Step, asked: list[str], alone: bool) -> Step:
    """The step of the source that a value is of: the one it can be by its length."""
    others = [step.sources[each] for each in asked if each != step.source]
    if not others:
        return step
    is_others = alone and len(others) == 1
    steps = [*others, step] if is_others else [step, *others]
    shape = getattr(value, "shape", None)
    if isinstance(value, Ratio) or shape is None or tf.TensorShape(shape).rank != 1:
        return steps[0]
    fitting = [each for each in steps if _may_be_of(value, each)]
    ambiguous = len(fitting) > 1 and any(each.present is not None for each in fitting)
    if ambiguous and not is_others:
        raise TermwiseError(
            f"Term {name!r} has one value per example, and has asked for the sources "
            f"{', '.join(map(repr, asked))}. Say whose: losses.term(..., source=...), or "
            f"step[{asked[0]!r}].mean(values)."
        )
    return fitting[0] if fitting else steps[0]


def _may_be_of(value, step: Step) -> bool:
    """Whether a value per example may be of a source: their lengths agree, as far as known."""
    size = tf.nest.flatten(step.x)[0].shape[:1]
    return tf.TensorShape(value.shape).is_compatible_with(size)
