"""Of many cases that are alike, those that `make test` runs; the others are marked `very_slow`."""

import pytest


def thinned(cases, every):
    """Every so manieth case as it is, beginning with the first; the others as `very_slow`."""
    return [
        case if place % every == 0 else pytest.param(case, marks=pytest.mark.very_slow)
        for place, case in enumerate(cases)
    ]
