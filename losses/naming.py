"""Names: a loss's or term's default one, which ones can be shown, the nearest to a mistyped one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from losses.errors import TermwiseError, TermwiseTypeError

_COUNTED = re.compile(r"(?P<base>.+)_(?P<number>\d+)")


def checked_name(name, whose: str) -> str:
    """A name that can be shown: in a table, on the console, as a tag.

    Args:
      name: what was given.
      whose: what it names, as the error begins: "A term's name".
    Raises:
      TypeError: it is no string.
      ValueError: it is empty, or holds control characters or line breaks.

    Example:
      >>> checked_name("two\\nlines", "A term's name")
      Traceback (most recent call last):
      losses.errors.TermwiseError: A term's name is 'two\\nlines'. Give one line of plain text.
    """
    if not isinstance(name, str):
        raise TermwiseTypeError(f"{whose} is {name!r}, of {type(name).__name__}. Give a string.")
    if not name or not name.isprintable():
        raise TermwiseError(f"{whose} is {name!r}. Give one line of plain text.")
    return name


def snake_case(name: str) -> str:
    """`SparseFocal` -> `sparse_focal`."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower().strip("_")


def counted_name(name: str, kind: type) -> tuple[str, int] | None:
    """The default name of a class and Keras's number behind it; None: a name of its user's.

    Keras counts what a process makes: the number says nothing about the object.

    Example:
      >>> class Dense: ...
      >>> counted_name("dense_7", Dense), counted_name("dense", Dense), counted_name("head", Dense)
      (('dense', 7), ('dense', 0), None)
    """
    plain = kind.__name__.replace("_", "").lower()
    if name.replace("_", "") == plain:
        return name, 0
    match = _COUNTED.fullmatch(name)
    if match and match["base"].replace("_", "") == plain:
        return match["base"], int(match["number"])
    return None


def own_name(named) -> str:
    """The name the user gave a loss or metric, or its class's in snake_case.

    Keras numbers what has no name (`sparse_focal_1`); that number depends on what else was made
    in the process, so it is taken off.
    """
    counted = counted_name(named.name, type(named))
    return counted[0] if counted else named.name


def nearest(name, names: Iterable, count: int = 1, least: float = 0.6) -> list[str]:
    """The names most like `name`, the most similar first.

    Args:
      name: what was written.
      names: what exists.
      count: int, how many at most.
      least: float from 0 to 1, the similarity below which a name is not meant.
    """
    return difflib.get_close_matches(str(name), list(map(str, names)), n=count, cutoff=least)


def is_slip(name: str, other: str) -> bool:
    """Whether one name is the other with a letter added, left out, changed, or two swapped.

    Capitals and underscores do not count.

    Example:
      >>> is_slip("compute_term", "compute_terms"), is_slip("compute_all", "compute_terms")
      (True, False)
    """
    a, b = (each.replace("_", "").lower() for each in (name, other))
    if len(a) == len(b):
        differ = [i for i in range(len(a)) if a[i] != b[i]]
        swapped = [b[i] for i in reversed(differ)] == [a[i] for i in differ]
        return len(differ) < 2 or (len(differ) == 2 and differ[1] - differ[0] == 1 and swapped)
    short, long = sorted((a, b), key=len)
    return short in (long[:i] + long[i + 1 :] for i in range(len(long)))


def suggestion(name, names: Iterable) -> str:
    """` Did you mean 'x'?` at the end of an error, or nothing where no name is like it."""
    return "".join(f" Did you mean {other!r}?" for other in nearest(name, names))
