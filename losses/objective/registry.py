"""Losses by name, and functions as losses: the classic objectives and this library's own.

It knows no loss of this library: each enters itself here when it is imported (`register_loss`).
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from typing import TypeVar

import keras
import tensorflow as tf

from losses.errors import TermwiseError
from losses.naming import nearest, snake_case

NamedLoss = TypeVar("NamedLoss", bound=Callable)

CONSTRUCTOR = "__init__"
CLASSIC = {
    "mean_squared_error": keras.losses.mean_squared_error,
    "mse": keras.losses.mean_squared_error,
    "mean_absolute_error": keras.losses.mean_absolute_error,
    "mae": keras.losses.mean_absolute_error,
    "mean_absolute_percentage_error": keras.losses.mean_absolute_percentage_error,
    "mape": keras.losses.mean_absolute_percentage_error,
    "mean_squared_logarithmic_error": keras.losses.mean_squared_logarithmic_error,
    "msle": keras.losses.mean_squared_logarithmic_error,
    "squared_hinge": keras.losses.squared_hinge,
    "hinge": keras.losses.hinge,
    "categorical_crossentropy": keras.losses.categorical_crossentropy,
    "sparse_categorical_crossentropy": keras.losses.sparse_categorical_crossentropy,
    "binary_crossentropy": keras.losses.binary_crossentropy,
    "kullback_leibler_divergence": keras.losses.kl_divergence,
    "kld": keras.losses.kl_divergence,
    "poisson": keras.losses.poisson,
}
_CLASSES: dict[str, type[keras.losses.Loss]] = {}  # by class name, and by that in snake_case


def register_loss(loss: NamedLoss) -> NamedLoss:
    """A decorator that names a loss of this library: for `get`, and for what Keras saves.

    Args:
      loss: a `keras.losses.Loss` class, known by its name and by that in snake_case; or a function
        `(y_true, y_pred)`, one of the classic objectives.
    Returns:
      The loss itself.
    """
    if inspect.isclass(loss):
        setattr(loss, CONSTRUCTOR, _without_variables(getattr(loss, CONSTRUCTOR)))
        _CLASSES[loss.__name__] = _CLASSES[snake_case(loss.__name__)] = loss
    else:
        CLASSIC[loss.__name__] = loss
    return keras.saving.register_keras_serializable(package="termwise")(loss)


def _without_variables(init: Callable) -> Callable:
    """A constructor that refuses variables: it reads its arguments once, so none could train."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def checked(self, *arguments, **named):
        with contextlib.suppress(TypeError):  # the constructor itself tells what is missing
            for name, value in signature.bind(self, *arguments, **named).arguments.items():
                _check_no_variable(self, name, value)
        init(self, *arguments, **named)

    return checked


def _check_no_variable(loss, name: str, value) -> None:
    values = value if isinstance(value, (list, tuple)) else [value]
    if any(isinstance(item, (keras.Variable, tf.Variable)) for item in values):
        raise TermwiseError(
            f"{type(loss).__name__}({name}=) was given a variable. This loss reads {name} once, so "
            "that it would neither train nor follow what you assign. Give a plain value; to learn "
            f"{name}, write the loss as a function or losses.Term that reads a losses.Parameter."
        )


