"""What the host looks for in each log window: steps all skipped, and terms below 0."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from losses.balancing.uncertainty import TrainedBalancer
from losses.uncertainty_weight import UncertaintyWeight
from trainer.balancing.balanced_terms import BalancedTerms
from trainer.debugging.errors import Nonfinite
from trainer.ledger.history import History
from trainer.ledger.window import StackedSums, WindowSums
from trainer.step.program import StepProgram

WINDOWS = 3  # in a row that are skipped whole: the run is over
SCALED_STEPS = 64  # of these where a loss scale is halved by each: then it is not too large


class WindowWatch:
    """Stops a run that trains nothing any more, and warns of terms that their weights are not for.

    Args:
      names: the terms.
      at_least_0: name -> what weighs it, of the terms that must not be negative.
      scaled: whether there is a loss scale.
      history: the rows so far: of a resumed run its last windows count.
      say: called with a warning.
    """

    def __init__(
        self,
        names: Sequence[str],
        at_least_0: Mapping[str, str],
        scaled: bool,
        history: History,
        say: Callable[[str], object],
    ):
        self._unsigned = {names.index(name): (name, by) for name, by in at_least_0.items()}
        self._least = SCALED_STEPS if scaled else 1
        self._say = say
        self._windows, self._steps = 0, 0  # skipped whole, in a row
        for row in history.rows:
            if row["split"] == "train":
                self._count(row["total"] is None, row.get("skipped_steps", 0))

    @classmethod
    def of(cls, program: StepProgram, balanced: BalancedTerms | None, history, say) -> WindowWatch:
        """The watch of a run.

        Args:
          program: traced.
          balanced: the terms of its balancer, or None.
          history, say: as of the constructor.
        """
        places, names = program.objective.places(), program.layout.names
        known = {
            name: "UncertaintyWeight"
            for name, thing in places
            if isinstance(thing, UncertaintyWeight) and name in names
        }
        if balanced is not None and isinstance(balanced.balancer, TrainedBalancer):
            known.update(dict.fromkeys(balanced.names, type(balanced.balancer).__name__))
        return cls(names, known, program.optimizers.scaled, history, say)

    def look(self, ended: StackedSums, window: WindowSums, step: int, checkpoints) -> None:
        """Looks at the windows that ended in a call of the loop, and at the one that has not.

        Args:
          step: the global step after the call.
          checkpoints: of the run, or None.
        Raises:
          Nonfinite: every step of the last windows was skipped.
        """
        self._warn(ended.weighted, step)
        self._warn(window.weighted[None], step)
        for counted, skipped in zip(ended.steps.tolist(), ended.skipped.tolist(), strict=True):
            self._count(not counted, skipped)
        if self._windows >= WINDOWS and self._steps >= self._least:
            last = step - window.taken
            newest = checkpoints.latest if checkpoints else None
            raise Nonfinite(
                f"Every step of the last {self._windows} log windows was skipped (steps "
                f"{last - self._steps + 1} to {last}), as its values or its gradient were not "
                "finite: nothing is trained. on_nonfinite='raise' stops at the first such step and "
                f"names its term. Kept: {newest or 'nothing, no checkpoint was written'}.",
                [],
            )

    def _count(self, skipped_whole: bool, steps: int) -> None:
        self._windows = self._windows + 1 if skipped_whole else 0
        self._steps = self._steps + steps if skipped_whole else 0

    def _warn(self, weighted: np.ndarray, step: int) -> None:
        """Looks at the terms of some windows, [W, T]."""
        for place, (name, by) in list(self._unsigned.items()):
            if (weighted[:, place] < 0).any():
                del self._unsigned[place]
                self._say(
                    f"term {name!r} is negative (seen up to step {step}). {by} is for terms of at "
                    "least 0: below that its weight grows without bound. Add a constant to the "
                    "term that keeps it from being negative, or give it another weight."
                )
