"""A recall held by a constraint, and by what it is compared with."""

from experiments.check import Check
from experiments.gallery.table import Entry, Measured

CHANCE = "chance of so few hits at the bound"


def aims(measured: Measured) -> dict[str, Check]:
    """The bound is kept on the test data of every seed, within sampling error."""
    return {f"lowest {CHANCE}": Check(min(measured.values("held", CHANCE)), at_least=0.05)}


ENTRY = Entry(
    "A recall of at least 0.9 held by `losses.Constraint`, which counts data that no weight "
    "learns from; beside a constraint on the training data, a weight tuned by hand, and neither.",
    variants={
        "held": (),
        "train": ("--config.variant=train",),
        "weight": ("--config.variant=weight",),
        "plain": ("--config.variant=plain",),
    },
    aims=aims,
)
