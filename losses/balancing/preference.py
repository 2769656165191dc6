"""What a balancer says whose method has no preference vector."""

from __future__ import annotations

from losses.balancing.balancer import Balancer
from losses.errors import TermwiseError


class WithoutPreference(Balancer):
    """A balancer that takes `every` and `seed`, and refuses a preference.

    Raises:
      ValueError: a preference is given.
    """

    def __init__(self, *, preference=None, every: int = 1, seed: int = 0):
        if preference is not None:
            raise TermwiseError(
                f"{type(self).__name__}(preference={preference!r}): the method has no preference. "
                "Leave it out, or take UPGrad, DualProjection, CAGrad or AlignedMTL."
            )
        super().__init__(every=every, seed=seed)
