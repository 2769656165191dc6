"""The errors of users' input: what is raised on purpose, told apart from faults of the code."""

from __future__ import annotations

import dis
import sys

_RAISES = dis.opmap["RAISE_VARARGS"]
_LIBRARIES = {"keras", "losses", "numpy", "tensorflow", "trainer"}


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


def raised_by_user(error: BaseException) -> bool:
    """Whether a `raise` (or `assert`) in code that is no library's has raised an exception.

    Such a message is its author's, and arrives unchanged.
    """
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    frame = trace.tb_frame
    raises = frame.f_code.co_code[trace.tb_lasti] == _RAISES
    return raises and frame.f_globals.get("__name__", "").split(".")[0] not in _LIBRARIES


def as_raised(error: Exception) -> Exception:
    """The exception that a model's own code has raised, without what Keras writes around it."""
    original = error.__context__
    while isinstance(original, Exception) and "Exception encountered when" in str(error):
        error, original = original, original.__context__
    return error
