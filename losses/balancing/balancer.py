"""The base classes of balancers: what each kind reads of the terms, and what it returns."""

from __future__ import annotations

import abc
import copy
import inspect
from typing import Any, ClassVar

import tensorflow as tf

from losses.checks import check_length, numbers_of_terms, whole
from losses.errors import TermwiseTypeError


class _KnownArguments:
    """Refuses a keyword that the class's constructor does not take, and names those it takes."""

    def __new__(cls, *_, **arguments):
        accepted = _parameters(cls)
        for name, value in arguments.items():
            if name not in accepted and not _is_open(cls.__init__):
                raise TermwiseTypeError(
                    f"{cls.__name__} has no {name}=, but received {name}={value!r}. Leave it out. "
                    f"Accepted: {', '.join(accepted)}."
                )
        return super().__new__(cls)


class Balancer(_KnownArguments, abc.ABC):
    """What all balancers share: preference, cadence, seed, place, and state that the caller keeps.

    A balancer is pure: what it returns depends on its arguments alone. One that remembers gets
    its state as an argument, and `next_state` gives the state after it, so that the same object
    serves plain tensors, a traced step and a restored run.

    A loop asks it for the terms that take part in a step alone, those that the batch has and whose
    weight is not 0: `among` makes the balancer of these.

    Derive from the class that says what the method reads: `ValuesBalancer`, `GramianBalancer`,
    `JacobianWeightsBalancer`, `JacobianBalancer` (a direction) or `TracesBalancer`. A subclass
    takes those of the arguments below that it offers and passes them on.

    Args:
      preference: None (1/m each where the paper has a preference), or m positive numbers.
      every: steps between two balancings; the weights stay in between.
      seed: int, of the draws; a draw is a function of (seed, step).
      at: where a loop takes the gradients: None (all variables that at least two terms reach), a
        pattern of variable paths, a list of patterns or variables, or a layer or its name (the
        gradients with respect to its output, which cost one backward pass of what follows it).
      terms: a pattern, or patterns, of the terms that are balanced; None: all but the model's own.
        The others keep their weights.
    Raises:
      TypeError: an argument that the method does not have.
      ValueError: a preference that is not positive and finite, or `every` below 1.
    """

    needs: ClassVar[str] = ""  # "values", "gramian", "jacobian" or "traces"
    trained: ClassVar[bool] = False  # whether its state is trained, with the loss parameters
    _part: tuple | None = None  # of `among`

    def __init__(self, *, preference=None, every: int = 1, seed: int = 0, at=None, terms=None):
        if preference is not None:
            positive = "one positive finite number for each term"
            preference = numbers_of_terms(
                "preference", preference, above=0, owner=self, accepted=positive
            )
        self.preference = preference
        self.every = whole("every", every, owner=self)
        self.seed = seed
        self.at: Any = at
        if terms is not None:
            terms = (terms,) if isinstance(terms, str) else tuple(terms)
        self.terms: tuple[str, ...] | None = terms

    def initial_state(self, terms: int) -> dict[str, tf.Tensor]:
        """The state before the first step: name -> tensor of a fixed shape; {} without memory."""
        return {}

    def reset(self, state: dict | None = None) -> dict[str, tf.Tensor]:
        """The state before the first step, for as many terms as `state` has; {} for None."""
        if not state:
            return {}
        return self.initial_state(int(next(iter(state.values())).shape[-1]))

    def among(self, places, terms: int) -> Balancer:
        """This balancer for some of its terms: what was given for each term is that of these.

        Args:
          places: int [k], which they are.
          terms: int, m.
        """
        part = copy.copy(self)
        part._part = places, terms
        return part

    @property
    def places(self):
        """int [k], which of its terms it is asked for; None: all of them."""
        return None if self._part is None else self._part[0]

    def per_term(self, name: str, numbers, terms: int, dtype=tf.float64) -> tf.Tensor:
        """[terms], an argument that holds one number for each term.

        Args:
          name: of the argument.
          numbers: m of them.
          terms: how many terms it is asked for.
        Raises:
          ValueError: another number of them than there are terms.
        """
        check_length(name, numbers, terms if self._part is None else self._part[1], owner=self)
        numbers = tf.constant(numbers, dtype)
        return numbers if self._part is None else tf.gather(numbers, self._part[0])

    def preferred(self, terms: int, dtype=tf.float64) -> tf.Tensor:
        """[terms], the preference; 1/m each by default."""
        if self.preference is None:
            return tf.fill([terms], tf.constant(1.0 / terms, dtype))
        return self.per_term("preference", self.preference, terms, dtype)

    def get_config(self) -> dict:
        """The arguments that make this balancer again.

        Here those of the base class that the constructor takes; a subclass adds its own:
        `{"alpha": self.alpha, **super().get_config()}`.
        """
        accepted = _parameters(type(self))
        shared = ("preference", "every", "seed", "at", "terms")
        return {name: getattr(self, name) for name in shared if name in accepted}

    @classmethod
    def from_config(cls, config):
        """The balancer of a `get_config()`."""
        return cls(**config)

    def __repr__(self):
        parameters = _parameters(type(self))
        shown = ", ".join(
            f"{name}={value!r}"
            for name, value in self.get_config().items()
            if name not in parameters or not _is_default(value, parameters[name].default)
        )
        return f"{type(self).__name__}({shown})"


