"""Errors of a run whose values are not finite, or which does not fit in the memory."""

from __future__ import annotations

from losses.errors import TermwiseError


class OutOfMemoryError(TermwiseError, MemoryError):
    """A step does not fit in the memory of a device."""


class Nonfinite(TermwiseError, FloatingPointError):
    """A term or the gradient was not finite in a log window; `.terms` names the terms."""

    def __init__(self, message: str, terms: list[str]):
        super().__init__(message)
        self.terms = terms
