"""Checks of what a term is given: numbers within their range, names that exist."""

from __future__ import annotations

import math
import numbers

from losses.errors import TermwiseError
from losses.objective.outputs import suggestion


def check_number(term, argument: str, value, *, above=-math.inf, least=-math.inf) -> float:
    """`value` as a float.

    Args:
      term: the object whose argument it is.
      above, least: float; the value must be greater than the one and not smaller than the other.
    Raises:
      ValueError: anything but a finite number in this range.
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or value <= above or value < least:
        bound = f" above {above:g}" if above > -math.inf else ""
        bound = f" of at least {least:g}" if least > -math.inf else bound
        raise TermwiseError(
            f"{type(term).__name__}({argument}={value!r}): give a finite number{bound}."
        )
    return float(value)


def check_count(term, argument: str, value) -> int:
    """`value` as an int; ValueError where it is no whole number of at least 1."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
        raise TermwiseError(
            f"{type(term).__name__}({argument}={value!r}): give a whole number of at least 1."
        )
    return int(value)


def pick(names: dict, name: str | None, term: str, what: str):
    """The one of `names` that is called `name`; the only one where `name` is None.

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
