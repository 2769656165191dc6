"""Checks of arguments: numbers within their range, names that exist."""

from __future__ import annotations

import math
import numbers
from decimal import Decimal
from typing import NoReturn

import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from losses.naming import suggestion


def is_whole(value) -> bool:
    """Whether it is a whole number of Python or NumPy; True, False and 2.0 are none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def whole(name: str, value, least: int = 1, *, owner=None, accepted: str | None = None) -> int:
    """`value` as an int.

    Args:
      name: of the argument, as its user writes it.
      value: what was passed.
      least: int; the smallest that is accepted.
      owner: the object whose constructor takes the argument, to be named in the error; None for an
        argument of a function.
      accepted: what is accepted, in words; "a whole number of at least <least>" by default.
    Raises:
      ValueError: no whole number (`is_whole`), or one below `least`.

    Example:
      >>> whole("steps", np.int64(3))
      3
      >>> whole("steps", 0)
      Traceback (most recent call last):
      losses.errors.TermwiseError: steps=0: give a whole number of at least 1.
    """
    if not is_whole(value) or value < least:
        _refuse(name, value, owner, accepted or f"a whole number of at least {least}")
    return int(value)


def without_fraction(value):
    """1e4, or a scalar tensor or array of it, as the int 10000; anything else as it is."""
    value = _scalar(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def as_number(value) -> float | None:
    """A number as a float; None for anything else.

    A number is one of Python or NumPy, or a scalar array or eager tensor. True and False are none,
    nor is a variable, whose value may change.
    """
    value = _scalar(value)
    is_number = isinstance(value, (numbers.Real, Decimal)) and not isinstance(value, bool)
    return float(value) if is_number else None


def _scalar(value):
    """A scalar array or eager tensor as a number of Python; anything else as it is."""
    if isinstance(value, tf.Tensor) and value.shape.rank == 0 and not tf.is_symbolic_tensor(value):
        value = value.numpy()
    if isinstance(value, (np.ndarray, np.generic)) and value.ndim == 0:
        value = value.item()
    return value


def number(
    name: str,
    value,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
    owner=None,
    accepted: str | None = None,
) -> float:
    """`value` as a finite float.

    Args:
      name, value, owner: as in `whole`.
      above: float; the value must be greater.
      least, most: float; the value must lie between them or be one of them.
      accepted: what is accepted, in words; "a finite number" and its range by default.
    Raises:
      ValueError: no number (`as_number`), or one that is not finite or not in this range.

    Example:
      >>> number("alpha", 1, least=0)
      1.0
      >>> number("alpha", float("nan"), least=0)
      Traceback (most recent call last):
      losses.errors.TermwiseError: alpha=nan: give a finite number of at least 0.
    """
    real = as_number(value)
    if real is None or not _within(real, above, least, most):
        _refuse(name, value, owner, accepted or f"a finite number{_range(above, least, most)}")
    return real


def share_of_batch(value, name: str = "hardest", owner=None) -> float:
    """A share of a batch as a float. ValueError: no number above 0 and of at most 1."""
    accepted = "a share above 0 and of at most 1, such as 0.25"
    return number(name, value, above=0, most=1, owner=owner, accepted=accepted)


def numbers_of_terms(name: str, values, *, owner, accepted: str, **bounds) -> tuple[float, ...]:
    """Values, one for each term, as finite floats.

    Args:
      name, owner, accepted: as in `number`.
      values: any number of them, at least 1.
      bounds: `above`, `least` and `most`, as in `number`.
    Raises:
      ValueError: no value, or one that `number` refuses.
    """
    values = tuple(values)
    reals = tuple(map(as_number, values))
    if not reals or not all(real is not None and _within(real, **bounds) for real in reals):
        _refuse(name, values, owner, accepted)
    return tuple(real for real in reals if real is not None)


def check_length(name: str, values, terms: int, *, owner, what: str = "numbers") -> None:
    """Raises ValueError where an argument holds more or fewer values than there are terms."""
    if len(values) != terms:
        raise TermwiseError(
            f"{type(owner).__name__}({name}=) holds {len(values)} {what}, but there are {terms} "
            "terms. Give one for each."
        )


def _within(real: float, above=-math.inf, least=-math.inf, most=math.inf) -> bool:
    return math.isfinite(real) and real > above and least <= real <= most


def _range(above: float, least: float, most: float) -> str:
    bounds = []
    if above > -math.inf:
        bounds.append(f"above {above:g}")
    if least > -math.inf:
        bounds.append(f"of at least {least:g}")
    if most < math.inf:
        bounds.append(f"of at most {most:g}")
    return " " + " and ".join(bounds) if bounds else ""


def _refuse(name: str, value, owner, accepted: str) -> NoReturn:
    said = f"{name}={value!r}" if owner is None else f"{type(owner).__name__}({name}={value!r})"
    raise TermwiseError(f"{said}: give {accepted}.")


def pick(names: dict, name: str | None, term: str, what: str):
    """The value that is called `name`; the only value where `name` is None.

    Args:
      names: name -> value, such as a model's outputs.
      term: the term's name, for the error.
      what: what they are, in the plural.
    Raises:
      ValueError: no such name, or None among several.
    """
    if name is None and len(names) == 1:
        return next(iter(names.values()))
    if name in names:
        return names[name]
    known = ", ".join(map(repr, names))
    if name is None:
        raise TermwiseError(
            f"Term {term!r} reads one of the {what} {known}. Say which by its name."
        )
    raise TermwiseError(
        f"Term {term!r} reads {name!r}; the {what} are {known}.{suggestion(name, names)}"
    )
