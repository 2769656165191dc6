"""A pre-trained network, and one from scratch, at equal steps."""

from experiments.check import Check
from experiments.gallery.table import Entry, Measured


def aims(measured: Measured) -> dict[str, Check]:
    """By how much the pre-training helps."""
    gap = measured.gap("test accuracy", "fine-tuned", "from scratch")
    return {"accuracy above scratch, in standard errors": Check(gap.in_errors, at_least=2)}


ENTRY = Entry(
    "Warm start (`init_from`), a frozen backbone unfrozen by a phase, rates by group, averaged "
    "weights: digits of a bad scanner from three labels each, after clean ones.",
    variants={"fine-tuned": (), "from scratch": ("--config.variant=scratch",)},
    aims=aims,
)
