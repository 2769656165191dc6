"""The errors of users' input: what is raised on purpose, told apart from faults of the code."""


class TermwiseError(ValueError):
    """Something that was passed, set or written cannot work; the message says what to do.

    Every error that Termwise raises on purpose is one. Whatever else comes out of it is a fault.
    """


class TermwiseTypeError(TermwiseError, TypeError):
    """What was passed is of a kind that is not accepted."""


class TermwiseRuntimeError(TermwiseError, RuntimeError):
    """What was asked for cannot be done here and now."""
