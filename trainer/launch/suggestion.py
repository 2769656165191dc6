"""The name that somebody probably meant; needs no TensorFlow, as what is typed is checked first."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, names: Iterable[str], least: float = 0.6) -> str | None:
    """The one of some names that is most like another one; None where none is like it.

    Args:
      name: as typed.
      names: those that there are.
      least: how like it must be, from 0 to 1.

    Example:
      >>> nearest("worker", ["workers", "grace_s"])
      'workers'
    """
    matches = difflib.get_close_matches(name, list(names), 1, least)
    return matches[0] if matches else None
