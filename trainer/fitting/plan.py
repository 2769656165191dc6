"""The cadences of a fit: how far it goes, and when something is due."""

from __future__ import annotations

from dataclasses import dataclass

from losses.errors import TermwiseError
from trainer.data.batch import is_whole

# the loop counts the steps of a call and of a log window in int32
BITS = {"log_every": 31, "steps_per_loop": 31}


@dataclass(frozen=True)
class Plan:
    """The cadences of a fit, in steps; None where nothing is due."""

    steps: int
    log_every: int
    interval: int  # of validation; one is an epoch of the callbacks
    checkpoint_every: int | None
    steps_per_loop: int | None

    def next_stop(self, step: int, windows: bool = False) -> int:
        """The next step at which something is due on the host; a row is not, with `windows`."""
        every = [None if windows else self.log_every, self.interval, self.checkpoint_every]
        return min([self.steps, *(step - step % n + n for n in every if n)])

    def saves_at(self, step: int) -> bool:
        """Whether a checkpoint is due at a step."""
        every = self.checkpoint_every
        return every is not None and step % every == 0


def plan_fit(
    source,
    *,
    steps,
    epochs,
    log_every,
    validate_every,
    checkpoint_every,
    steps_per_loop,
    steps_per_epoch=None,
):
    """The `Plan` of a fit's arguments; an epoch is a pass, or so many steps as are given.

    Raises:
      ValueError: neither or both of steps and epochs, steps of an epoch without epochs, or a
        cadence that is not at least 1.
    """
    numbers = {
        "steps": steps,
        "epochs": epochs,
        "log_every": log_every,
        "validate_every": validate_every,
        "checkpoint_every": checkpoint_every,
        "steps_per_loop": steps_per_loop,
    }
    for name, value in numbers.items():
        _check_cadence(name, value)
    if (steps is None) == (epochs is None):
        raise TermwiseError(
            f"fit() needs steps= or epochs=, one of them; received steps={steps}, "
            f"epochs={epochs}. steps is the global step to train to."
        )
    if epochs is None and steps_per_epoch is not None:
        raise TermwiseError(
            f"steps_per_epoch={steps_per_epoch} goes with epochs=. Give epochs=, or "
            "validate_every= with steps=."
        )
    epoch = None if epochs is None else steps_per_epoch or _steps_of_a_pass(source)
    if epoch is not None:
        steps = int(epochs) * epoch
        if steps >= 2**63:
            raise TermwiseError(f"epochs={epochs} are {steps} steps: give less than 2**63.")
    return Plan(
        steps=steps,
        log_every=log_every or epoch or 100,
        interval=validate_every or epoch or steps,
        checkpoint_every=checkpoint_every,
        steps_per_loop=steps_per_loop,
    )


def _steps_of_a_pass(source) -> int:
    """The steps of a pass over data. ValueError: it has no end, or no batch."""
    steps = source.steps_per_epoch
    if steps is None:
        steps = source.count_steps()
    if steps < 0:
        raise TermwiseError(
            "epochs= needs data that ends; this dataset is infinite. Pass steps=, or "
            "steps_per_epoch=."
        )
    if not steps:
        raise TermwiseError(f"{source.what} is an empty dataset. Give at least one batch.")
    return steps


def _check_cadence(name: str, value) -> None:
    """Raises ValueError where a number of steps is none, or too large to be counted."""
    if value is None:
        return
    if not is_whole(value) or value < 1:
        raise TermwiseError(f"{name}={value!r}: give a whole number of at least 1.")
    bits = BITS.get(name, 63)
    if value >= 2**bits:
        only_the_end = "; that of steps= gives the row of the end alone"
        raise TermwiseError(
            f"{name}={value}: give a whole number below 2**{bits}"
            f"{only_the_end if name == 'log_every' else ''}."
        )
