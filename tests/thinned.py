"""Of many cases that are alike, those that `make test` runs; the others are marked `very_slow`."""

import pytest


def thinned(cases, every):
    """Every so manieth case as it is, beginning with the first; the others as `very_slow`.

    A case that is a tuple has a value for each of several arguments.
    """
    return [
        case if place % every == 0 else very_slow(*case if isinstance(case, tuple) else (case,))
        for place, case in enumerate(cases)
    ]


def very_slow(*values):
    """A case that `make test` leaves out."""
    return pytest.param(*values, marks=pytest.mark.very_slow)
