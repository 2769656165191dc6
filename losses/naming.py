"""Names: a loss's or term's default one, which ones can be shown, the nearest to a mistyped one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from losses.errors import TermwiseError, TermwiseTypeError


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


def own_name(loss) -> str:
    """The name the user gave a loss, or its class's or function's in snake_case.

    Keras numbers unnamed losses (`sparse_focal_1`); that number depends on what else was made
    in the process, so it is taken off.
    """
    default = snake_case(type(loss).__name__)
    suffix = loss.name.removeprefix(default + "_")
    return default if suffix.isdigit() else loss.name


def nearest(name, names: Iterable, count: int = 1, least: float = 0.6) -> list[str]:
    """The names most like `name`, the most similar first.

    Args:
      name: what was written.
      names: what exists.
      count: int, how many at most.
      least: float from 0 to 1, the similarity below which a name is not meant.
    """
    return difflib.get_close_matches(str(name), list(map(str, names)), n=count, cutoff=least)


def suggestion(name, names: Iterable) -> str:
    """` Did you mean 'x'?` at the end of an error, or nothing where no name is like it."""
    return "".join(f" Did you mean {other!r}?" for other in nearest(name, names))