def _parameters(balancer: type) -> dict[str, inspect.Parameter]:
    """A constructor's arguments by name; `**arguments` stands for those of the class above it."""
    parameters: dict[str, inspect.Parameter] = {}
    for constructor in (vars(kind).get("__init__") for kind in balancer.__mro__):
        if constructor is None:
            continue
        _, *named = inspect.signature(constructor).parameters.values()  # the first is self
        for parameter in named:
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                parameters.setdefault(parameter.name, parameter)
        if not _is_open(constructor):
            break
    return parameters


def _is_open(constructor) -> bool:
    """Whether it takes `**arguments`."""
    parameters = inspect.signature(constructor).parameters.values()
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def _is_default(value, default) -> bool:
    # a variable or layer is compared with None by identity: == may make a tensor of it
    return value is default or (type(value) is type(default) and value == default)


class ValuesBalancer(Balancer):
    """Weights from the terms' values: `weights(values, state)`."""

    needs = "values"

    @abc.abstractmethod
    def weights(self, values, state: dict | None = None, *, step=0) -> tf.Tensor:
        """The weights at a step.

        Args:
          values: floating [m], the raw values of the terms.
          state: of `initial_state` or `next_state`; None is the initial one.
          step: int [], the global step.
        Returns:
          [m] in the dtype of `values`.
        """

    def next_state(self, values, state: dict, *, step=0) -> dict[str, tf.Tensor]:
        """The state after a step with these values."""
        return state


class GramianBalancer(Balancer):
    """Weights from the Gramian of the terms' gradients: `weights(gramian)`.

    The direction is the weighted sum of the gradients, weights @ jacobian.
    """

    needs = "gramian"

    @abc.abstractmethod
    def weights(self, gramian, state: dict | None = None, *, values=None, step=0) -> tf.Tensor:
        """The weights at a step.

        Args:
          gramian: floating [m, m], inner products of the terms' gradients.
          state: of `initial_state` or `next_state`; None is the initial one.
          values: floating [m], the raw values, for the methods that read them.
          step: int [], the global step.
        Returns:
          [m] in the dtype of `gramian`.
        """

    def next_state(self, gramian, state: dict, *, values=None, step=0) -> dict[str, tf.Tensor]:
        """The state after a step with this Gramian."""
        return state

    def direction(self, jacobian, state: dict | None = None, *, values=None, step=0) -> tf.Tensor:
        """The weighted sum of the gradients, [n] in the dtype of `jacobian`: weights(J Jᵀ) @ J.

        Args:
          jacobian: floating [m, n], one row per term's gradient.
        """
        jacobian = tf.convert_to_tensor(jacobian)
        rows = tf.cast(jacobian, tf.float64)
        gramian = tf.matmul(rows, rows, transpose_b=True)
        weights = self.weights(gramian, state, values=values, step=step)
        return tf.cast(tf.linalg.matvec(rows, weights, transpose_a=True), jacobian.dtype)


class JacobianWeightsBalancer(Balancer):
    """Weights from the whole Jacobian of the terms' gradients: `weights(jacobian)`."""

    needs = "jacobian"

    @abc.abstractmethod
    def weights(self, jacobian, state: dict | None = None, *, values=None, step=0) -> tf.Tensor:
        """The weights at a step.

        Args:
          jacobian: floating [m, n], one row per term's gradient.
          state, values, step: as in `GramianBalancer.weights`.
        Returns:
          [m] in the dtype of `jacobian`.
        """

    def next_state(self, jacobian, state: dict, *, values=None, step=0) -> dict[str, tf.Tensor]:
        """The state after a step with this Jacobian."""
        return state

    def direction(self, jacobian, state: dict | None = None, *, values=None, step=0) -> tf.Tensor:
        """The weighted sum of the gradients, [n] in the dtype of `jacobian`: weights @ J."""
        jacobian = tf.convert_to_tensor(jacobian)
        weights = self.weights(jacobian, state, values=values, step=step)
        return tf.linalg.matvec(jacobian, weights, transpose_a=True)


class JacobianBalancer(Balancer):
    """A direction from the whole Jacobian: `direction(jacobian)`.

    It need not be a weighted sum of the gradients.
    """

    needs = "jacobian"

    @abc.abstractmethod
    def direction(self, jacobian, state: dict | None = None, *, values=None, step=0) -> tf.Tensor:
        """What the optimizer descends in place of the sum of the gradients.

        Args:
          jacobian: floating [m, n], one row per term's gradient.
          state, values, step: as in `GramianBalancer.weights`.
        Returns:
          [n] in the dtype of `jacobian`.
        """

    def next_state(self, jacobian, state: dict, *, values=None, step=0) -> dict[str, tf.Tensor]:
        """The state after a step with this Jacobian."""
        return state


class TracesBalancer(Balancer):
    """Weights from the traces of the terms' neural tangent kernels: `weights(traces)`.

    A training loop finds the traces in a pass of its own, and the weights serve the steps that
    follow it.
    """

    needs = "traces"

    @abc.abstractmethod
    def weights(self, traces, state: dict | None = None, *, values=None, step=0) -> tf.Tensor:
        """The weights, [m] in the dtype of `traces`, floating [m]."""

    def next_state(self, traces, state: dict, *, values=None, step=0) -> dict[str, tf.Tensor]:
        """The state after a step with these traces."""
        return state
