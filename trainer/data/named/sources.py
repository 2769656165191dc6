"""What a user passes as several named sources, and what their arguments are for each of them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from losses.errors import TermwiseError, TermwiseTypeError
from trainer.data.named.joint import checked_names
from trainer.data.named.rates import Rate, checked_every, checked_probability


@dataclass(frozen=True, init=False, repr=False)
class Sources:
    """Several named sources of data, of which each step draws one batch each.

        fit(Sources(labelled=(x, y), unlabelled=(u,)), batch_size={"labelled": 8, "unlabelled": 56})

    The first is the main one: its passes are the epochs, its examples are those of a row, and
    compiled losses are its own unless they are given by source. A term is of a source by
    `losses.term(fn, source="unlabelled")`; any term reads any source by `step["unlabelled"]`. Each
    source has its own batch size, shuffling, epochs and position; arrays and pipelines mix.

    Args:
      sources: name -> data, as `Trainer.fit` takes it.
    Raises:
      ValueError: no source, or a name that cannot be one.
      TypeError: sources within a source.

    Example:
      >>> Sources(labelled=([[0.0]], [1.0]), unlabelled=([[2.0]],)).names
      ('labelled', 'unlabelled')
    """

    data: Mapping[str, Any] = field(default_factory=dict)
    rates: Mapping[str, Rate] = field(default_factory=dict)

    def __init__(self, **sources):
        if not sources:
            raise TermwiseError("Sources() holds no source. Give them by name: Sources(a=(x, y)).")
        checked_names(tuple(sources))
        for name, data in sources.items():
            if isinstance(data, Sources):
                raise TermwiseTypeError(f"Source {name!r} is itself Sources. Give all in one.")
        object.__setattr__(self, "data", dict(sources))
        object.__setattr__(self, "rates", {})

    @property
    def names(self) -> tuple[str, ...]:
        """The names, the main one first."""
        return tuple(self.data)

    def main(self, name: str) -> Sources:
        """The same sources with another main one."""
        self.check_names([name], "main()")
        ordered = {name: self.data[name], **self.data}
        return self._with(data=ordered)

    def every(self, **steps: int) -> Sources:
        """The same sources, of which some are drawn at every so many steps alone.

        At the other steps their terms are absent, and their part of the step costs nothing.

        Args:
          steps: name -> whole number of steps; the first step draws.
        """
        self.check_names(steps, "every()")
        return self._rated({name: Rate(checked_every(name, n)) for name, n in steps.items()})

    def sampled(self, **probability: float) -> Sources:
        """The same sources, of which some are drawn at each step with a probability.

        Whether a step draws follows from the run's seed and the step alone.

        Args:
          probability: name -> above 0 and at most 1.
        """
        self.check_names(probability, "sampled()")
        rates = {name: Rate(1, checked_probability(name, p)) for name, p in probability.items()}
        return self._rated(rates)

    def _rated(self, rates: Mapping[str, Rate]) -> Sources:
        return self._with(rates={**self.rates, **rates})

    def _with(self, **changed) -> Sources:
        copied = copy.copy(self)
        for name, value in changed.items():
            object.__setattr__(copied, name, value)
        return copied

    def check_names(self, names: Iterable[str], what: str) -> None:
        """Raises ValueError where something is given for a source that there is not."""
        for name in names:
            if name not in self.data:
                raise TermwiseError(
                    f"{what} names the source {name!r}; the sources are "
                    f"{', '.join(map(repr, self.data))}."
                )

    def __repr__(self) -> str:
        return f"Sources({', '.join(self.data)})"
