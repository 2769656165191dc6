"""Colours of terms, as places in a list that the page has: a term keeps its own in all runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

HUES = 8  # colours that the page has
FEWEST = 3  # terms that are folded as one
_NUMBERED = re.compile(r"(.*?\D)\d+")


class Colours:
    """The colours given so far.

    Attributes:
      hues: name of a term, or of terms that are folded -> place.

    Example:
      >>> colours = Colours()
      >>> colours.learn(["data", "l2/a", "l2/b", "l2/c"])
      >>> colours.hues
      {'data': 0, 'l2/*': 1, 'l2/a': 2, 'l2/b': 3, 'l2/c': 4}
    """

    def __init__(self) -> None:
        self.hues: dict[str, int] = {}

    def learn(self, terms: Sequence[str]) -> None:
        """Takes up the terms of a run, in the order of the objective.

        One that is new takes the colour that its own run has least of, and of these the one that
        is rarest in all runs.
        """
        if all(name in self.hues for name in terms):
            return
        groups = Counter(map(group_of, terms))
        folded = {name: group_of(name) for name in terms if groups[group_of(name)] >= FEWEST}
        drawn = dict.fromkeys(folded.get(name, name) for name in terms)  # first what is seen first
        for names in (drawn, folded):
            here = Counter(self.hues[name] for name in names if name in self.hues)
            everywhere = Counter(self.hues.values())
            for name in names:
                if name not in self.hues:
                    hue = min(range(HUES), key=lambda at: (here[at], everywhere[at]))
                    self.hues[name] = hue
                    here[hue] += 1
                    everywhere[hue] += 1


def group_of(name: str) -> str:
    """What names share that are folded: `l2/*` of `l2/kernel`, `aux_*` of `aux_3`.

    A name that shares nothing is itself.
    """
    head, slash, _ = name.partition("/")
    if slash and head:
        return f"{head}/*"
    numbered = _NUMBERED.fullmatch(name)
    return f"{numbered[1]}*" if numbered else name
