"""The errors of users' input: what is raised on purpose, told apart from faults of the code."""

from __future__ import annotations

import sys


class TermwiseError(ValueError):
    """Something that was passed, set or written cannot work; the message says what to do.

    Every error that Termwise raises on purpose is one. Whatever else comes out of it is a fault.
    """

    # Its constructor is that of Exception by name: AutoGraph, which makes the errors of a
    # `tf.function` anew, would otherwise make one that is no ValueError.
    __init__ = Exception.__init__


class TermwiseTypeError(TermwiseError, TypeError):
    """What was passed is of a kind that is not accepted."""


class TermwiseRuntimeError(TermwiseError, RuntimeError):
    """What was asked for cannot be done here and now."""


def add_note(error: BaseException, note: str) -> None:
    """Adds a line below the message of an error that goes on; nothing before Python 3.11."""
    if sys.version_info >= (3, 11):
        error.add_note(note)