def get(identifier):
    """The loss of a name, or what `keras.losses.get` makes of anything else.

    Args:
      identifier: a name: of `CLASSIC`, of a loss of this library ("sparse_focal", "SparseFocal")
        or of Keras ("huber"); a serialized loss; a function or a `keras.losses.Loss`; None.
    Returns:
      A function `(y_true, y_pred)`, a `keras.losses.Loss`, or None.
    Raises:
      ValueError: an unknown name, or a loss that has arguments without a default.

    Example:
      >>> get("sparse_focal").gamma
      2.0
      >>> get("mse").__name__
      'mean_squared_error'
    """
    if not isinstance(identifier, str):
        return keras.losses.get(identifier)
    if identifier in CLASSIC:
        return CLASSIC[identifier]
    if identifier in _CLASSES:
        return _with_defaults(identifier, _CLASSES[identifier])
    try:
        return keras.losses.get(identifier)
    except ValueError:
        names = list(dict.fromkeys([*CLASSIC, *_CLASSES, *_keras_losses()]))
        near = nearest(identifier, names, 3) or nearest(identifier.lower(), names, 3, least=0.4)
        nearest_names = f" The nearest: {', '.join(map(repr, near))}." if near else ""
        raise TermwiseError(
            f"There is no loss named {identifier!r}.{nearest_names} Accepted: "
            f"{', '.join(sorted(CLASSIC))}, and the losses of this library and of Keras in "
            "snake_case."
        ) from None


def made(loss):
    """`loss=` of a Trainer, with this library's losses made where it names them.

    One that learns makes variables, which must exist before a step is traced.

    Args:
      loss: a name, or anything else that `Model.compile(loss=)` takes, in its structure.
    Raises:
      ValueError: there is no loss of a name.
    """
    if isinstance(loss, dict):
        return {name: made(part) for name, part in loss.items()}
    if isinstance(loss, (list, tuple)):
        return type(loss)(map(made, loss))
    if isinstance(loss, str) and loss in _CLASSES and not _needed(_CLASSES[loss]):
        return _CLASSES[loss]()
    if isinstance(loss, str) and loss not in _CLASSES:
        get(loss)  # a name that is none is told before anything is built
    return loss


def _keras_losses() -> list[str]:
    return [n for n in dir(keras.losses) if n not in ("get", "serialize", "deserialize", "Loss")]


def _needed(loss) -> list[str]:
    """The arguments of a loss that have no default."""
    return [
        parameter.name
        for parameter in inspect.signature(loss).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind is not parameter.VAR_KEYWORD
        and parameter.kind is not parameter.VAR_POSITIONAL
    ]


def _with_defaults(name, loss):
    needed = _needed(loss)
    if needed:
        raise TermwiseError(
            f"The loss {name!r} has no default for {', '.join(needed)}. Pass the object: "
            f"losses.{loss.__name__}({', '.join(f'{n}=...' for n in needed)})."
        )
    return loss()


class FunctionLoss(keras.losses.Loss):
    """A function `(y_true, y_pred)` as a `keras.losses.Loss`, as `Model.compile` wraps it.

    Args:
      function: returns one value per example or element, or a scalar.
      name: str; the function's own name by default, "loss" for a lambda.
    """

    def __init__(self, function, name=None, **arguments):
        if name is None:
            name = getattr(function, "__name__", "loss")
            name = "loss" if name == "<lambda>" else snake_case(name)
        super().__init__(name=name, **arguments)
        self.function = function

    def call(self, y_true, y_pred):
        if tf.is_tensor(y_true) and tf.is_tensor(y_pred):
            y_true, y_pred = _beside_each_other(y_true, y_pred)
        return self.function(y_true, y_pred)


def _beside_each_other(y_true, y_pred):
    """Labels and predictions as Keras hands them to a function: (examples,) as (examples, 1)."""
    label_rank, output_rank = y_true.shape.rank, y_pred.shape.rank
    if label_rank is None or output_rank is None:
        return y_true, y_pred
    if label_rank == output_rank - 1 and y_pred.shape[-1] == 1:
        return _of_one_rank(y_true, y_pred)
    if output_rank == label_rank - 1 and y_true.shape[-1] == 1:
        return _of_one_rank(y_pred, y_true)[::-1]
    return y_true, y_pred


def _of_one_rank(shorter, longer):
    """Two tensors, of which the longer has a last axis of 1 more, with as many axes."""
    if shorter.shape.rank == 1:
        return shorter[:, tf.newaxis], longer
    return shorter, tf.squeeze(longer, -1)
