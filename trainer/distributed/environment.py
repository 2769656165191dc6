"""Numbers that the environment of a process sets, such as how long a start waits for its peers."""

from __future__ import annotations

import os
from typing import TypeVar

from losses.errors import TermwiseError

Number = TypeVar("Number", int, float)
STARTUP_SECONDS = 600.0


def number(name: str, default: Number) -> Number:
    """The number that an environment variable holds, of the type of `default`.

    Args:
      name: of the variable.
      default: what counts where the variable is not set, or is empty.
    Raises:
      ValueError: the variable holds something else.
    """
    text = os.environ.get(name)
    if not text:
        return default
    try:
        return type(default)(text)
    except ValueError:
        raise TermwiseError(f"{name}={text!r}: accepted is a number.") from None


def startup_seconds() -> float:
    """How long a start waits for the other hosts: TERMWISE_STARTUP_S, or ten minutes."""
    return number("TERMWISE_STARTUP_S", STARTUP_SECONDS)
