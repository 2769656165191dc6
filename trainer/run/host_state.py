"""What the host goes on with beside the variables: the data, callbacks, how far a fit has come."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from trainer.data.permutation import FIRST_SHUFFLING, SHUFFLING
from trainer.run.packing import pack, unpack


@dataclass(frozen=True)
class HostState:
    """What the host goes on with.

    Attributes:
      shuffling: how the run shuffles arrays, of `trainer.data.permutation`.
      data: the data in use, as `Source.describe` tells it; None where that is not known.
      steps: the last step of the fit.
      ended: whether the fit has come to its end; else it was interrupted.
      stopping: whether a callback has asked the fit to stop.
      epoch_ended: the step at which callbacks had their last `on_epoch_end`.
      epoch_sums: of the present epoch, totals times examples added up, and the examples.
      callbacks: what `CallbackStates.noted` gives.
      rates: source -> fields of its `Rate`, where a phase has set some.
      phase, phase_began: the phase that the run is in, and the step at which it began; "" without.
    """

    shuffling: int = SHUFFLING
    data: dict | None = None
    steps: int = 0
    ended: bool = True
    stopping: bool = False
    epoch_ended: int = 0
    epoch_sums: tuple[float, float] = (0.0, 0)
    callbacks: tuple[dict[str, Any], ...] = ()
    rates: dict[str, tuple] = field(default_factory=dict)
    phase: str = ""
    phase_began: int = 0

    def packed(self) -> bytes:
        """As a checkpoint holds it."""
        return pack({field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def unpacked(cls, data: bytes) -> HostState:
        """From what a checkpoint holds; that of an older version holds nothing."""
        if not data:
            return cls(shuffling=FIRST_SHUFFLING)
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in unpack(data).items() if name in known})
