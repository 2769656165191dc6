"""What a user passes as several named sources, and what their arguments are for each of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from losses.errors import TermwiseError, TermwiseTypeError
from trainer.data.named.joint import checked_names


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

    def __init__(self, **sources):
        if not sources:
            raise TermwiseError("Sources() holds no source. Give them by name: Sources(a=(x, y)).")
        checked_names(tuple(sources))
        for name, data in sources.items():
            if isinstance(data, Sources):
                raise TermwiseTypeError(f"Source {name!r} is itself Sources. Give all in one.")
        object.__setattr__(self, "data", dict(sources))

    @property
    def names(self) -> tuple[str, ...]:
        """The names, the main one first."""
        return tuple(self.data)

    def main(self, name: str) -> Sources:
        """The same sources with another main one."""
        self.check_names({name: None}, "main()")
        ordered = {name: self.data[name], **self.data}
        return self._with(data=ordered)

    def _with(self, **changed) -> Sources:
        copied = copy.copy(self)
        for name, value in changed.items():
            object.__setattr__(copied, name, value)
        return copied

    def check_names(self, by_name: Mapping, what: str) -> None:
        """Raises ValueError where something is given for a source that there is not."""
        for name in by_name:
            if name not in self.data:
                raise TermwiseError(
                    f"{what} names the source {name!r}; the sources are "
                    f"{', '.join(map(repr, self.data))}."
                )

    def __repr__(self) -> str:
        return f"Sources({', '.join(self.data)})"
